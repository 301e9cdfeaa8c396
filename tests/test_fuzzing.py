"""A slice of the fuzzer, what it finds where faults are planted, and what it is made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nncompile.passes
from nncompile.elementwise import equal, sigmoid, where
from nncompile.elementwise.map import Map
from nncompile.ir.basic import const
from nncompile.ir.broadcasting import Expand
from nncompile.ir.graph import Graph, Input, Item, toposort
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.types import f32
from nncompile.ops import sum as total
from nncompile.ops.indexing.scattering import ScatterMax
from nncompile.ops.reduction.softmax import Softmax
from nncompile.ops.shape.reshape import Transpose
from nncompile.ops.shape.slicing import Pad
from nncompile.passes import PASSES
from nncompile.passes.rewriter import rewrite, rule
from tests.fuzzing.__main__ import main
from tests.fuzzing.arithmetic import SINGLE, Computation
from tests.fuzzing.checks import check_gradients, derived
from tests.fuzzing.chunks import SLICE, slice_of
from tests.fuzzing.comparison import Mismatch, Reference
from tests.fuzzing.printing import printed
from tests.fuzzing.program import Builder, Program
from tests.fuzzing.samples import samples_of
from tests.fuzzing.search import Failure, op_types, search
from tests.fuzzing.steps import apply_op_type
from tests.op_types import cases_of, draw, registered_ops


@pytest.mark.parametrize("op_type", op_types(), ids=lambda op_type: op_type.__name__)
def test_a_slice_of_programs_of_all_ops(op_type: type[Op]) -> None:
    results = slice_of(op_type, shrinking=200)
    assert not results.failures, str(results.failures[0])
    assert op_type.__name__ in results.op_types


# Faults, each planted in an op or a rule that is right.


def gradient_without_sum(self: Any, backward: Any, g: Value, y: Value) -> list[Value]:
    return [g * y]


def exchanged(self: Pad, o: Any, x: str) -> str:
    return right_pad(Pad(self.after, self.before, self.value), o, x)  # type: ignore[no-any-return]


right_pad = Pad.onnx


def inverse_permutation(self: Transpose, t: Any, x: str) -> str:
    inverse = [self.axes.index(axis) for axis in range(len(self.axes))]
    return t.method(x, "permute", inverse)  # type: ignore[no-any-return]


@rule(f32[2, 3], f32[2, 3], (0,))
def product_of_sums(a: Value, b: Value, axes: Any) -> Any:
    yield total(a * b, axes)
    if a.type != b.type:
        return "one is broadcast"
    yield total(a, axes) * total(b, axes)


def plant(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match fault:
        case "a pullback":
            monkeypatch.setattr(Softmax, "pullback_by", gradient_without_sum)
        case "an ONNX lowering":
            monkeypatch.setattr(Pad, "onnx", exchanged)
        case "a TorchScript lowering":
            monkeypatch.setattr(Transpose, "torch", inverse_permutation)
        case "a rule":
            right = PASSES["algebra"]
            wrong: Callable[[Graph], Graph] = lambda g: right(rewrite(g, [product_of_sums]))  # noqa: E731
            monkeypatch.setitem(nncompile.passes.PASSES, "algebra", wrong)


# Of which op the programs are that show it, how the failure is called, and what is in its text.
FAULTS = {
    "a pullback": (Softmax, "gradient", "softmax("),
    "an ONNX lowering": (Pad, "onnxruntime", ""),
    "a TorchScript lowering": (Transpose, "torch", ""),
    "a rule": (Expand, "passes", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "a TorchScript lowering":
        pytest.importorskip("torch")
    plant(fault, monkeypatch)
    op_type, kind, spelling = FAULTS[fault]
    failure = first_failure(op_type)
    assert kind in failure.kind.lower()
    nodes = toposort(failure.program.outputs)
    operations = [v for v in nodes if not isinstance(v.op, Input | Item)]
    text = printed(failure.program)
    assert len(operations) <= 5, text
    assert spelling in text, text
    assert_prints(failure.program)


def first_failure(op_type: type[Op]) -> Failure:
    for seed in range(10):
        results = search(SLICE, seed, op_type, shrinking=60)
        if results.failures:
            return results.failures[0]
    raise AssertionError("nothing was found")


# Its parts.


def random_program(seed: int, focus: int) -> Program:
    rng = random.Random(seed)
    b = Builder(rng.randint, seed)
    for _ in range(rng.randint(1, 3)):
        apply_op_type(
            b, op_types()[(focus + rng.randint(0, 1) * rng.randint(1, 50)) % len(op_types())]
        )
    return b.finished()


def assert_prints(program: Program) -> None:
    """The text of a program, run, makes the very nodes, and has its data."""
    text = printed(program)
    names: dict[str, Any] = {}
    exec(text, names)
    outputs = names["program"].graph.outputs
    for i, y in enumerate(program.outputs):
        assert outputs[f"y{i}"] is y, text
    for name, array in program.feeds[-1].items():
        if name in names["feeds"]:
            np.testing.assert_array_equal(names["feeds"][name], array)


@pytest.mark.parametrize("focus", range(len(op_types())), ids=lambda i: op_types()[i].__name__)
def test_programs_are_printed_as_they_are(focus: int) -> None:
    assert_prints(random_program(focus, focus))


def test_the_source_of_every_op_runs_as_python() -> None:
    pytest.importorskip("torch")
    from tests.fuzzing.torch_checks import computed

    for op_type in registered_ops():
        case = next(iter(cases_of(op_type)))
        graph = case.graph(case.results)
        assert computed(graph, case.feeds(case.bindings[0])).keys() == graph.outputs.keys(), op_type


def test_noise_finds_what_cancels() -> None:
    x, y = (apply(Input(name, f32[2])) for name in "xy")
    feeds = {"x": np.array([1e6, 1.0], np.float32), "y": np.array([1e6 - 1, 2.0], np.float32)}
    compute = Computation(Graph("cancels", {"z": x - y}), {})
    exact = compute(feeds)
    spread = compute.spread(feeds, exact, SINGLE, 8)["z"]
    assert 0.01 < spread[0] < 1.0
    assert spread[1] < 1e-6


def test_noise_finds_what_cancels_behind_a_tie() -> None:
    """A gradient of what is chosen, although noise says it is not: a sum of 10⁶ and −10⁶."""
    x, y = (apply(Input(name, f32[2])) for name in "xy")
    chosen = apply(ScatterMax(0), x, const([0]), const([-9.0]))
    found = where(equal(x, chosen), total((x + 0.1) * y), 0.0)
    feeds = {"x": np.full(2, 0.3, np.float32), "y": np.array([1e6, -1e6], np.float32)}
    compute = Computation(Graph("tie", {"z": found}), {})
    assert compute.spread(feeds, compute(feeds), SINGLE, 8)["z"].min() > 1e-3


def test_noise_reaches_into_formulas() -> None:
    x = apply(Input("x", f32[()]))
    compute = Computation(Graph("inner", {"z": (1 + x) - sigmoid(x)}), {})
    feeds = {"x": np.array(12.0, np.float32)}
    assert compute.spread(feeds, compute(feeds), SINGLE, 8)["z"] > 1e-8


def test_formulas_an_operation_at_a_time_are_the_same() -> None:
    rng = np.random.default_rng(0)
    for sample in samples_of(Map):
        leaves = [apply(Input(f"x{i}", t)) for i, t in enumerate(sample.types)]
        sizes = {d: 4 for t in sample.types for d in t.shape if not isinstance(d, int)}
        feeds = {f"x{i}": draw(rng, sample, t, sizes) for i, t in enumerate(sample.types)}
        compute = Computation(Graph("map", {"y": apply(sample.op, *leaves)}), sizes)
        none = dict.fromkeys(SINGLE, 0.0)
        exact, again = compute(feeds)["y"], compute(feeds, none, rng)["y"]
        # A conversion within a formula is to the type that it says.
        np.testing.assert_allclose(again, exact, 1e-6, 1e-6, err_msg=str(sample.op))


def test_a_kink_is_not_judged() -> None:
    x = apply(Input("x", f32[2]))
    program = Program((abs(x),), (x,), ({},), ({"x": np.array([0.0, 1.0], np.float32)},))
    check_gradients(derived(program, 1))


def test_a_difference_beyond_rounding_is_judged() -> None:
    x = apply(Input("x", f32[2]))
    reference = Reference(
        Graph("double", {"y": x * 2.0}), [({}, {"x": np.array([1.0, 3.0], np.float32)})]
    )
    reference.compare("test", 0, {"y": np.array([2.0, 6.0 + 1e-6], np.float32)}, SINGLE)
    with pytest.raises(Mismatch, match=r"test: y at no sizes is .* apart 0\.0001"):
        reference.compare("test", 0, {"y": np.array([2.0, 6.0001], np.float32)}, SINGLE)


def test_the_command_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    words = ["--count", "25", "--seed", "3", "--workers", "1", "--log", str(log)]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "25 programs" in first
    assert "0 failures" in first
    assert len(log.read_text().splitlines()) == 1
    assert main(words) == 0
    assert capsys.readouterr().out == first


def test_the_simplest_choices_make_a_program() -> None:
    b = Builder(lambda low, high: low)
    b.order = 2
    for op_type in op_types():
        apply_op_type(b, op_type)
    assert b.finished().outputs
