"""The order of the rooms: a folder imports only from those below it, and no files import each
other in a circle."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import nncompile
from tests.rooms import (
    OWNERS,
    ROOT,
    all_imports,
    circles,
    file_imports,
    floors,
    goes_down,
    hidden_imports,
    imported,
    is_within,
    modules,
    ours,
    room_imports,
    tree,
)

# The table of operators itself, and what loads an optional backend or package.
FINDING = (
    *("nncompile.ir.dispatch", "nncompile.ir.operators", "nncompile.ir.array_methods"),
    *("nncompile.backends.optional", "nncompile.diagnostics.extras"),
)


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_module_keeps_to_its_room(module: str) -> None:
    """It imports from below, at its top, and only packages that its room may. It finds no function
    and no module of ours by a string, which hides an import."""
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
    if module not in FINDING:
        found = list(hidden_imports(ast.walk(tree(module))))
        assert not found, f"{path}: looked up by a string, {found}"


def test_no_files_import_each_other() -> None:
    assert not circles(file_imports())


def test_the_rooms_stand_on_few_floors() -> None:
    assert not circles(room_imports())
    assert max(floors(room_imports()).values()) <= 14


def test_import_is_light() -> None:
    """`import nncompile, dsl` loads none of what only some programs need."""
    large = {"torch", "sklearn", "typer", "rich", "onnx", "onnxruntime"}
    large |= {"fastapi", "uvicorn", "prometheus_client"}
    rooms = ("train", "report", "frontends", "interop", "cli", "backends", "runtime", "compiler")
    large |= {f"nncompile.{room}" for room in (*rooms, "serving")}
    code = f"import nncompile, dsl, sys; print({large} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_what_is_imported_on_demand_is_there() -> None:
    """All public names, the modules of their rooms, and no others."""
    assert {*nncompile.__all__} <= {*dir(nncompile)}
    for name in nncompile.__all__:
        assert getattr(nncompile, name).__module__.startswith("nncompile") or name.islower()
    assert nncompile.train.Trainer is nncompile.Trainer
    with pytest.raises(AttributeError, match="module 'nncompile' has no attribute 'trainer'"):
        _ = nncompile.trainer  # type: ignore[attr-defined]  # the mistake that is tested


def test_the_checks_see_faults() -> None:
    source = ast.parse("def f():\n    import torch\n")
    assert list(imported("nncompile.ir.graph", ast.walk(source))) == [("torch", 2)]
    hiding = """
from nncompile.ir.dispatch import TABLE
dispatch.TABLE["sum"](x)
importlib.import_module("nncompile.ops"); import_module(name); __import__("dsl")
importlib.import_module("matplotlib.figure"); ops.table
"""
    assert [line for _, line in hidden_imports(ast.walk(ast.parse(hiding)))] == [2, 4, 4, 4, 3]
    assert not goes_down("nncompile.ir.graph", "nncompile.ops.core.axes")
    assert not goes_down("nncompile.ops.shape.slicing", "nncompile.ops.reduction.sums")
    assert not goes_down("nncompile.optim.adam", "nncompile.passes.gemm")
    assert not goes_down("nncompile.verify.check", "dsl.losses")
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    """Four hundred lines, and no more."""
    folders = ("nncompile", "dsl", "tests", "examples", "benchmarks")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    lines = {file: len(file.read_text("utf-8").splitlines()) for file in files}
    assert len(lines) > 500
    assert not {str(file.relative_to(ROOT)): n for file, n in lines.items() if n > 400}
