"""Batch normalization: S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network
training by reducing internal covariate shift" (2015)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.elementwise import maximum, minimum, sqrt
from nncompile.ir.broadcasting import broadcast_to, zeros_like
from nncompile.ir.dims import same_shape
from nncompile.ir.graph import items
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, TupleType, Type, f32, f64
from nncompile.ops.core.composition import Composed
from nncompile.ops.core.modes import while_training
from nncompile.ops.normalization.channels import CHANNELS, ChannelAffine
from nncompile.ops.normalization.gradients import (
    BatchNormGradient,
    all_but_channels,
    at_least_one,
    channel_shape,
)
from nncompile.ops.reduction.moments import count_of, in_numpy, moments
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape


# Not ONNX's own operator: in training it writes the statistics over its inputs, the caller's arrays
# (onnxruntime 1.31), is not to be relied on for other devices, and is hardly faster together with
# the gradient.
class BatchNorm(Composed, Op, Native):
    """x[N, C, *sizes] with the mean 0 and the variance 1 in each channel, times scale[C], plus
    bias[C]: `y = (x − m)/√(v + epsilon)·scale + bias`, `m` and `v` the mean and the mean square
    distance from it over all n examples and positions of the channel.

    The results are y, the running mean and variance after this batch, and what the gradient needs,
    m[C] and 1/√(v + epsilon)[C]. `next = (1 − momentum)·now + momentum·batch`, as torch has it;
    the variance of the batch is n/(n−1)·v there. Where n is 1, which torch refuses, y is the bias
    and the variance of the batch is 0. Where n is 0 the running statistics stay as they are, and m
    and v are 0.

    It has its meaning in training; for inference a pass puts `normalized` in its place, unless it
    is not `tracked`: then there is no running mean, and the batch's own is that of inference, too.
    """

    momentum: float
    epsilon: float
    tracked: bool = True
    mixes = True

    def infer(self, x: Type, scale: Type, bias: Type, mean: Type, variance: Type) -> TupleType:
        require_real(x)
        if x.rank < 2:
            raise ShapeError(
                f"batch normalization needs [batch, channels, …], x is {x}",
                hint="expand_dims(x, 1) makes an axis for the only channel",
            )
        channel = Type(x.dtype, (x.shape[CHANNELS],))
        check_channels(x, channel, scale=scale, bias=bias, mean=mean, variance=variance)
        return TupleType((x, channel, channel, channel, channel))

    def pullback(
        self, g: Sequence[Value | None], y: Value, x: Value, *args: Value
    ) -> Sequence[Value | None]:
        scale, *_ = args
        if g[0] is not None and all(cotangent is None for cotangent in g[1:]):
            return self._pullback_of_y(g[0], y, x, scale)
        shape, axes = channel_shape(x), all_but_channels(x)
        n = at_least_one(count_of(x, axes))
        old, new = self._weights(x)
        _, _, _, centre, inverse = items(y)
        distance = x - reshape(centre, shape)
        y_cotangent, mean_cotangent, variance_cotangent, centre_cotangent, inverse_cotangent = g
        gradient_scale = gradient_bias = None
        # The gradient at x is linear in the distance from the mean; Σ distance = 0.
        terms: list[Value] = []
        factors: list[Value] = []
        shifts: list[Value] = []
        if y_cotangent is not None:
            gradient_bias = Sum(axes)(y_cotangent)
            projection = Sum(axes)(y_cotangent * distance)
            gradient_scale = projection * inverse
            gain = scale * inverse
            terms.append(y_cotangent * reshape(gain, shape))
            factors.append(-(gain * inverse * inverse * projection))
            shifts.append(-(gain * gradient_bias))
        if variance_cotangent is not None:
            factors.append(variance_cotangent * (2 * new) * n / _degrees(n))
        if inverse_cotangent is not None:
            factors.append(-(inverse_cotangent * inverse * inverse * inverse))
        if mean_cotangent is not None:
            shifts.append(mean_cotangent * new)
        if centre_cotangent is not None:
            shifts.append(centre_cotangent)
        used = terms[0] if terms else zeros_like(x)
        if factors and shifts:
            terms.append(ChannelAffine()(distance, _total(factors) / n, _total(shifts) / n))
        elif factors:
            terms.append(distance * reshape(_total(factors) / n, shape))
        elif shifts:
            terms.append(reshape(_total(shifts) / n, shape))
        gradient = broadcast_to(_total(terms), x.shape)
        return (
            # In use the statistics do not depend on x.
            while_training(gradient, used) if self.tracked else gradient,
            gradient_scale,
            gradient_bias,
            None if mean_cotangent is None else mean_cotangent * old,
            None if variance_cotangent is None else variance_cotangent * old,
        )

    def _pullback_of_y(self, g: Value, y: Value, x: Value, scale: Value) -> Sequence[Value | None]:
        _, _, _, centre, inverse = items(y)
        gradient, *others = items(BatchNormGradient()(g, x, scale, centre, inverse))
        if self.tracked:  # in use the statistics do not depend on x
            gradient = while_training(gradient, g * reshape(scale * inverse, channel_shape(x)))
        return gradient, *others, None, None

    def _weights(self, x: Value) -> tuple[Any, Any]:
        """Of the running statistics now, and of the batch: nothing for an empty one."""
        n = count_of(x, all_but_channels(x))
        new = self.momentum if isinstance(n, int) else minimum(n, 1) * self.momentum
        return 1 - new, new

    def composed(
        self, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
    ) -> tuple[Value, ...]:
        """The results in terms of other ops."""
        axes = all_but_channels(x)
        n = at_least_one(count_of(x, axes))
        centre, distance, batch_variance = moments(x, axes, n, keepdims=False)
        inverse = 1 / sqrt(batch_variance + self.epsilon)
        y = ChannelAffine()(distance, scale * inverse, bias)
        old, new = self._weights(x)
        return (
            y,
            mean * old + centre * new,
            variance * old + unbiased(batch_variance, n) * new,
            centre,
            inverse,
        )

    def native(self, x: Type, *others: Type) -> Kernel | None:
        if x.dtype is not f32:
            return None
        return Kernel("BatchNorm", momentum=self.momentum, epsilon=self.epsilon)

    def numpy(
        self, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
    ) -> tuple[Array, ...]:
        axes = (0, *range(2, x.ndim))
        momentum = self.momentum if x.size else 0.0
        n = max(x.size // max(x.shape[CHANNELS], 1), 1)
        number = x.dtype.type
        channels = (-1, *(1,) * (x.ndim - 2))
        centre, distance = in_numpy(x, axes)
        centre = centre.reshape(-1)
        batch_variance = (distance * distance).sum(axes) / number(n)
        inverse = 1 / np.sqrt(batch_variance + number(self.epsilon))
        y = distance * (scale * inverse).reshape(channels) + bias.reshape(channels)
        unbiased = batch_variance * number(n / max(n - 1, 1))
        old, new = number(1 - momentum), number(momentum)
        return y, mean * old + centre * new, variance * old + unbiased * new, centre, inverse

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        def sample(
            x: Type, momentum: float = 0.1, epsilon: float = 1e-5, tracked: bool = True
        ) -> Sample:
            channel = Type(x.dtype, x.shape[1:2])
            types = (x, channel, channel, channel, channel)
            return Sample(cls(momentum, epsilon, tracked), types, floats=(0.1, 2.0))

        yield sample(f32["n", 3])
        yield sample(f32["n", 2, "h", "w"])
        yield sample(f32[3, 2, "l"], 0.25, 1e-3)
        yield sample(f64["n", 2, 3, 1, 2], 1.0)
        yield sample(f32[1, 3], 0.0, 1e-2)
        yield sample(f32["n", 2, "l"], tracked=False)


def normalized(
    x: Value, scale: Value, bias: Value, mean: Value, variance: Value, *, epsilon: float
) -> Value:
    """x with given statistics in place of its own: one factor and one addend for each channel."""
    factor = scale / sqrt(variance + epsilon)
    shape = channel_shape(x)
    return x * reshape(factor, shape) + reshape(bias - mean * factor, shape)


def check_channels(x: Type, channel: Type, **types: Type) -> None:
    """Raises `DTypeError` or `ShapeError` where one of the given types is another than that of one
    number for each channel of x."""
    for name, type_ in types.items():
        if type_.dtype is not x.dtype:
            raise DTypeError(f"element types differ: x is {x}, {name} is {type_}")
        if same_shape(type_.shape, channel.shape) is not True:
            raise ShapeError(
                f"{name} needs one number for each channel, {channel}, got {type_}",
                hint=f"axis {CHANNELS} of x {x} is the channel axis",
            )


def positive_epsilon(name: str, eps: Any) -> float:
    """`eps` as a number. Raises `ModelError` where it is not positive: a constant input would be
    divided by zero."""
    if not isinstance(eps, bool) and isinstance(eps, int | float) and 0 < eps < float("inf"):
        return float(eps)
    raise ModelError(
        f"the eps of {name} must be a positive number, got {eps!r}",
        hint="it keeps the result finite for a constant input, whose variance is 0: 1e-5 is usual",
    )


def unbiased(variance: Any, n: Any) -> Any:
    """The variance of the n numbers' source, from their mean square distance from the mean."""
    return variance * (n / _degrees(n))


def _degrees(n: Any) -> Any:
    """n − 1, what the sum of squares is divided by in the variance; 1 where n is."""
    return max(n - 1, 1) if isinstance(n, int) else maximum(n - 1, 1)


def _total(terms: Sequence[Value]) -> Value:
    return functools.reduce(operator.add, terms)
