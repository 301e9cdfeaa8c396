"""Layers and metrics as users of torch or Keras write them: the message says what to write here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, i64, model
from nncompile.diagnostics.errors import CompileError, ModelError, ShapeError
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Type

FLAT, ROWS = f32["batch", 784], f32["batch", "time", 6]
IMAGES, LAST = f32["batch", 3, 8, 8], f32["batch", 28, 28, 1]

LAYERS: dict[str, tuple[Callable[[Value], Any], Type, str]] = {
    "in, out, kernel": (
        lambda x: x >> dsl.Conv2d(3, 16, 3),
        IMAGES,
        r"follows from x: Conv2d\(16, 3\)",
    ),
    "in, out, kernel, separable": (
        lambda x: x >> dsl.SeparableConv2d(3, 16, 3),
        IMAGES,
        r"follows from x: SeparableConv2d\(16, 3\)",
    ),
    "channels last": (lambda x: x >> dsl.Conv2d(8, 3), LAST, r"channels are axis 1: moveaxis"),
    "Keras's padding": (lambda x: x >> dsl.Conv2d(8, 3, padding="SAME"), IMAGES, "mean 'same'"),
    "padding of a pool": (lambda x: x >> dsl.MaxPool2d(2, padding="Valid"), IMAGES, "mean 'valid'"),
    "of a transposed one": (
        lambda x: x >> dsl.ConvTranspose2d(8, 3, padding="Same"),
        IMAGES,
        "mean 'same'",
    ),
    "in, out": (
        lambda x: x >> dsl.Dense(784, 128),
        FLAT,
        r"Dense\(128\) alone is enough: the width of x",
    ),
    "input and hidden": (
        lambda x: x >> dsl.LSTM(6, 32),
        ROWS,
        r"LSTM\(32\) alone is enough: the width of x",
    ),
    "input, hidden, layers": (lambda x: x >> dsl.GRU(6, 32, 2), ROWS, r"GRU\(32\) alone"),
    "normalized_shape": (
        lambda x: x >> dsl.LayerNorm(64),
        ROWS,
        r"LayerNorm\(\) normalizes the last",
    ),
    "normalized_shape listed": (lambda x: x >> dsl.LayerNorm([6]), ROWS, r"LayerNorm\(\): the s"),
    "a shape of two": (lambda x: x >> dsl.RMSNorm((4, 6)), ROWS, r"RMSNorm\(axes=2\): the sizes"),
    "num_features": (lambda x: x >> dsl.BatchNorm(3), IMAGES, r"BatchNorm\(\): the number of"),
    "groups and channels": (lambda x: x >> dsl.GroupNorm(3, 3), IMAGES, r"GroupNorm\(3\): the num"),
    "of instances": (lambda x: x >> dsl.InstanceNorm(3), IMAGES, r"InstanceNorm\(\): the number"),
    "in, out, kernel, any size": (
        lambda x: x >> dsl.Conv2d(3, 16, 3),
        f32["batch", 3, "h", "w"],
        r"follows from x: Conv2d\(16, 3\)(.|\n)*write stride=3",
    ),
    "in, out, kernel of one": (
        lambda x: x >> dsl.Conv2d(3, 64, 1),
        f32["batch", 3, "h", "w"],
        r"follows from x: Conv2d\(64, 1\)",
    ),
    "in, out, kernel, transposed": (
        lambda x: x >> dsl.ConvTranspose2d(3, 16, 5),
        IMAGES,
        r"follows from x: ConvTranspose2d\(16, 5\)",
    ),
    "the size of two": (
        lambda x: x >> dsl.LayerNorm(2),
        ROWS,
        r"LayerNorm\(axes=2\) normalizes the",
    ),
    "a size of RMSNorm": (
        lambda x: x >> dsl.RMSNorm(6),
        ROWS,
        r"RMSNorm\(\) normalizes the last axis",
    ),
    "one channel": (lambda x: x >> dsl.BatchNorm(1), IMAGES, r"BatchNorm\(\): the number of"),
    "groups and one channel": (lambda x: x >> dsl.GroupNorm(1, 1), IMAGES, r"GroupNorm\(1\): the"),
    "d_model, nhead": (
        lambda x: x >> dsl.TransformerEncoderLayer(6, 2),
        ROWS,
        r"Layer\(6, 2\) has 6 heads but only 2 hidden(.|\n)*TransformerEncoderLayer\(2\)",
    ),
    "d_model, nhead, feedforward": (
        lambda x: x >> dsl.TransformerDecoderLayer(6, 2, 24),
        ROWS,
        "activation of TransformerDecoderLayer must be a function, got 24",
    ),
    "a layer, and how often": (
        lambda x: x >> dsl.TransformerEncoder(dsl.TransformerEncoderLayer(2), 6),
        ROWS,
        r"TransformerEncoder\(num_heads=8, num_layers=6\)",
    ),
    "batchmean": (
        lambda x: dsl.kl_divergence(dsl.log_softmax(x), x, reduction="batchmean"),
        FLAT,
        'the mean over the rows, is "mean" here',
    ),
    "embed_dim, heads": (
        lambda x: x >> dsl.MultiHeadAttention(6, 2),
        ROWS,
        "number of heads comes first",
    ),
}


@pytest.mark.parametrize("foreign_name", LAYERS)
def test_layers_answer_habits(foreign_name: str) -> None:
    written, type_, words = LAYERS[foreign_name]

    def net(x):
        return written(x)

    net.__defaults__ = (type_,)
    with pytest.raises(CompileError, match=words):
        model(net)


@pytest.mark.parametrize(
    "layer",
    [
        dsl.Conv2d(3, 4, 2),
        dsl.Conv2d(3, 7, 2),
        dsl.Conv2d(3, 16, stride=3),
        dsl.Conv2d(3, (16, 16), 3),
        dsl.Conv2d(4, 16, 3),
        dsl.Conv2d(3, 4, 4),
    ],
    ids=lambda layer: f"{layer.out_channels}, {layer.kernel_size}, {layer.stride}",
)
def test_other_convolutions_are_as_they_are_written(layer: Any) -> None:
    @model
    def net(x=f32["batch", 3, "h", "w"]):
        return x >> layer

    assert net.outputs["output"].shape[1] == layer.out_channels


def test_options_given_by_place_are_kerass() -> None:
    layer = dsl.DepthwiseConv2d(3, 2, "same")
    assert (layer.stride, layer.padding, layer.depth_multiplier) == (2, "same", 1)
    layer = dsl.SeparableConv2d(8, 3, 2, "same")
    assert (layer.stride, layer.padding, layer.depth_multiplier) == (2, "same", 1)


FLAGS = {
    "affine": lambda: dsl.BatchNorm(1e-5, 0.1, 3),  # type: ignore[arg-type]
    "bias": lambda: dsl.Dense(8, None, 4),  # type: ignore[arg-type]
    "norm_first": lambda: dsl.TransformerEncoderLayer(2, norm_first="yes"),  # type: ignore[arg-type]
    "causal": lambda: dsl.MultiHeadAttention(2, is_causal=1),  # type: ignore[arg-type]
    "return_sequences": lambda: dsl.LSTM(2, 8),  # type: ignore[arg-type]
    "keepdims": lambda: dsl.GlobalAveragePool(2),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_are_true_or_false(flag: str) -> None:
    with pytest.raises(ModelError, match=f"{flag} of .* must be True or False, got"):
        FLAGS[flag]()


def test_flags_of_own_layers_too() -> None:
    class Scaled(dsl.Layer):
        twice: bool = False

        def __call__(self, x: Any) -> Any:
            return x

    assert Scaled(np.bool_(True)).twice
    assert repr(Scaled(True)) == "Scaled(twice=True)"
    with pytest.raises(ModelError, match="twice of Scaled must be True or False, got 2"):
        Scaled(2)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [dsl.f1_score, dsl.precision, dsl.recall, dsl.iou])
def test_scores_of_several_classes_say_how_they_are_averaged(metric: Any) -> None:
    logits, label = Input("z", f32["batch", 3])(), Input("c", i64["batch"])()
    words = rf'{metric.__name__}\(logits, label, average="macro"\)'
    with pytest.raises(ShapeError, match=words):
        metric(logits, label)
    assert metric(logits, label, average="macro").rank == 0
