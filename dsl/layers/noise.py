"""Layers that disturb activations while training, and are the identity otherwise: the family of
dropout, and noise. What they draw follows from the seed and the step."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from dsl.building import active
from dsl.layers.base import Layer
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.diagnostics.options import real
from nncompile.elementwise import where
from nncompile.ir.basic import floating
from nncompile.ir.op import Value
from nncompile.ops import (
    bernoulli,
    dropout,
    normal,
    random_key,
    seed_leaf,
    step_leaf,
    while_training,
)


def draw_key(caller: str) -> Value:
    """A key for one layer's random numbers of one step, other than that of every other draw."""
    return random_key(active(caller).salt(), seed_leaf(), step_leaf())


def probability_of(caller: str, p: Any) -> float:
    """A probability within [0, 1). Raises `ModelError` for another."""
    number = real(caller, p)
    if not 0 <= number < 1:
        raise ModelError(f"{caller} must be in [0, 1), got {p!r}")
    return float(number)


def at_least_zero(caller: str, number: Any) -> float:
    """A number that is not negative. Raises `ModelError` for another."""
    if real(caller, number) < 0:
        raise ModelError(f"{caller} must be at least 0, got {number!r}")
    return float(number)


class SpatialDropout(Layer):
    """While training, whole channels of x[batch, channels, *space] are zero with probability
    `p`, the others are divided by 1 − p (J. Tompson et al., "Efficient object localization
    using convolutional networks", 2015). Raises `ModelError` for a p outside [0, 1)."""

    p: float = 0.5

    _axes: ClassVar[int] = 2  # along which choices differ

    def __post_init__(self) -> None:
        probability_of(f"p of {type(self).__name__}", self.p)

    def __call__(self, x: Any) -> Value:
        caller = type(self).__name__
        x = floating(caller, x)
        if x.rank < self._axes:
            raise ShapeError(f"{caller} needs {self._axes} axes or more, x is {x.type}")
        shape = (*x.shape[: self._axes], *(1 for _ in x.shape[self._axes :]))
        return dropout(x, self.p, active(caller).salt(), shape=shape)


class DropPath(SpatialDropout):
    """While training, whole examples of x[batch, …] are zero with probability `p`, the others
    are divided by 1 − p: `x + DropPath(0.1)(f(x))` is stochastic depth (G. Huang et al., "Deep
    networks with stochastic depth", 2016). Raises `ModelError` for a p outside [0, 1)."""

    p: float = 0.1

    _axes: ClassVar[int] = 1


# Of SELU: where it saturates, −scale·alpha.
_SATURATED = -1.0507009873554805 * 1.6732632423543772


class AlphaDropout(Layer):
    """Dropout for SELU: while training, numbers are SELU's lowest value with probability `p`,
    and all are scaled and shifted so that a mean of 0 and a variance of 1 stay (G. Klambauer et
    al., "Self-normalizing neural networks", 2017). Raises `ModelError` for a p outside
    [0, 1)."""

    p: float = 0.1

    def __post_init__(self) -> None:
        probability_of("p of AlphaDropout", self.p)

    def __call__(self, x: Any) -> Value:
        x = floating("AlphaDropout", x)
        keep = 1 - self.p
        scale = 1 / math.sqrt(keep * (1 + self.p * _SATURATED**2))
        is_kept = bernoulli(draw_key("AlphaDropout"), keep, x.shape)
        dropped = where(is_kept, x, _SATURATED) * scale - scale * self.p * _SATURATED
        return while_training(dropped, x)


class GaussianNoise(Layer):
    """x plus, while training, independent normal noise of standard deviation `std`. Raises
    `ModelError` for a negative one."""

    std: float = 0.1

    def __post_init__(self) -> None:
        at_least_zero("the std of GaussianNoise", self.std)

    def __call__(self, x: Any) -> Value:
        x = floating("GaussianNoise", x)
        noise = normal(draw_key("GaussianNoise"), x.shape, std=self.std, dtype=x.dtype)
        return while_training(x + noise, x)


class GaussianDropout(Layer):
    """x times, while training, normal noise of mean 1 and variance p/(1 − p), which is that
    of dropout at the same p (N. Srivastava et al., "Dropout", 2014). Raises `ModelError` for a
    p outside [0, 1)."""

    p: float = 0.5

    def __post_init__(self) -> None:
        probability_of("p of GaussianDropout", self.p)

    def __call__(self, x: Any) -> Value:
        x = floating("GaussianDropout", x)
        std = math.sqrt(self.p / (1 - self.p))
        factor = normal(draw_key("GaussianDropout"), x.shape, 1.0, std, x.dtype)
        return while_training(x * factor, x)


__all__ = [
    "AlphaDropout",
    "DropPath",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout",
]
