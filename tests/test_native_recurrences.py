"""Loops over time as calls of native kernels: which loops are recognized, and that a call computes
what its function says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from dsl import GRU, LSTM, RNN, Dense, Value, f32, i64, model, mse, scan, sgd, tanh, training
from nncompile.backends.onnx import check, to_model
from nncompile.backends.onnx.native import cells
from nncompile.compiler.compile import compile_step
from nncompile.elementwise import clip, gate
from nncompile.ops import full, split, swapaxes
from tests import native_checks
from tests.native_checks import needs_library, run
from tests.test_native_products import threaded

TIME, BATCH, FEATURES, HIDDEN = 5, 17, 4, 19  # neither whole vectors nor whole tiles
CASES: dict[str, Mapping[str, Any]] = {
    "last": {},
    "sequences": {"return_sequences": True},
    "reverse": {"reverse": True, "return_sequences": True},
    "both": {"bidirectional": True, "return_sequences": True},
    "stacked": {"num_layers": 2, "bias": False},
    "lengths": {"return_sequences": True, "lengths": True},
    "lengths from the end": {"bidirectional": True, "lengths": True},
}


def step_of(layer: Any, lengths: bool = False) -> Any:
    @model
    def net(
        x: Value = f32["batch", "time", FEATURES],
        target: Value = f32["batch"],
        count: Value = i64["batch"],
    ) -> dict[str, Value]:
        y = layer(x, lengths=count) if lengths else layer(x)
        if y.rank == 3:
            y = y.sum(1)
        return {"loss": mse((y >> Dense(1, name="head"))[:, 0], target * (count + 1) / (count + 1))}

    recipe = training(net, minimize="loss", optimizer=sgd(0.5), batch_size=BATCH)
    return compile_step(recipe)


def feeds_of(compiled: Any, time: int = TIME, batch: int = BATCH) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    data = {
        "x": rng.standard_normal((batch, time, FEATURES), np.float32),
        "target": rng.standard_normal(batch, np.float32),
        "count": np.minimum(np.arange(batch), time),
    }
    return {**compiled.source.initial(), **data}


def called(proto: onnx.ModelProto) -> list[str]:
    """The recurrent kernels that a model calls, without the numbers of their functions."""
    names = [n.op_type.partition("_")[0] for n in proto.graph.node if n.domain]
    return sorted(name for name in names if name != "Elementwise")


def near(found: Mapping[str, Any], expected: Mapping[str, Any], rtol: float = 2e-5) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        scale = float(np.abs(x).max()) if np.size(x) else 0.0
        np.testing.assert_allclose(found[name], x, rtol, rtol * scale, err_msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layer", [LSTM, GRU])
def test_a_loop_and_its_gradient_are_calls(layer: Any, case: str) -> None:
    options = dict(CASES[case])
    lengths = options.pop("lengths", False)
    compiled = step_of(layer(HIDDEN, name="cell", **options), lengths)
    plain, native = (to_model(compiled.step, kernels=kernels) for kernels in (False, True))
    check(native)
    name = layer.__name__.capitalize()
    loops = 2 if "num_layers" in options or "bidirectional" in options else 1
    assert called(native) == [name] * loops + [f"{name}Gradient"] * loops
    feeds = feeds_of(compiled)
    near(run(native, feeds), run(plain, feeds))


@needs_library
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layer", [LSTM, GRU])
def test_the_kernels_compute_what_their_functions_say(layer: Any, case: str) -> None:
    options = dict(CASES[case])
    lengths = options.pop("lengths", False)
    compiled = step_of(layer(HIDDEN, name="cell", **options), lengths)
    native = to_model(compiled.step, kernels=True)
    for time in (TIME, 1, 0) if case == "sequences" else (TIME,):
        feeds = feeds_of(compiled, time)
        near(run(native, feeds, with_library=True), run(native, feeds))
    poisoned = feeds_of(compiled)
    poisoned["x"][1, 0] = np.nan
    expected, found = run(native, poisoned), run(native, poisoned, with_library=True)
    for output, x in expected.items():
        np.testing.assert_array_equal(np.isnan(found[output]), np.isnan(x), err_msg=output)


@needs_library
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", cells.KINDS, ids=lambda kind: kind.name)
def test_all_that_a_kernel_gives_with_steps_that_are_not_there(
    kind: cells.Kind, reverse: bool
) -> None:
    rng = np.random.default_rng(0)
    wide = kind.gates * HIDDEN
    shapes = {"rows": (TIME, BATCH, wide), "bias": (wide,), "weight": (HIDDEN, wide)}
    shapes |= {f"{name}0": (BATCH, HIDDEN) for name in kind.states}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["present"] = rng.random((TIME, BATCH, 1)) < 0.6
    double = {n: x.astype(float) if x.dtype == np.float32 else x for n, x in arrays.items()}
    expected = kind.sequence(double, reverse)
    attributes = {"takes": " ".join(arrays), "gives": " ".join(expected), "reverse": int(reverse)}
    given = [*arrays.values()]
    model = native_checks.called(kind.name, given, attributes, results=len(expected))
    found = run(model, native_checks.feeds(given), with_library=True)
    for y, (name, x) in zip(found.values(), expected.items(), strict=True):
        np.testing.assert_allclose(y, x, 2e-5, 2e-5, err_msg=name)


@needs_library
@pytest.mark.parametrize("layer", [LSTM, GRU])
def test_any_number_of_threads_gives_the_same(layer: Any) -> None:
    compiled = step_of(layer(64, name="cell", return_sequences=True), lengths=True)
    native = to_model(compiled.step, kernels=True)
    feeds = feeds_of(compiled, batch=61)
    one, three = (threaded(native, feeds, count) for count in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def written_out(bound: float | None, order: str = "ifgo") -> Any:
    """A layer that is an LSTM in the user's own words, maybe with a bound for its cells."""

    def layer(x: Value) -> Any:
        rows = swapaxes(x >> Dense(4 * HIDDEN, name="rows"), 0, 1)

        def body(h: Value, c: Value, row: Value) -> tuple[Value, ...]:
            parts = split(row + (h >> Dense(4 * HIDDEN, bias=False, name="state")), 4, -1)
            i, f, g, o = (parts[order.index(name)] for name in "ifgo")
            c = gate(f) * c + gate(i) * tanh(g)
            c = c if bound is None else clip(c, -bound, bound)
            h = gate(o) * tanh(c)
            return h, c, h

        start = full((x.shape[0], HIDDEN), 0, x.dtype)
        return scan(body, (start, start), rows)[-1][-1]

    return layer


def test_a_loop_is_known_by_what_it_computes() -> None:
    """An LSTM in other words is one; what differs for large numbers only, or has its gates in
    another order, is not."""
    assert called(to_model(step_of(written_out(None)).step, kernels=True)) == [
        "Lstm",
        "LstmGradient",
    ]
    for layer in (written_out(1e6), written_out(None, "fiog"), RNN(HIDDEN)):
        assert not called(to_model(step_of(layer).step, kernels=True))
