"""Sizes that weights depend on are numbers; for a name, the message says where it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, f32, model
from nncompile.diagnostics.errors import FeedError, ShapeError
from nncompile.ir.op import Value
from nncompile.program.model import Model
from nncompile.train import Trainer


def refused(body: Callable[[Value], Any], type_: Any) -> str:
    def net(x):  # type: ignore[no-untyped-def]
        return body(x)

    net.__defaults__ = (type_,)
    with pytest.raises(ShapeError) as caught:
        model(net)
    return str(caught.value)


def test_a_slice_that_clips_tells_how_it_does_not() -> None:
    message = refused(lambda x: x[:, :3] >> Dense(2), f32["batch", "time"])
    assert message.startswith("Dense needs a last axis of known size, x is f32[batch, Min(3, time)")
    assert re.search(r"x +f32\[batch, Min.* +test_known_sizes\.py:\d+ .*x\[:, :3\]", message)
    assert re.search(r"time +axis 1 of input x +f32\[batch, time\]", message)
    assert '3 elements of an axis declared "time + 3"; or declare axis 1 of input x' in message


def test_the_way_out_of_a_slice_is_one() -> None:
    @model
    def net(x=f32["batch", "time + 3"]):  # type: ignore[no-untyped-def]
        y = x[:, :3] >> Dense(2)
        return {"y": y, "loss": (y * y).mean()}

    assert isinstance(net, Model)
    trainer = Trainer(dsl.training(net))
    assert trainer.predict(np.ones((2, 3), np.float32))["y"].shape == (2, 2)
    with pytest.raises(FeedError, match="time"):
        trainer.predict(np.ones((2, 2), np.float32))


LAYERS: dict[str, tuple[Callable[[Value], Any], Any, str]] = {
    "Dense": (lambda x: x >> Dense(2), f32["n", "width"], "width +axis 1 of input x"),
    "of all that are there": (
        lambda x: x >> dsl.Conv2d(2, 3) >> dsl.flatten >> Dense(2),
        f32["n", 1, "height", "width"],
        r"height +axis 2 of input x(.|\n)*width +axis 3 of input x(.|\n)*GlobalAveragePool\(\)",
    ),
    "of what is selected": (
        lambda x: x[x > 0] >> Dense(2),
        f32["n"],
        r"made by (indexing|nonzero)",
    ),
    "Bilinear": (lambda x: dsl.Bilinear(2)(x[:, :2], x), f32["n", "width"], "Min"),
    "PReLU": (lambda x: x >> dsl.PReLU(axis=1), f32["n", "width"], r"PReLU\(\) has one slope"),
    "Conv2d": (lambda x: x >> dsl.Conv2d(2, 3), f32["n", "c", 8, 8], "c +axis 1 of input x"),
    "LSTM": (lambda x: x >> dsl.LSTM(2), f32["n", "t", "width"], "declare axis 2 of input x"),
    "LSTMCell": (lambda x: x >> dsl.LSTMCell(2), f32["n", "width"], "declare axis 1 of input x"),
    "LayerNorm": (lambda x: x >> dsl.LayerNorm(), f32["n", "width"], "elementwise_affine=False"),
    "BatchNorm": (lambda x: x >> dsl.BatchNorm(), f32["n", "c"], "c +axis 1 of input x"),
    "MultiHeadAttention": (
        lambda x: x >> dsl.MultiHeadAttention(2),
        f32["n", "t", "width"],
        "width +axis 2 of input x",
    ),
    "attention": (
        lambda x: dsl.scaled_dot_product_attention(x, x, x),
        f32["n", "t", "width"],
        r"scale=0\.125",
    ),
    "MixtureOfExperts": (
        lambda x: x >> dsl.MixtureOfExperts(4),
        f32["n", "width"],
        "width +axis 1 of input x",
    ),
    "FeedForward": (lambda x: x >> dsl.FeedForward(4), f32["n", "width"], "axis 1 of input x"),
    "a number": (lambda x: x >> Dense(2), f32[()], r"expand_dims\(x, -1\) adds an axis"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_says_what_a_size_depends_on(name: str) -> None:
    body, type_, words = LAYERS[name]
    message = refused(body, type_)
    assert re.search(words, message), message
    assert "known" in message
