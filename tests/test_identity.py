"""Equal nodes are one object, different ones never merge, and each user sees their own lines."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import FormulaError, ShapeError
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.elementwise import exp
from nncompile.ir.barriers import barrier
from nncompile.ir.basic import const
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.transform import replace
from nncompile.ir.types import Type, f32, i64

HERE = Path(__file__).name
ROOT = Path(__file__).parent.parent


class Marked(Op):
    """An op with one field of any type."""

    mark: Any

    def infer(self, x: Type) -> Type:
        return x


@pytest.fixture
def x() -> Value:
    return apply(Input("x", f32["n", 3]))


def test_equal_nodes_are_one_object(x: Value) -> None:
    assert exp(x) is exp(x)
    assert apply(Input("x", f32["n", 3])) is x
    assert x + 1 is 1 + x
    assert exp(x) is not exp(x + 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (1, 1.0),
        (True, 1.0),
        (0, False),
        (0.0, -0.0),
        ((1, 2), (1, True)),
        ((0.0, (1,)), (0.0, (1.0,))),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([0.0]), np.array([-0.0])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        ("1", 1),
    ],
)
def test_fields_of_other_type_or_sign_differ(x: Value, a: Any, b: Any) -> None:
    assert Marked(a)(x) is not Marked(b)(x)
    assert Marked(a) != Marked(b)
    assert Marked(a)(x) is Marked(copy.copy(a))(x)
    assert Marked(b)(x) is Marked(copy.copy(b))(x)


@pytest.mark.parametrize("nan", [math.nan, (1, math.nan), np.array([math.nan, 1.0])])
def test_nan_interns(x: Value, nan: Any) -> None:
    assert Marked(nan)(x) is Marked(copy.deepcopy(nan))(x)


def test_constants_keep_type_and_sign() -> None:
    assert const(1, f32) is not const(1, i64)
    assert const(0.0, f32) is not const(-0.0, f32)
    assert const(math.nan, f32) is const(float("nan"), f32)
    assert np.signbit(evaluate(const(-0.0, f32), {}))


def test_constant_is_not_the_callers_array() -> None:
    array = np.ones(3, np.float32)
    value = const(array)
    array[:] = 7
    np.testing.assert_array_equal(evaluate(value, {}), np.ones(3, np.float32))


def test_pickle_and_copies_give_the_interned_object(x: Value) -> None:
    y = exp(x) * 2 + const(np.arange(3.0, dtype=np.float32))
    assert pickle.loads(pickle.dumps(y)) is y
    assert copy.deepcopy(y) is y
    assert copy.copy(y) is y
    assert copy.deepcopy({"y": [y]})["y"][0] is y


def test_pickle_of_another_process_gives_the_interned_object(x: Value) -> None:
    """Hashes differ between processes; they must not travel with an op."""
    code = """
        import pickle, sys
        from nncompile.elementwise import exp
        from nncompile.ir.graph import Input
        from nncompile.ir.op import apply
        from nncompile.ir.types import f32
        y = exp(apply(Input("x", f32["n", 3]))).sum(axis=1)
        hash(y.op), hash(y.args[0].op)
        sys.stdout.buffer.write(pickle.dumps(y))
    """
    for seed in ("1", "2"):
        command = [sys.executable, "-c", textwrap.dedent(code)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, check=True, env=environment, cwd=ROOT)
        assert pickle.loads(done.stdout) is exp(x).sum(axis=1)


def test_racing_threads_make_one_object() -> None:
    """Many threads build the same new nodes at once."""
    count, results = 8, []
    barrier_ = threading.Barrier(count)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def build() -> None:
        barrier_.wait()
        made = []
        for i in range(200):
            leaf = apply(Input(f"race {i}", f32["n", f"2*n + {i}"]))
            made.append(exp(leaf * (i + 2)))
        results.append(made)

    threads = [threading.Thread(target=build) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(results) == count
    for made in results[1:]:
        assert all(a is b for a, b in zip(made, results[0], strict=True))


def test_barrier_keeps_equal_work_apart(x: Value) -> None:
    assert barrier(x) is not x
    assert exp(barrier(x)) is not exp(x)


# Lines of the user's.


def written(tmp_path: Path, name: str, text: str) -> dict[str, Any]:
    """The names that a file of the user's defines."""
    path = tmp_path / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    scope: dict[str, Any] = {"__name__": path.stem}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    return scope


MODEL = """
from nncompile.elementwise import exp
from nncompile.ir.graph import Input
from nncompile.ir.op import apply
from nncompile.ir.types import f32
x = apply(Input("shared", f32["n", 3]))
{blank}y = exp(x)
"""


def test_equal_nodes_of_two_files_keep_their_own_lines(tmp_path: Path) -> None:
    first, second = LocationTable(), LocationTable()
    with recording_locations(first):
        a = written(tmp_path, "first.py", MODEL.format(blank=""))["y"]
    with recording_locations(second):
        b = written(tmp_path, "second.py", MODEL.format(blank="\n\n"))["y"]
    assert a is b
    assert [location.place for location in first.all_locations(a)] == ["first.py:7"]
    assert [location.place for location in second.all_locations(b)] == ["second.py:9"]


def test_one_trace_has_all_sites_of_a_node(tmp_path: Path) -> None:
    with recording_locations(LocationTable()) as locations:
        y = written(tmp_path, "first.py", MODEL.format(blank=""))["y"]
        written(tmp_path, "second.py", MODEL.format(blank=""))
    assert [location.place for location in locations.all_locations(y)] == [
        "first.py:7",
        "second.py:7",
    ]
    assert str(locations.location(y)) == "first.py:7"


