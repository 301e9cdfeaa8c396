"""Activation functions, each a formula: its gradient, its meaning and its lowering follow from it.
Those that look at several features (the gated ones, maxout) are functions of tensors.

Defaults, and the derivatives at kinks, are torch's.
"""

from __future__ import annotations

import math
from typing import Any

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import (
    exp,
    expm1,
    hard_clip,
    minimum,
    normal_cdf,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value
from nncompile.ir.op import Value
from nncompile.ops import max as maximum_of
from nncompile.ops import reshape, split
from nncompile.ops.core.axes import axis_of


@formula
def linear(x: Any) -> Any:
    """x itself"""
    return x


@formula
def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    """x above 0, negative_slope·x below (Maas et al. 2013)"""
    return where(x > 0, x, negative_slope * x)


@formula
def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x above 0, α(eˣ − 1) below (Clevert et al. 2015). At 0 exactly, derivatives are those of
    below: the first is torch's, the second α, where torch's is 0."""
    return where(x > 0, x, alpha * expm1(x))


@formula
def celu(x: Any, alpha: Any = 1.0) -> Any:
    """x above 0, α(exp(x/α) − 1) below: ELU with a continuous derivative (Barron 2017). At 0
    exactly, the second derivative is that of below, 1/α, as with `elu`"""
    return where(x > 0, x, alpha * expm1(x / alpha))


# Klambauer et al. 2017: with these, mean 0 and variance 1 are a fixed point of deep networks.
_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


@formula
def selu(x: Any) -> Any:
    """scale·elu(x, α), which keeps mean 0 and variance 1 (Klambauer et al. 2017); its
    derivatives at 0 are as those of `elu`"""
    return _SELU_SCALE * where(x > 0, x, _SELU_ALPHA * expm1(x))


@formula
def gelu(x: Any) -> Any:
    """x·Φ(x), Φ the normal distribution function (Hendrycks & Gimpel 2016)"""
    return x * normal_cdf(x)


@formula
def gelu_tanh(x: Any) -> Any:
    """x·Φ(x) with Φ(x) ≈ (1 + tanh u)/2 = σ(2u), u = √(2/π)(x + 0.044715x³)"""
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


@formula
def silu(x: Any, beta: Any = 1.0) -> Any:
    """x·σ(βx) (Ramachandran et al. 2017)"""
    return x * sigmoid(beta * x)


swish = silu


@formula
def mish(x: Any) -> Any:
    """x·tanh(softplus(x)) (Misra 2019)"""
    # tanh(log(1 + e)) = n/(n + 2) with n = e² + 2e: one exponential. It is 1 from x = 20 on, in
    # double precision too, where e² has not overflowed yet.
    e = exp(minimum(x, 20))
    n = e * (e + 2)
    return x * n / (n + 2)


@formula
def softsign(x: Any) -> Any:
    """x/(1 + |x|)"""
    return x / (1 + abs(x))


@formula
def relu6(x: Any) -> Any:
    """x between 0 and 6"""
    return hard_clip(x, 0, 6)


@formula
def hard_tanh(x: Any, min_val: Any = -1.0, max_val: Any = 1.0) -> Any:
    """x between `min_val` and `max_val`"""
    return hard_clip(x, min_val, max_val)


@formula
def hard_sigmoid(x: Any) -> Any:
    """x/6 + 1/2 between 0 and 1"""
    return hard_clip(x / 6 + 0.5, 0, 1)


@formula
def hard_swish(x: Any) -> Any:
    """x·hard_sigmoid(x) (Howard et al. 2019)"""
    return x * hard_clip(x / 6 + 0.5, 0, 1)


@formula
def log_sigmoid(x: Any) -> Any:
    """log σ(x)"""
    return -softplus(-x)


@formula
def tanh_shrink(x: Any) -> Any:
    """x − tanh x"""
    return x - tanh(x)


@formula
def soft_shrink(x: Any, lambd: Any = 0.5) -> Any:
    """x moved towards 0 by λ, and 0 within it"""
    return relu(x - lambd) - relu(-x - lambd)


@formula
def hard_shrink(x: Any, lambd: Any = 0.5) -> Any:
    """x, and 0 within ±λ"""
    return where(abs(x) <= lambd, 0, x)


@formula
def threshold(x: Any, threshold: Any = 0.0, value: Any = 0.0) -> Any:
    """x above the threshold, `value` elsewhere"""
    return where(x <= threshold, value, x)


@formula
def squareplus(x: Any, b: Any = 4.0) -> Any:
    """(x + √(x² + b))/2: a ReLU that is smooth and needs no exponential (Barron 2021)"""
    root = sqrt(x * x + b)
    # Below 0 the sum would cancel.
    return 0.5 * where(x > 0, x + root, b / (root - x))


@formula
def gaussian(x: Any) -> Any:
    """exp(−x²)"""
    return exp(-x * x)


@formula
def prelu(x: Any, slope: Any) -> Any:
    """x above 0, slope·x below, with a trained slope (He et al. 2015)"""
    return where(x > 0, x, slope * x)


@suggests_names
def glu(x: Any, axis: int = -1) -> Value:
    """a·σ(b), a and b the halves of x along the axis (Dauphin et al. 2017): `[..., 2n]` to
    `[..., n]`. Raises `ShapeError` where the features are not known to be two halves."""
    a, b = _halves("glu", x, axis)
    return a * sigmoid(b)


@suggests_names
def swiglu(x: Any, axis: int = -1) -> Value:
    """silu(a)·b, a and b the halves of x along the axis (Shazeer 2020). The half that is
    activated comes first, as in LLaMA; `glu` has it last, as torch's."""
    a, b = _halves("swiglu", x, axis)
    return silu(a) * b


@suggests_names
def geglu(x: Any, axis: int = -1) -> Value:
    """gelu(a)·b, a and b the halves of x along the axis (Shazeer 2020)."""
    a, b = _halves("geglu", x, axis)
    return gelu(a) * b


@suggests_names
def reglu(x: Any, axis: int = -1) -> Value:
    """relu(a)·b, a and b the halves of x along the axis (Shazeer 2020)."""
    a, b = _halves("reglu", x, axis)
    return relu(a) * b


def _halves(name: str, x: Any, axis: int) -> tuple[Value, ...]:
    x = as_value(x)
    split_axis = axis_of(axis, x.rank, f"{name}: axis")
    size = x.shape[split_axis]
    if isinstance(size, int) and size % 2:
        raise ShapeError(
            f"{name} halves the features, but {x.type} has {size} of them",
            hint=f"Dense(2 * n, {name}) gives n",
        )
    return split(x, 2, split_axis)


@suggests_names
def maxout(x: Any, pieces: int = 2) -> Value:
    """The greatest of each `pieces` features that follow each other (Goodfellow et al. 2013):
    `[..., n·pieces]` to `[..., n]`; `Dense(8 * 3, lambda x: maxout(x, 3))` is the layer. Of equal
    ones each has an equal part of the gradient. Raises `ShapeError` where the features are not a
    multiple."""
    x = as_value(x)
    size = x.shape[-1] if x.rank else None
    if not isinstance(size, int) or pieces < 1 or size % pieces:
        raise ShapeError(
            f"maxout takes the maximum of each {pieces} features, x is {x.type}",
            hint=f"Dense({pieces} * n, ...) gives a multiple of {pieces} features",
        )
    return maximum_of(reshape(x, (*x.shape[:-1], size // pieces, pieces)), -1)


__all__ = [
    "celu",
    "elu",
    "gaussian",
    "geglu",
    "gelu",
    "gelu_tanh",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "maxout",
    "mish",
    "prelu",
    "reglu",
    "relu6",
    "selu",
    "silu",
    "soft_shrink",
    "softsign",
    "squareplus",
    "swiglu",
    "swish",
    "tanh_shrink",
    "threshold",
]
