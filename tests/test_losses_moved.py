"""Losses of probabilities that were reshaped, sliced, joined or chosen: what is known of the
logits is not lost. Through onnxruntime in single precision, far out in both tails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile.autodiff.grad import grad
from nncompile.elementwise import exp, log, sigmoid, where
from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.formula import formula
from nncompile.elementwise.map import body_of, is_plain
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f32, f64, i64
from nncompile.ops import (
    broadcast_to,
    concatenate,
    const,
    one_hot,
    reshape,
    softmax,
    split,
    squeeze,
    stack,
    take,
    take_along_axis,
)
from nncompile.ops.shape.moves import moved, through_moves
from nncompile.train import Trainer
from tests.backends import optimized

LOGITS = np.float32([-200, -100, -20, -18, -15, -1, 0, 1, 15, 18, 20, 100, 200] * 2)
TARGETS = np.repeat(np.float32([0, 1]), 13)
COUNT = len(LOGITS)

MOVED: dict[str, Callable[[Value], Value]] = {
    "a column": lambda z: sigmoid(z)[:, 0],
    "squeezed": lambda z: squeeze(sigmoid(z), 1),
    "reshaped": lambda z: reshape(sigmoid(z), (-1,)),
    "transposed": lambda z: sigmoid(z).T[0],
    "flipped twice": lambda z: sigmoid(z)[::-1][::-1, 0],
    "spread": lambda z: broadcast_to(sigmoid(z), (z.shape[0], 3))[:, 2],
    "joined": lambda z: concatenate([sigmoid(z), sigmoid(3 * z)], 1)[:, 0],
    "stacked": lambda z: stack([sigmoid(3 * z), sigmoid(z)], 0)[1, :, 0],
    "cut apart": lambda z: split(concatenate([sigmoid(2 * z), sigmoid(z)], 1), 2, 1)[1][:, 0],
    "chosen": lambda z: where(z > 0, sigmoid(z), 1 - sigmoid(-z))[:, 0],
    "taken": lambda z: take(sigmoid(z), const([0, 0]), 1)[:, 1],
    "taken along": lambda z: take_along_axis(sigmoid(z), const([[0]]), 1)[:, 0],
    "a complement": lambda z: (1 - sigmoid(-z))[:, 0],
    "a complement of a column": lambda z: 1 - sigmoid(-z)[:, 0],
    "spelled out": lambda z: (1 / (1 + exp(-z)))[:, 0],
}


def spelled(p: Value, y: Value) -> Value:
    return -(y * log(p) + (1 - y) * log(1 - p))  # type: ignore[no-any-return]


LOSSES: dict[str, Callable[[Value, Value], Value]] = {
    "the loss": lambda p, y: dsl.binary_cross_entropy(p, y, reduction="none"),
    "spelled out": spelled,
    "a formula": formula(spelled),
}


def run(losses: Value, x: Value, leaves: tuple[Value, ...], **data: Array) -> dict[str, Array]:
    graph = Graph("losses", {"value": losses, "gradient": grad(losses.sum(), x)}, leaves)
    return optimized(graph, **data)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("move", MOVED)
def test_binary_cross_entropy_of_moved_probabilities(move: str, loss: str) -> None:
    z, y = Input("z", f32["n", 1])(), Input("y", f32["n"])()
    losses = LOSSES[loss](MOVED[move](z), y)
    for count in (COUNT, 7):
        found = run(losses, z, (z, y), z=LOGITS[:count, None], y=TARGETS[:count])
        double, target = LOGITS[:count].astype(np.float64), TARGETS[:count]
        expected = np.logaddexp(0, np.where(target == 1, -double, double))
        np.testing.assert_allclose(found["value"], expected, rtol=1e-5, atol=2e-7)
        gradient = 1 / (1 + np.exp(-double)) - target
        np.testing.assert_allclose(found["gradient"][:, 0], gradient, rtol=1e-5, atol=2e-7)


def test_the_usual_model_of_two_classes_trains_from_a_wrong_start() -> None:
    """A bias of −30 and true examples alone: the gradient is −1, not 0."""

    @dsl.model
    def net(x=f32["batch", 2], y=f32["batch"]):
        p = x >> dsl.Dense(1, sigmoid, name="head")
        return {"loss": dsl.binary_cross_entropy(p[:, 0], y)}

    trainer = Trainer(dsl.training(net, optimizer=dsl.sgd(1.0), batch_size=4))
    trainer.set_params({"head.bias": np.float32([-30])})
    data = {"x": np.zeros((4, 2), np.float32), "y": np.ones(4, np.float32)}
    assert trainer.evaluate(data)["loss"] == pytest.approx(30)
    trainer.fit(data, epochs=1)
    assert trainer.params["head.bias"] == pytest.approx([-29])


def test_what_is_no_sigmoid_is_left_alone() -> None:
    z, y = Input("z", f32["n", 2])(), Input("y", f32["n"])()
    for p in (z[:, 0], concatenate([sigmoid(z), z], 1)[:, 0], softmax(z)[:, 0]):
        losses = dsl.binary_cross_entropy(p, y, reduction="none")
        assert any(v is p for v in toposort([losses]))


def test_logarithms_of_some_that_are_stable_and_some_that_are_not() -> None:
    z, q = Input("z", f32["n", 1])(), Input("q", f32["n", 1])()
    losses = log(concatenate([sigmoid(z), q], 1))
    feeds = {"z": np.float32([[-50], [3]]), "q": np.float32([[0.25], [2]])}
    found = run(losses, z, (z, q), **feeds)
    expected = np.concatenate([-np.logaddexp(0, -feeds["z"]), np.log(feeds["q"])], 1)
    np.testing.assert_allclose(found["value"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["gradient"], [[1], [1 / (1 + np.exp(3))]], rtol=1e-5)


WIDE = np.float32([[200, 0, -1], [0, 200, 1], [-300, 0, 0], [1, 2, 3], [0, 0, 200]])
LABELS = np.array([1, 1, 0, 2, 0])
PICKED: dict[str, Callable[[Value, Value], Value]] = {
    "by a product": lambda z, y: -log((softmax(z) * one_hot(y, 3)).sum(-1)),
    "by a product, kept": lambda z, y: -log((one_hot(y, 3) * softmax(z)).sum(-1, True))[:, 0],
    "by truth": lambda z, y: -log((softmax(z) * one_hot(y, 3, bool)).sum(-1)),
    "by its place": lambda z, y: -log(take_along_axis(softmax(z), y.reshape((-1, 1)), 1)[:, 0]),
    "spelled out": lambda z, y: -log(
        (exp(z) / exp(z).sum(1, True) * one_hot(y, 3)).sum(-1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", PICKED)
def test_the_probability_of_a_class_far_out(name: str, dtype: Any) -> None:
    z, y = Input("z", dtype["n", 3])(), Input("y", i64["n"])()
    found = run(PICKED[name](z, y), z, (z, y), z=WIDE.astype(dtype.numpy), y=LABELS)
    logs = WIDE.astype(np.float64) - np.logaddexp.reduce(WIDE.astype(np.float64), 1, keepdims=True)
    np.testing.assert_allclose(found["value"], -logs[range(5), LABELS], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["gradient"], np.exp(logs) - np.eye(3)[LABELS], atol=1e-6)


def test_no_class_at_all_is_infinite_still() -> None:
    z, y = Input("z", f32["n", 3])(), Input("y", i64["n"])()
    found = run(PICKED["by a product"](z, y), z, (z, y), z=WIDE[3:4], y=np.array([7]))
    assert found["value"] == np.inf


def test_a_sum_of_other_products_is_left_alone() -> None:
    z, w = Input("z", f32["n", 3])(), Input("w", f32["n", 3])()
    found = run(log((softmax(z) * w).sum(1)), z, (z, w), z=WIDE[3:4], w=np.float32([[3, -1, 2]]))
    p = np.exp(WIDE[3]) / np.exp(WIDE[3]).sum()
    np.testing.assert_allclose(found["value"], np.log(p @ [3, -1, 2]), rtol=1e-5)


def test_moves_are_told_and_repeated() -> None:
    x, y = Input("x", f32["n", 2])(), Input("y", f32["n", 2])()
    chained = concatenate([x[:, 1:], y.T.reshape((-1, 1))[: x.shape[0]]], 1)
    doubled = through_moves(chained, lambda v: 2 * v)
    assert doubled is concatenate([(2 * x)[:, 1:], (2 * y).T.reshape((-1, 1))[: x.shape[0]]], 1)
    assert through_moves(chained, lambda v: v if v is x else None) is None
    assert moved(x + y) == () == moved(x)
    chosen = where(x > 1, x, y)
    assert is_plain(chosen)
    assert isinstance(body_of(chosen), h.where)
    assert set(moved(chosen)) == {x, y}
    assert through_moves(chosen, lambda v: 2 * v) is where(x > 1, 2 * x, 2 * y)