def test_an_error_names_the_line_of_its_own_file(tmp_path: Path) -> None:
    """The nodes exist already, from another file; the mistake is the second file's."""
    with recording_locations(LocationTable()):
        keep = written(tmp_path, "first.py", MODEL.format(blank=""))
    with recording_locations(LocationTable()), pytest.raises(ShapeError) as caught:
        written(tmp_path, "second.py", MODEL.format(blank="\n") + "z = y + y.reshape(-1)\n")
    message = str(caught.value)
    assert "second.py:9" in message
    assert "first.py" not in message
    assert keep["y"].shape == (keep["x"].shape[0], 3)


def test_gradients_and_replacements_keep_the_users_line(x: Value) -> None:
    with recording_locations(LocationTable()) as locations:
        y = exp(x * x).sum()
        line = locations.location(y)
        (gradient,) = grad(y, [x])
        other = replace([gradient], {x: apply(Input("other", x.type))})[0]
    assert line is not None and line.place.startswith(HERE)
    for value in (gradient, other):
        location = locations.location(value)
        assert location is not None and location.place == line.place


def test_sites_of_a_node_that_is_gone_are_forgotten() -> None:
    with recording_locations(LocationTable()) as locations:
        for i in range(50):
            leaf = apply(Input(f"gone {i}", f32["n"]))
            assert [
                location.place.partition(":")[0] for location in locations.all_locations(leaf)
            ] == [HERE]
            assert len(locations.all_locations(leaf)) == 1


# Cells of a notebook.


@pytest.fixture
def cell() -> Iterator[Any]:
    """Runs text as a cell of a notebook: every time in the module `__notebook__`."""
    known = set(Op.registry)

    def run(text: str, module: str = "__notebook__") -> dict[str, Any]:
        scope: dict[str, Any] = {"__name__": module}
        exec(textwrap.dedent(text), scope)
        return scope

    yield run
    for key in set(Op.registry) - known:
        del Op.registry[key]


OP = """
from nncompile.ir.op import Op
class MatMul(Op):
    version = {version}
    def infer(self, x):
        return x
"""


def test_a_cell_run_again_replaces_its_op(cell: Any, x: Value) -> None:
    before = len(Op.registry)
    old = cell(OP.format(version=1))["MatMul"]
    new = cell(OP.format(version=2))["MatMul"]
    assert len(Op.registry) == before + 1
    assert Op.registry["__notebook__", "MatMul"] is new
    assert old()(x) is not new()(x)
    assert new()(x).op.version == 2


def test_a_foreign_class_does_not_take_the_place_of_ours(cell: Any) -> None:
    a, b = apply(Input("a", f32["n", 3])), apply(Input("b", f32[3, 2]))
    op_type = type((a @ b).op)
    cell(OP.format(version=1))
    assert type((a @ b).op) is op_type
    assert Op.registry[op_type.__module__, op_type.__qualname__] is op_type


# Operators.


def test_equality_is_elementwise(x: Value) -> None:
    y = apply(Input("y", f32["n", 3]))
    assert (x == y).type == (x != y).type
    assert (x == y).dtype.is_bool
    data = {"x": np.array([[1, 2, 3]], np.float32), "y": np.array([[1, 0, 3]], np.float32)}
    np.testing.assert_array_equal(evaluate(x == y, data), [[True, False, True]])
    np.testing.assert_array_equal(evaluate(x == 2, data), [[False, True, False]])
    assert hash(x) != hash(y)
    assert {x: 1, y: 2}[x] == 1


@pytest.mark.parametrize("question", [bool, lambda x: not x, lambda x: 1 if x > 0 else 2])
def test_truth_value_teaches_where(x: Value, question: Any) -> None:
    with pytest.raises(FormulaError, match="where") as caught:
        question(x)
    assert caught.value.location is not None and caught.value.location.file == __file__


def test_in_is_refused(x: Value) -> None:
    with pytest.raises(FormulaError, match="elementwise"):
        assert 1 in x


def test_values_are_immutable(x: Value) -> None:
    with pytest.raises(AttributeError, match="immutable"):
        x.op = Input("y", f32[()])


def test_numpy_defers_to_values(x: Value) -> None:
    """An array on the left gives a value, never an array of objects."""
    array = np.arange(3, dtype=np.float32)
    for y in (array + x, array * x, array - x, array < x, np.float32(2) * x):
        assert isinstance(y, Value)
    data = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(evaluate(array - x, {"x": data}), array - data)
    np.testing.assert_allclose(evaluate(np.float32(2) / x, {"x": data}), 2 / data)


def test_dimensions_mix_with_values(x: Value) -> None:
    n = x.shape[0]
    data = {"x": np.ones((4, 3), np.float32)}
    for y in (x * n, n * x):
        assert isinstance(y, Value)
        np.testing.assert_allclose(evaluate(y, data), np.full((4, 3), 4.0))
    np.testing.assert_allclose(evaluate(x.sum() / n, data), 3.0)


def test_large_constants_are_one_where_they_are_equal() -> None:
    """They are told apart by what no other array has, and their keys are small."""
    x = np.random.default_rng(0).standard_normal((200, 300)).astype(np.float32)
    y = x.copy()
    y[100, 150] += 1
    assert const(x) is const(x.copy())
    assert const(x) is not const(y) and const(x).digest != const(y).digest
    assert const(x) is not const(x.reshape(300, 200))
    assert len(repr(const(x).op.key)) < 1000
