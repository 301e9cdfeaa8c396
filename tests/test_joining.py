"""Predictions in batches are those of all examples at once, wherever the batch stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import Dense, Embedding, LayerNorm, f32, i64, model, softmax, training
from nncompile.errors import FeedError, ModelError
from nncompile.graph import Value
from nncompile.model import Model
from nncompile.ops import concatenate, flip, reshape, swapaxes, transpose
from nncompile.optim import sgd
from nncompile.train import Trainer
from nncompile.types import Array

COUNT = 7  # which no batch below divides
X = np.random.default_rng(3).normal(size=(COUNT, 5, 3)).astype(np.float32)


def trainer_of(function: Callable[[Value], Value]) -> Trainer:
    @model(predict="y")
    def net(x: Any = f32["batch", "time", 3]) -> dict[str, Any]:
        z = x >> Dense(4, name="dense")
        return {"y": function(z), "loss": (z * z).mean()}

    assert isinstance(net, Model)
    return Trainer(training(net, optimizer=sgd(0.1)))


def attended(z: Value) -> Value:
    flat = reshape(z, (z.shape[0] * z.shape[1], 4)) >> Dense(6) >> LayerNorm()
    return softmax(flat) @ np.ones((6, 2), np.float32)


JOINED: dict[str, Callable[[Value], Value]] = {
    "rows": lambda z: z.sum(1),
    "flattened": lambda z: reshape(z, -1),
    "places as rows": attended,
    "a row for each two numbers": lambda z: reshape(z, (2 * z.shape[0] * z.shape[1], 2)),
    "time first": lambda z: swapaxes(z, 0, 1),
    "features first": lambda z: transpose(z, (2, 0, 1)) * 2 + 1,
    "features first, flattened": lambda z: reshape(
        transpose(z, (2, 0, 1)), (4, z.shape[0] * z.shape[1])
    ),
    "together": lambda z: concatenate([swapaxes(z, 0, 1)] * 2, 2),
    "reshaped back": lambda z: swapaxes(
        reshape(reshape(z, (z.shape[0] * z.shape[1], 4)), z.shape), 0, 1
    ),
    "reversed time, added up": lambda z: flip(swapaxes(z, 0, 1), 0).cumsum(0),
}


@pytest.mark.parametrize("name", JOINED)
@pytest.mark.parametrize("batch", [1, 3])
def test_batches_are_joined(name: str, batch: int) -> None:
    trainer = trainer_of(JOINED[name])
    whole = trainer.predict(X, batch=COUNT)["y"]
    found = trainer.predict(X, batch=batch)["y"]
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-6)


MIXED: dict[str, tuple[Callable[[Value], Value], str]] = {
    "flattened behind the time": (lambda z: reshape(swapaxes(z, 0, 1), -1), "mixes the numbers"),
    "time as examples": (
        lambda z: reshape(z, (z.shape[1], z.shape[0], 4)),
        r"f32\[batch, time, 4\] as f32\[time, batch, 4\] mixes the numbers",
    ),
    "the other way round": (lambda z: flip(reshape(z, -1), 0), "order of the batch"),
    "added up": (lambda z: swapaxes(z, 0, 1).cumsum(1), "order of the batch"),
    "examples by examples": (lambda z: z.sum(1) @ transpose(z.sum(1)), "2 axes of f32"),
    "half of them": (lambda z: reshape(z, -1)[::2], "not known to be in the order of the batch"),
    "a mean over them": (lambda z: z.mean(0).mean(0), "differs from one batch to the next"),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_cannot_be_joined_is_refused(name: str) -> None:
    function, words = MIXED[name]
    trainer = trainer_of(function)
    assert trainer.predict(X, batch=COUNT)["y"].size
    with pytest.raises(ModelError, match=rf"output 'y' (.|\n)*{words}(.|\n)*all examples in one"):
        trainer.predict(X, batch=3)


def test_what_is_the_same_for_all_is_given_once() -> None:
    @model(predict=["table", "y", "chosen"])
    def net(x: Any = i64["batch"], place: Any = i64["places"]) -> dict[str, Any]:
        table = place >> Embedding(9, 2)
        y = x >> Embedding(9, 2, name="other")
        return {"table": table, "y": y, "chosen": table.sum(), "loss": (y * y).mean()}

    trainer = Trainer(training(net))
    feeds: dict[str, Array] = {"x": np.arange(COUNT), "place": np.arange(4)}
    found, whole = (trainer.predict(feeds, batch=n) for n in (2, COUNT))
    for name in ("table", "y", "chosen"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-6)
    assert found["table"].shape == (4, 2) and found["y"].shape == (COUNT, 2)


def test_no_examples_are_no_numbers() -> None:
    nothing = X[:0]
    assert trainer_of(JOINED["flattened"]).predict(nothing)["y"].shape == (0,)
    assert trainer_of(JOINED["time first"]).predict(nothing)["y"].shape == (5, 0, 4)
    with pytest.raises(FeedError, match="no examples, and output 'y' has no row"):
        trainer_of(MIXED["a mean over them"][0]).predict(nothing)
