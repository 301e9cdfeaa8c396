"""Cells of RNN, LSTM and GRU: one step, alone and in a loop of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LSTMCell,
    RNNCell,
    f32,
    f64,
    i64,
    model,
    relu,
    scan,
    swapaxes,
)
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.passes import optimize
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from tests.backends import session, valid_model
from tests.layer_checks import model_of
from tests.tolerances import assert_close

LAYERS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
CELLS = {"RNN": RNNCell, "LSTM": LSTMCell, "GRU": GRUCell}
each_kind = pytest.mark.parametrize("kind", LAYERS)


def looped(kind: str, **options: Any) -> Model:
    cell = CELLS[kind](5, name="r", **options)

    @model
    def net(x: Value = f64["batch", "time", 4], h: Value = f64["batch", 5]) -> dict[str, Value]:  # type: ignore[assignment]
        def body(*given: Value) -> tuple[Value, ...]:
            *state, row = given
            new = cell(row, tuple(state) if kind == "LSTM" else state[0])
            new = new if kind == "LSTM" else (new,)
            return (*new, new[0])

        start = (h, 2 * h) if kind == "LSTM" else (h,)
        *_, rows = scan(body, start, swapaxes(x, 0, 1))
        return {"y": swapaxes(rows, 0, 1)}

    return net


def layered(kind: str, **options: Any) -> Model:
    layer = LAYERS[kind](5, return_sequences=True, name="r", **options)

    @model
    def net(x: Value = f64["batch", "time", 4], h: Value = f64["batch", 5]) -> dict[str, Value]:  # type: ignore[assignment]
        return {"y": layer(x, (h, 2 * h) if kind == "LSTM" else h)}

    return net


def with_gradients(net: Model) -> Graph:
    y = net.outputs["y"]
    leaves = [*net.inputs.values(), *net.parameters.values()]
    gradients = grad((y * y * y).sum(), leaves)
    named = {f"d{v.op.name.removesuffix('_l0')}": s for v, s in zip(leaves, gradients, strict=True)}  # type: ignore[attr-defined]
    return Graph("g", {"y": y, **named}, tuple(leaves))


@each_kind
@pytest.mark.parametrize("bias", [True, False])
def test_a_loop_of_a_cell_is_the_layer(kind: str, bias: bool) -> None:
    """Values and gradients, in numpy and onnxruntime, of an empty sequence too."""
    loop, layer = (make(kind, bias=bias) for make in (looped, layered))
    weights = initial_values(loop, 3)
    names = {"r.weight_ih", "r.weight_hh", *(("r.bias_ih", "r.bias_hh") if bias else ())}
    assert weights.keys() == names
    graph, other = with_gradients(loop), with_gradients(layer)
    run = session(valid_model(optimize(graph)))
    random = np.random.default_rng(0)
    for time in (6, 1, 0):
        feeds = {"x": random.normal(size=(3, time, 4)), "h": random.normal(size=(3, 5))}
        expected = evaluate(other, feeds | {f"{p}_l0": x for p, x in weights.items()})
        found = run(feeds | weights, expected)
        reference = evaluate(graph, feeds | weights)
        assert found.keys() == expected.keys()
        for name, x in expected.items():
            assert_close(reference[name], x, "float64", f"numpy {name}")
            assert_close(found[name], x, "float64", f"onnxruntime {name}")


@each_kind
def test_a_cell_begins_with_zeros_and_takes_any_leading_axes(kind: str) -> None:
    cell = CELLS[kind](3, name="c")

    def first(x: Any, state: Any = None) -> Value:
        new = cell(x, state)
        return new[1] if kind == "LSTM" else new  # type: ignore[no-any-return]

    @model
    def net(x: Value = f64["n", 2, 4]) -> dict[str, Value]:  # type: ignore[assignment]
        zeros = np.zeros((3,))
        state = (zeros, zeros) if kind == "LSTM" else zeros
        return {"all": first(x), "one": first(x[0, 1]), "given": first(x[0, 1], state)}

    feeds = {"x": np.random.default_rng(0).normal(size=(2, 2, 4)), **initial_values(net, 0)}
    found = evaluate(net.inference(), feeds)
    assert found["all"].shape == (2, 2, 3)
    np.testing.assert_allclose(found["one"], found["all"][0, 1], 1e-12)
    np.testing.assert_array_equal(found["given"], found["one"])


def test_another_activation() -> None:
    @model
    def net(x: Value = f32["n", 4]) -> dict[str, Value]:  # type: ignore[assignment]
        return {"y": RNNCell(3, activation=relu)(x)}

    feeds = {"x": np.float32(np.random.default_rng(0).normal(size=(9, 4)))}
    y = evaluate(net.inference(), feeds | initial_values(net, 0))["y"]
    assert (y >= 0).all()
    assert y.max() > 0


def called(cell: Any, type_: Any, *args: Any) -> Model:
    return model_of(lambda x: cell(x, *args), x=type_)


def test_what_does_not_fit() -> None:
    x = f32["batch", 4]
    with pytest.raises(ShapeError, match=r"RNNCell needs a known number of features, x is"):
        called(RNNCell(3), f32["batch", "n"])
    with pytest.raises(DTypeError, match=r"GRUCell needs floating numbers, x is i64"):
        called(GRUCell(3), i64["batch", 4])
    with pytest.raises(
        ShapeError, match=r"state of GRUCell must be f32\[batch, 3\], got f32\[2, 3\]"
    ):
        called(GRUCell(3), x, np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError, match="the state of LSTMCell must have 2 parts, got 1"):
        called(LSTMCell(3), x, np.zeros((2, 3), np.float32))
    with pytest.raises(ModelError, match="hidden_size of LSTMCell must be at least 1"):
        LSTMCell(0)
    with pytest.raises(ModelError, match=r"called 'hidden_size' here"):
        LSTMCell(units=3)  # type: ignore[call-arg]
