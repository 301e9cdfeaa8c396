"""`bias=False` of every layer that has a bias."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import dsl
from dsl import Layer, f32, model
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.program.model import Model

VECTOR, ROWS = f32["batch", 4], f32["batch", "time", 4]
SIGNAL, IMAGE, VOLUME = f32["batch", 4, 9], f32["batch", 4, 9, 9], f32["batch", 4, 5, 5, 5]
LAYERS: dict[str, tuple[dict[str, Any], Type]] = {
    "BatchNorm": ({}, VECTOR),
    "Bilinear": ({"out_features": 3}, VECTOR),
    "Conv1d": ({"out_channels": 3, "kernel_size": 2}, SIGNAL),
    "Conv2d": ({"out_channels": 3, "kernel_size": 2}, IMAGE),
    "Conv3d": ({"out_channels": 3, "kernel_size": 2}, VOLUME),
    "ConvTranspose1d": ({"out_channels": 3, "kernel_size": 2}, SIGNAL),
    "ConvTranspose2d": ({"out_channels": 3, "kernel_size": 2}, IMAGE),
    "ConvTranspose3d": ({"out_channels": 3, "kernel_size": 2}, VOLUME),
    "Dense": ({"out_features": 3}, VECTOR),
    "DepthwiseConv2d": ({"kernel_size": 2}, IMAGE),
    "FeedForward": ({"gated": True}, ROWS),
    "GRU": ({"hidden_size": 3, "num_layers": 2, "bidirectional": True}, ROWS),
    "GRUCell": ({"hidden_size": 3}, VECTOR),
    "GroupNorm": ({"num_groups": 2}, SIGNAL),
    "InstanceNorm": ({"affine": True}, SIGNAL),
    "LSTM": ({"hidden_size": 3, "num_layers": 2, "bidirectional": True}, ROWS),
    "LSTMCell": ({"hidden_size": 3}, VECTOR),
    "LayerNorm": ({}, ROWS),
    "MixtureOfExperts": ({"num_experts": 2}, VECTOR),
    "MultiHeadAttention": ({"num_heads": 2}, ROWS),
    "RNN": ({"hidden_size": 3, "num_layers": 2, "bidirectional": True}, ROWS),
    "RNNCell": ({"hidden_size": 3}, VECTOR),
    "SeparableConv2d": ({"out_channels": 3, "kernel_size": 2}, IMAGE),
    "TransformerDecoder": ({"num_heads": 2, "norm_first": True}, ROWS),
    "TransformerDecoderLayer": ({"num_heads": 2}, ROWS),
    "TransformerEncoder": ({"num_heads": 2, "norm_first": True, "gated": True}, ROWS),
    "TransformerEncoderLayer": ({"num_heads": 2}, ROWS),
}


def made(name: str, bias: bool) -> Model:
    options, type_ = LAYERS[name]
    layer = getattr(dsl, name)(**options, bias=bias)

    @model
    def net(x: Value = type_) -> dict[str, Value]:  # type: ignore[assignment]
        pair = name == "Bilinear" or "Decoder" in name
        y = layer(x, x) if pair else layer(x)
        return {"y": y[0] if isinstance(y, tuple) else y}

    return net


@pytest.mark.parametrize("name", LAYERS)
def test_no_parameter_is_a_bias(name: str) -> None:
    assert [path for path in made(name, True).parameters if "bias" in path]
    assert not [path for path in made(name, False).parameters if "bias" in path]


def test_every_layer_that_has_the_option_is_here() -> None:
    layers = {
        name: x
        for name in dsl.__all__
        if inspect.isclass(x := getattr(dsl, name)) and issubclass(x, Layer)
    }
    has = {name for name, x in layers.items() if "bias" in x.__dataclass_fields__}
    assert has - {"SimpleRNN"} == LAYERS.keys()
