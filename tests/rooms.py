"""The rooms of the tree: which folder may import which, and what the imports are.

`python -m tests.rooms` prints the floors, the rooms and the circles of today's imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
# A room may import from those of lower floors, and from itself; those of one floor are apart.
FLOORS = (
    ("nncompile.diagnostics",),
    ("nncompile.ir", "nncompile.graphics"),
    ("nncompile.elementwise",),
    ("nncompile.ops",),
    ("nncompile.passes", "nncompile.optim"),
    ("nncompile.autodiff",),
    ("nncompile.program",),
    ("nncompile.backends", "dsl"),
    ("nncompile.runtime",),
    ("nncompile.compiler", "nncompile.frontends"),
    ("nncompile.train", "nncompile.interop"),
    (
        *("nncompile.verify", "nncompile.sklearn", "nncompile.report", "nncompile.finetuning"),
        *("nncompile.serving", "nncompile.parallel"),
    ),
    ("nncompile.cli",),
    ("nncompile.__main__",),
)
# The families of ops, in the same way.
FAMILIES = (
    ("core",),
    ("shape",),
    ("reduction",),
    ("contraction", "quantization"),
    ("loops",),
    ("indexing", "linear_algebra", "random"),
    ("windows",),
    ("convolution",),
    ("pooling", "normalization"),
    ("images",),
)
USERS = (
    "dsl",
    "nncompile.sklearn",
    "nncompile.finetuning",
)  # what is written in the language; the compiler is not
FACE = "__init__"  # the public face of both packages may import anything
# Package → the rooms that may import it; other packages are not restricted.
OWNERS = {
    "onnx": (
        *("nncompile.backends.onnx", "nncompile.frontends.onnx"),
        *("nncompile.runtime", "nncompile.sklearn"),
    ),
    "onnxruntime": ("nncompile.runtime",),
    "torch": ("nncompile.backends.torchscript",),
    "safetensors": ("nncompile.runtime", "nncompile.compiler", "nncompile.train"),
    "typer": ("nncompile.cli",),
    "rich": ("nncompile.cli",),
    "sklearn": ("nncompile.sklearn",),
    "fastapi": ("nncompile.serving",),
    "uvicorn": ("nncompile.serving",),
    "prometheus_client": ("nncompile.serving",),
}


@cache
def modules() -> dict[str, Path]:
    """All modules of both packages by dotted name."""
    found = {}
    for package in ("nncompile", "dsl"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent.name == "templates":  # programs of users, which no module imports
                continue
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


def hidden_imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """What a module looks up by a name in a string, and would else have to import: functions in the
    table of operators, and modules of ours. Nothing is known of a name that is no literal."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "nncompile.ir.dispatch":
            names = {alias.name for alias in node.names} - {"register"}
            yield from ((f"dispatch.{name}", node.lineno) for name in names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node).endswith("dispatch.TABLE"):
            yield "dispatch.TABLE", node.lineno
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("import_module", "__import__"):
                given = node.args[0]
                other = given.value if isinstance(given, ast.Constant) else "nncompile"
                if ours(str(other)):
                    yield ast.unparse(node), node.lineno


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
        return module == "nncompile" or any(is_within(module, user) for user in USERS)
    (above, room), (below, other_room) = floor(module), floor(other)
    if room != other_room:
        return below < above
    if room == "nncompile.ops":
        (above, kind), (below, other_kind) = family(module), family(other)
        return below < above or kind == other_kind or above == below == len(FAMILIES)
    return True


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


def room_of(module: str) -> str:
    """The folder right below the root that holds a module, or the module itself."""
    parts = module.split(".")
    return "dsl" if parts[0] == "dsl" else ".".join(parts[:2])


def room_imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    imports: dict[str, set[str]] = {room_of(m): set() for m in modules()}
    for module in modules():
        for other, _ in all_imports(module):
            if other in modules() and room_of(other) != room_of(module):
                imports[room_of(module)].add(room_of(other))
    return imports


def file_imports() -> dict[str, set[str]]:
    """The files that each file imports."""
    return {m: {other for other, _ in all_imports(m) if other in modules()} for m in modules()}


def floors(imports: dict[str, set[str]]) -> dict[str, int]:
    """How high each stands: on the first floor where it imports none, else above all it imports."""

    @cache
    def height(name: str) -> int:
        return 1 + max(map(height, imports[name]), default=0)

    return {name: height(name) for name in imports}


def main() -> None:
    for kind, imports in (("files", file_imports()), ("folders", room_imports())):
        found = circles(imports)
        print(f"{len(imports)} {kind}, {len(found)} circles{''.join(f'; {c}' for c in found)}")
    heights = floors(room_imports())
    print(f"{max(heights.values())} floors")
    for room, height in sorted(heights.items(), key=lambda item: (-item[1], item[0])):
        print(f"{height:>3}  {room}")


if __name__ == "__main__":
    main()
