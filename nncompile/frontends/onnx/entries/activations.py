"""Activations. Where one has a kink, its derivative there is torch's, as that of the layers written
here: quantized networks and images on a plain ground are at zero exactly, again and again."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.elementwise.formula import formula
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.shape.reshape import reshape


@formula
def leaky_relu_of(x: Any, alpha: Any) -> Any:
    """x above 0, αx elsewhere."""
    return e.where(x > 0, x, alpha * x)


@formula
def elu_of(x: Any, alpha: Any) -> Any:
    """x above 0, α(eˣ − 1) elsewhere."""
    return e.where(x > 0, x, alpha * e.expm1(x))


@formula
def _celu_of(x: Any, alpha: Any) -> Any:
    return e.where(x > 0, x, alpha * e.expm1(x / alpha))


@imports("LeakyRelu")
def _leaky_relu(n: Node, x: Value) -> Any:
    return leaky_relu_of(x, _number(n["alpha"], x))


def _number(x: float, like: Value) -> Value:
    return const(x, like.dtype)


@imports("PRelu")
def _prelu(n: Node, x: Value, slope: Value) -> Any:
    if n.version < 7 and slope.rank == 1 and x.rank > 1 and slope.shape[0] != 1:
        slope = reshape(slope, (slope.shape[0], *(1,) * (x.rank - 2)))
    return leaky_relu_of(x, slope)


@imports("Elu")
def _elu(n: Node, x: Value) -> Any:
    return elu_of(x, _number(n["alpha"], x))


@imports("Celu")
def _celu(n: Node, x: Value) -> Any:
    return _celu_of(x, _number(n["alpha"], x))


@imports("Selu")
def _selu(n: Node, x: Value) -> Any:
    alpha, gamma = (_number(n[name], x) for name in ("alpha", "gamma"))
    return gamma * elu_of(x, alpha)


@imports("HardSigmoid")
def _hard_sigmoid(n: Node, x: Value) -> Any:
    return e.hard_clip(x * _number(n["alpha"], x) + _number(n["beta"], x), 0, 1)


@imports("HardSwish")
def _hard_swish(n: Node, x: Value) -> Any:
    return x * e.hard_clip(x * _number(1 / 6, x) + 0.5, 0, 1)


@imports("Swish")
def _swish(n: Node, x: Value) -> Any:
    return x * e.sigmoid(x * _number(n["alpha"], x))


@imports("Gelu")
@imports("Gelu", "FastGelu", domain="com.microsoft")
def _gelu(n: Node, x: Value, bias: Value | None = None) -> Any:
    x = x if bias is None else x + bias
    if n.op == "FastGelu" or n["approximate"] == "tanh":
        inner = float(np.sqrt(2 / np.pi)) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + e.tanh(inner))
    return 0.5 * x * (1 + e.erf(x * float(np.sqrt(0.5))))


@imports("ThresholdedRelu")
def _thresholded(n: Node, x: Value) -> Any:
    return e.where(x > _number(n["alpha"], x), x, const(0, x.dtype))


@imports("Shrink")
def _shrink(n: Node, x: Value) -> Any:
    wide = x if x.dtype.is_float else cast(x, f32)
    lambd, bias = n["lambd"], n["bias"]
    shrunk = e.where(wide < -lambd, wide + bias, e.where(wide > lambd, wide - bias, 0 * wide))
    return cast(shrunk, x.dtype)
