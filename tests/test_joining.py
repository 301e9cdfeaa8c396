"""Predictions in batches are those of all examples at once, whichever axis the batch is on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Embedding,
    GlobalAveragePool,
    LayerNorm,
    MaxPool2d,
    TransformerEncoder,
    f32,
    flatten,
    i64,
    model,
    parameter,
    relu,
    softmax,
    training,
)
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.ops import (
    argsort,
    cast,
    concatenate,
    flip,
    iota,
    one_hot,
    reshape,
    roll,
    scan,
    size_value,
    sort,
    swapaxes,
    transpose,
)
from nncompile.ops.linear_algebra.determinants import det
from nncompile.optim import sgd
from nncompile.program.model import Model
from nncompile.runtime import Session
from nncompile.train import Trainer

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
    whole = trainer.predict(X, batch_size=COUNT)["y"]
    found = trainer.predict(X, batch_size=batch)["y"]
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


# Values that begin with the batch, in which each example has a part in the others.
TOGETHER: dict[str, tuple[Callable[[Value], Value], str]] = {
    "added up": (lambda z: z.cumsum(0), "cumsum"),
    "a softmax": (lambda z: softmax(z.sum(1), 0), "softmax"),
    "reversed": (lambda z: flip(z, 0), r"flip \(slice\)(.|\n)*flip\(z, 0\)"),
    "in order": (lambda z: sort(z.sum((1, 2)), 0), r"sort \(top_k\)"),
    "ranks": (lambda z: argsort(z.sum((1, 2)), 0), r"argsort \(top_k\)"),
    "centred": (lambda z: z - z.mean(0), r"mean \(sum\)"),
    "scaled": (lambda z: (z / z.std(0)) @ np.ones((4, 2), np.float32), r"std \(first\)"),
    "the greatest": (lambda z: cast(z >= z.max(0), f32), "max"),
    "numbered": (lambda z: z.sum((1, 2)) + cast(iota(z.shape[0]), f32), "iota"),
    "counted": (lambda z: z.sum(1) * size_value(z.shape[0], f32), r"size_value \(size_of\)"),
    "the first": (lambda z: z - z[:1], r"indexing \(slice\)"),
    "rolled": (lambda z: roll(z, 1, 0), r"roll \(slice\)"),
    "attended": (lambda z: softmax(z.sum(1) @ z.sum(1).T) @ z.sum(1), "matmul"),
    "joined": (lambda z: concatenate([z[1:], z[:1]], 0), r"indexing \(slice\)"),
    "in a loop": (lambda z: scan(lambda c, r: (c + r, c + r), z[0] * 0, z)[1], "scan"),
}


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_of_the_whole_batch_is_refused(name: str, batch: int) -> None:
    """It was put together of batches, and depended on their size."""
    function, op = TOGETHER[name]
    trainer = trainer_of(function)
    assert trainer.predict(X, batch_size=COUNT)["y"].size
    words = f"each example influences the others in its batch by {op}"
    with pytest.raises(ModelError, match=rf"output 'y' of several batches .*{words}"):
        trainer.predict(X, batch_size=batch)


# Ops that do not say whether rows are apart, which they are: the numbers show it.
APART: dict[str, Callable[[Value], Value]] = {
    "picked": lambda z: z[iota(z.shape[0]), cast(z[:, 0, 0] > 0, i64)],
    "a loop over time": lambda z: swapaxes(
        scan(lambda c, r: (c + r, c + r), z[:, 0] * 0, swapaxes(z, 0, 1))[1], 0, 1
    ),
    "moved there and back": lambda z: flip(flip(z, 0) * 2, 0),
    "determinants": lambda z: det(z[:, :4] + 4 * np.eye(4, dtype=np.float32)),
}


@pytest.mark.parametrize("name", APART)
@pytest.mark.parametrize("batch", [1, 3])
def test_what_is_not_known_is_looked_at(name: str, batch: int) -> None:
    trainer = trainer_of(APART[name])
    whole = trainer.predict(X, batch_size=COUNT)["y"]
    found = trainer.predict(X, batch_size=batch)["y"]
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-5)


KNOWN: dict[str, tuple[Any, Callable[[Value], Value]]] = {
    "a perceptron": (f32["batch", 6], lambda x: softmax(x >> Dense(5, relu) >> Dense(3))),
    "images": (
        f32["batch", 1, 8, 8],
        lambda x: x >> Conv2d(3, 3) >> relu >> MaxPool2d(2) >> flatten >> Dense(2),
    ),
    "normalized images": (
        f32["batch", 2, 6, 6],
        lambda x: x >> Conv2d(3, 3) >> BatchNorm() >> relu >> GlobalAveragePool() >> Dense(2),
    ),
    "a transformer": (
        i64["batch", "time"],
        lambda x: (
            x
            >> Embedding(9, 8)
            >> TransformerEncoder(num_layers=1, num_heads=2, dim_feedforward=16)
            >> Dense(9)
        ),
    ),
    "classes": (f32["batch", 6], lambda x: one_hot((x >> Dense(4)).argmax(-1), 4)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_rows_of_networks_are_known_to_be_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    type_, function = KNOWN[name]

    @model(predict="y")
    def net(x: Any = type_) -> dict[str, Any]:
        y = function(x)
        w = parameter("w", ())
        return {"y": y, "loss": (y * w).mean()}

    runs: list[int] = []
    run = Session.run
    monkeypatch.setattr(Session, "run", lambda *args: runs.append(1) or run(*args))
    shape = [6 if not isinstance(d, int) else d for d in type_.shape]
    x = np.random.default_rng(0).integers(0, 9, shape).astype(type_.dtype.numpy)
    trainer = Trainer(training(net, optimizer=sgd(0.1)))
    found = trainer.predict(x, batch_size=2)["y"]
    assert len(runs) == 3  # and none to look at the numbers
    np.testing.assert_allclose(found, trainer.predict(x, batch_size=6)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MIXED)
def test_what_cannot_be_joined_is_refused(name: str) -> None:
    function, words = MIXED[name]
    trainer = trainer_of(function)
    assert trainer.predict(X, batch_size=COUNT)["y"].size
    with pytest.raises(ModelError, match=rf"output 'y' (.|\n)*{words}(.|\n)*all examples in one"):
        trainer.predict(X, batch_size=3)


def test_what_is_the_same_for_all_is_given_once() -> None:
    @model(predict=["table", "y", "chosen"])
    def net(x: Any = i64["batch"], place: Any = i64["places"]) -> dict[str, Any]:
        table = place >> Embedding(9, 2)
        y = x >> Embedding(9, 2, name="other")
        return {"table": table, "y": y, "chosen": table.sum(), "loss": (y * y).mean()}

    trainer = Trainer(training(net))
    feeds: dict[str, Array] = {"x": np.arange(COUNT), "place": np.arange(4)}
    found, whole = (trainer.predict(feeds, batch_size=n) for n in (2, COUNT))
    for name in ("table", "y", "chosen"):
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-6)
    assert found["table"].shape == (4, 2) and found["y"].shape == (COUNT, 2)


def test_no_examples_are_no_numbers() -> None:
    nothing = X[:0]
    assert trainer_of(JOINED["flattened"]).predict(nothing)["y"].shape == (0,)
    assert trainer_of(JOINED["time first"]).predict(nothing)["y"].shape == (5, 0, 4)
    with pytest.raises(FeedError, match="no examples, and output 'y' has no row"):
        trainer_of(MIXED["a mean over them"][0]).predict(nothing)
