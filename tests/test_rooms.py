"""The order of the rooms: a module imports only from its own room and those below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each room may import from itself and from those before it.
ROOMS = (
    ("sites", "tracing", "collection", "errors", "habits", "dims", "types"),
    ("graph", "values"),
    ("scalars", "map", "precision", "formula", "show"),
    ("elementwise", "ops"),
    ("reference", "masks", "grad", "rewrite", "stabilise"),
    (
        "passes",
        "optim",
        "recompute",
        "transfer",
        "model",
        "updates",
        "gradients",
        "suspects",
        "recipe",
        "accumulation",
        "step",
        "sizes",
    ),
    ("backends",),
    ("runtime",),
    (
        "train",
        "compiler",
        "export",
        "torch_names",
        "correspondence",
        "interchange",
        "load",
        "differences",
        "check",
        "report",
        "verify",
        "testing",
        "commands",
        "cli",
        "__main__",
    ),
)
LEVELS = {name: level for level, room in enumerate(ROOMS) for name in room}
BACKENDS = 6
FACE = "__init__"  # the public face may import anything
# Package → the rooms that may import it; other packages are not restricted.
OWNERS = {
    "onnx": ("nncompile.backends.onnx", "nncompile.runtime"),
    "onnxruntime": ("nncompile.runtime",),
    "torch": ("nncompile.backends.torchscript",),
    "safetensors": ("nncompile.runtime", "nncompile.export", "nncompile.train"),
    "typer": ("nncompile.cli", "nncompile.commands"),
    "rich": ("nncompile.commands", "nncompile.report"),
    "sklearn": (),
}


@cache
def modules() -> dict[str, Path]:
    """All modules of both packages by dotted name."""
    found = {}
    for package in ("nncompile", "dsl"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == FACE else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imported(module: str, nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """The modules that import statements name, and their lines. `from package import name` names
    the submodule where there is one."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in modules() else str(node.module)), node.lineno


def all_imports(module: str) -> list[tuple[str, int]]:
    return list(imported(module, ast.walk(tree(module))))


def level(module: str) -> int:
    """The room of a module of `nncompile`; `dsl` stands beside the backends."""
    package, _, rest = module.partition(".")
    if package == "dsl":
        return BACKENDS
    if not rest:
        return len(ROOMS)
    return LEVELS[rest.partition(".")[0]]


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def ours() -> list[str]:
    return sorted(modules())


def upward(module: str) -> Iterator[str]:
    """Imports of a room above its own."""
    for other, line in all_imports(module):
        if other.partition(".")[0] in ("nncompile", "dsl") and level(other) > level(module):
            yield f"line {line} imports {other} of a room above"


def across(module: str) -> Iterator[str]:
    """`nncompile` never imports `dsl`, and `dsl` no backend."""
    for other, line in all_imports(module):
        if is_within(module, "nncompile"):
            wrong = is_within(other, "dsl")
        else:
            wrong = is_within(other, "nncompile") and BACKENDS <= level(other) < len(ROOMS)
        if wrong:
            yield f"line {line} imports {other}"


def late(module: str) -> Iterator[str]:
    """An import inside a function hides a circle."""
    functions = (
        node
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    )
    for function in functions:
        for name, line in imported(module, ast.walk(function)):
            yield f"line {line} imports {name} inside a function"


def owned(module: str) -> Iterator[str]:
    """Packages of which another room is the owner."""
    for other, line in all_imports(module):
        owners = OWNERS.get(other.partition(".")[0])
        if owners is not None and not any(is_within(module, room) for room in owners):
            yield f"line {line} imports {other}, which only {owners} may"


@pytest.mark.parametrize("module", ours())
def test_module_keeps_to_its_room(module: str) -> None:
    assert level(module) >= 0  # it has a room
    wrong = [*upward(module), *across(module), *late(module), *owned(module)]
    assert not wrong, wrong


def test_import_is_light() -> None:
    """`import nncompile, dsl` loads none of the large packages that only some commands need."""
    large = {"torch", "sklearn", "typer", "rich"}
    code = f"import nncompile, dsl, sys; print(sorted({large!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_checks_see_a_late_import() -> None:
    source = ast.parse("def f():\n    import torch\n")
    assert list(imported("nncompile.graph", ast.walk(source))) == [("torch", 2)]
