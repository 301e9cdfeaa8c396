"""Examples of different weights in a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import Dense, accuracy, cross_entropy, f32, i64, mean, model, mse, sqrt
from dsl import sum as sum_of
from nncompile.diagnostics.errors import CompileError, FeedError, ModelError
from nncompile.optim import sgd
from nncompile.program.model import Model
from nncompile.program.recipe import training
from nncompile.train import Trainer

N = 24
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).astype(np.float32)
Y = np.array([0, 1, 1, 1] * 6)
W = RNG.uniform(0, 3, N).astype(np.float32)


@model(name="net")
def plain(x: Any = f32["batch", 3], y: Any = i64["batch"]) -> Any:
    logits = x >> Dense(2, name="dense")
    loss = cross_entropy(logits, y)
    return {"logits": logits, "loss": loss, "accuracy": accuracy(logits, y)}


@model(name="net")
def with_weights(
    x: Any = f32["batch", 3], y: Any = i64["batch"], sample_weight: Any = f32["batch"]
) -> Any:
    logits = x >> Dense(2, name="dense")
    loss = cross_entropy(logits, y, weight=sample_weight)
    return {"logits": logits, "loss": loss, "accuracy": accuracy(logits, y)}


def trainer(net: Model = plain) -> Trainer:
    return Trainer(training(net, optimizer=sgd(0.3), batch_size=8))


def assert_same(a: Trainer, b: Trainer) -> None:
    for path, x in a.params.items():
        np.testing.assert_allclose(x, b.params[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_weights_are_those_of_a_loss_that_declares_them() -> None:
    ours, declared, unweighted = trainer(), trainer(with_weights), trainer()
    mine = ours.fit(X, Y, epochs=3, sample_weight=W)
    theirs = declared.fit({"x": X, "y": Y, "sample_weight": W}, epochs=3)
    unweighted.fit(X, Y, epochs=3)
    assert_same(ours, declared)
    np.testing.assert_allclose(mine["loss"], theirs["loss"], rtol=1e-5)
    assert not np.allclose(ours.params["dense.weight"], unweighted.params["dense.weight"])
    assert ours.step == 9 and ours.epoch == 3
    ours.fit(X, Y, epochs=1)  # without weights, each is one
    declared.fit(X, Y, epochs=1)
    assert_same(ours, declared)
    assert ours.evaluate(X, Y) == pytest.approx(unweighted.evaluate(X, Y, params=ours.params))


def test_a_training_goes_on_where_weights_come_later() -> None:
    ours, declared = trainer(), trainer(with_weights)
    for each in (ours, declared):
        each.fit(X, Y, epochs=2)
        each.fit(X, Y, epochs=2, sample_weight=W)
    assert_same(ours, declared)


def test_classes_have_weights() -> None:
    by_class, by_example, balanced = trainer(), trainer(), trainer()
    by_class.fit(X, Y, epochs=2, class_weight={0: 2.0, 1: 2 / 3})
    by_example.fit(X, Y, epochs=2, sample_weight=np.where(Y == 0, 2.0, 2 / 3))
    balanced.fit(X, Y, epochs=2, class_weight="balanced")
    assert_same(by_class, by_example)
    assert_same(by_class, balanced)
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, N, 8)]
    of_batches, of_tuples = trainer(), trainer()
    of_batches.fit(batches, class_weight={0: 2.0, 1: 2 / 3})
    weights = np.where(Y == 0, 2.0, 2 / 3).astype(np.float32)
    of_tuples.fit(X, Y, sample_weight=weights, shuffle=False)
    assert_same(of_batches, of_tuples)
    both, product = trainer(), trainer()
    both.fit(X, Y, class_weight={0: 2.0, 1: 2 / 3}, sample_weight=W)
    product.fit(X, Y, sample_weight=W * weights)
    assert_same(both, product)


@model(name="net")
def loss_alone(x: Any = f32["batch", 3], y: Any = i64["batch"]) -> Any:
    return {"loss": cross_entropy(x >> Dense(2, name="dense"), y)}


@model(name="net", predict="logits")
def in_a_column(x: Any = f32["batch", 3], y: Any = i64["batch", 1]) -> Any:
    logits = x >> Dense(2, name="dense")
    return {"logits": logits, "loss": cross_entropy(logits, y[:, 0])}


@pytest.mark.parametrize("net", [loss_alone, in_a_column])
def test_classes_are_found_where_only_the_loss_is_given_and_in_a_column(net: Model) -> None:
    ours, plainly = trainer(net), trainer()
    ours.fit({"x": X, "y": Y.reshape(-1, *net.inputs["y"].shape[1:])}, class_weight="balanced")
    plainly.fit({"x": X, "y": Y}, class_weight="balanced")
    assert_same(ours, plainly)


def loss_of(kind: str) -> Model:
    @model(name="net")
    def net(x: Any = f32["batch", 3], t: Any = f32["batch", 2], y: Any = i64["batch"]) -> Any:
        out = x >> Dense(2, name="dense")
        penalty = 0.1 * sum_of(out * 0.0 + 1.0) if kind == "constants" else 0.0
        losses = {
            "mean": lambda: mse(out, t),
            "sum": lambda: mse(out, t, reduction="sum") / 10,
            "root": lambda: sqrt(mse(out, t)),
            "two terms": lambda: mse(out, t) + cross_entropy(out, y),
            "masked": lambda: cross_entropy(out, y, ignore_index=1),
            "by hand": lambda: mean(mean((out - t) ** 2, 1)),
            "pairs": lambda: mean((out @ out.T) ** 2) if kind == "pairs" else None,
            "time": lambda: mean((out.T - t.T) ** 2),
        }
        return {"out": out, "loss": losses[kind]() + penalty}

    return net


@pytest.mark.parametrize("kind", ["mean", "sum", "root", "two terms", "masked", "by hand"])
def test_examples_of_weight_zero_are_as_if_they_were_not_there(kind: str) -> None:
    kept = np.arange(N) < 8
    t = RNG.normal(size=(N, 2)).astype(np.float32)
    net = loss_of(kind)
    ours, fewer = (Trainer(training(net, optimizer=sgd(0.1), batch_size=N)) for _ in range(2))
    data = {"x": X, "t": t, "y": Y}
    ours.fit(data, epochs=3, sample_weight=kept)
    fewer.fit({n: x[:8] for n, x in data.items()}, epochs=3)
    assert_same(ours, fewer)


def test_a_loss_that_cannot_be_weighed_says_what_to_write() -> None:
    t = np.zeros((N, 2), np.float32)
    ours = Trainer(training(loss_of("time"), optimizer=sgd(0.1)))
    words = r"cannot weigh(.|\n)*sample_weight=f32\[(.|\n)*weight=sample_weight"
    with pytest.raises(ModelError, match=words):
        ours.fit({"x": X, "t": t, "y": Y}, sample_weight=W)
    ours.fit({"x": X, "t": t, "y": Y})  # and is as it was


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "short": ({"sample_weight": W[:-1]}, "'sample_weight' has size 23"),
    "negative": ({"sample_weight": -W}, "must not be negative"),
    "missing class": ({"class_weight": {0: 1.0}}, "no weight for class 1"),
    "no number": ({"class_weight": {0: "1", 1: 2}}, "weight of class 0 must be a number"),
    "no class": ({"class_weight": {0.5: 1}}, "a class is a whole number, got 0.5"),
    "a word": ({"class_weight": "equal"}, "a weight for each class, got 'equal'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_weights_are_told(kind: str) -> None:
    options, words = WRONG[kind]
    with pytest.raises(CompileError, match=words):
        trainer().fit(X, Y, **options)


def test_balance_needs_all_labels() -> None:
    with pytest.raises(FeedError, match="needs the labels of all examples"):
        trainer().fit([(X, Y)], class_weight="balanced")
