"""The order of the rooms: a folder imports only from those below it, and no files import each
other in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A room may import from those of lower floors, and from itself; those of one floor are apart.
FLOORS = (
    ("nncompile.diagnostics",),
    ("nncompile.ir",),
    ("nncompile.elementwise",),
    ("nncompile.ops",),
    ("nncompile.passes", "nncompile.optim"),
    ("nncompile.autodiff",),
    ("nncompile.program",),
    ("nncompile.backends", "dsl"),
    ("nncompile.runtime",),
    ("nncompile.compiler",),
    ("nncompile.train", "nncompile.interop"),
    ("nncompile.verify",),
    ("nncompile.cli",),
    ("nncompile.__main__",),
)
# The families of ops, in the same way.
FAMILIES = (
    ("core",),
    ("shape",),
    ("reduction",),
    ("contraction",),
    ("loops",),
    ("indexing", "linear_algebra", "random"),
    ("windows",),
    ("convolution",),
    ("pooling", "normalization"),
    ("images",),
)
FACE = "__init__"  # the public face of both packages may import anything
# Package → the rooms that may import it; other packages are not restricted.
OWNERS = {
    "onnx": ("nncompile.backends.onnx", "nncompile.runtime"),
    "onnxruntime": ("nncompile.runtime",),
    "torch": ("nncompile.backends.torchscript",),
    "safetensors": ("nncompile.runtime", "nncompile.compiler", "nncompile.train"),
    "typer": ("nncompile.cli",),
    "rich": ("nncompile.cli",),
    "sklearn": (),
}
# Files that still import each other.
CIRCLES = [
    {"nncompile.ir.graph", "nncompile.ir.operators"},
    {"nncompile.backends.onnx.formulas", "nncompile.backends.onnx.integers"},
    {"nncompile.train.events", "nncompile.train.trainer"},
    {
        "nncompile.backends.torchscript.carriers",
        "nncompile.backends.torchscript.emitter",
        "nncompile.backends.torchscript.formulas",
        "nncompile.backends.torchscript.looping",
    },
]


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


@cache
def all_imports(module: str) -> list[tuple[str, int]]:
    return list(imported(module, ast.walk(tree(module))))


def is_within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def ours(module: str) -> bool:
    return module.partition(".")[0] in ("nncompile", "dsl")


def floor(module: str) -> tuple[int, str]:
    """The floor and the room of a module; the faces stand above all."""
    if module in ("nncompile", "dsl"):
        return len(FLOORS), module
    for i, rooms in enumerate(FLOORS):
        for room in rooms:
            if is_within(module, room):
                return i, room
    raise AssertionError(f"{module} is in no room")


def family(module: str) -> tuple[int, str]:
    """The same within the ops; what stands beside the families is above them."""
    name = module.split(".")[2] if module.count(".") > 1 else ""
    for i, names in enumerate(FAMILIES):
        if name in names:
            return i, name
    return len(FAMILIES), module


def goes_down(module: str, other: str) -> bool:
    """Whether a module may import another."""
    if is_within(other, "dsl") or module == "nncompile":
        return module == "nncompile" or is_within(module, "dsl")
    (above, room), (below, other_room) = floor(module), floor(other)
    if room != other_room:
        return below < above
    if room == "nncompile.ops":
        (above, kind), (below, other_kind) = family(module), family(other)
        return below < above or kind == other_kind or above == below == len(FAMILIES)
    return True


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_keeps_to_its_room(module: str) -> None:
    """It imports from below, at its top, and only packages that its room may."""
    path = modules()[module].name
    for other, line in all_imports(module):
        if ours(other):
            assert goes_down(module, other), f"{path}:{line} imports {other}"
        owners = OWNERS.get(other.partition(".")[0])
        allowed = owners is None or any(is_within(module, room) for room in owners)
        assert allowed, f"{path}:{line} imports {other}"
    functions = (
        node
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    )
    late = [line for function in functions for _, line in imported(module, ast.walk(function))]
    assert not late, f"{path}: an import inside a function hides a circle, lines {late}"


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that import each other, in one way or another (Tarjan, 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in sorted(imports[module]):
            if other not in number:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            circle = set(path[path.index(module) :])
            del path[path.index(module) :]
            if len(circle) > 1:
                found.append(circle)

    for module in sorted(imports):
        if module not in number:
            visit(module)
    return found


def test_no_files_import_each_other() -> None:
    imports = {m: {other for other, _ in all_imports(m) if other in modules()} for m in modules()}
    assert sorted(circles(imports), key=sorted) == sorted(CIRCLES, key=sorted)


@pytest.mark.parametrize("name", ["torch", "sklearn", "typer", "rich"])
def test_import_is_light(name: str) -> None:
    """`import nncompile, dsl` loads none of the large packages that only some commands need."""
    code = f"import nncompile, dsl, sys; print({name!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_the_checks_see_faults() -> None:
    source = ast.parse("def f():\n    import torch\n")
    assert list(imported("nncompile.ir.graph", ast.walk(source))) == [("torch", 2)]
    assert not goes_down("nncompile.ir.graph", "nncompile.ops.core.basic")
    assert not goes_down("nncompile.ops.shape.slicing", "nncompile.ops.reduction.reduce")
    assert not goes_down("nncompile.optim.adam", "nncompile.passes.gemm")
    assert not goes_down("nncompile.verify.check", "dsl.losses")
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]
