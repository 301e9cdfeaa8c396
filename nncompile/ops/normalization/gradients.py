"""The gradients of layer and batch normalization as ops of their own, for which there are native
kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ShapeError
from nncompile.elementwise import maximum
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, product, same_shape
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Backward, Op, Sample, Value
from nncompile.ir.types import Array, TupleType, Type, f32, f64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.composition import Composed, composed_pullback
from nncompile.ops.normalization.channels import CHANNELS, ChannelAffine
from nncompile.ops.reduction.moments import count_of
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.reduction.statistics import mean
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape


class LayerNormGradient(Composed, Op, Native):
    """From the gradient at y of `LayerNorm`, and its x, m and 1/√(v + epsilon), and its scale where
    it has one: the gradients at x, at the scale, and at the bias where it has one (`bias`)."""

    bias: bool
    mixes = True

    def infer(self, g: Type, x: Type, centre: Type, inverse: Type, *scale: Type) -> TupleType:
        require_real(x)
        statistics = (*x.shape[:-1], 1)
        fits = same_shape(g.shape, x.shape) and all(
            same_shape(t.shape, statistics) for t in (centre, inverse)
        )
        if not fits or any(same_shape(t.shape, x.shape[-1:]) is not True for t in scale):
            raise ShapeError(f"{g}, {x}, {centre} and {inverse} do not fit together")
        return TupleType((x, *scale, *(scale if self.bias else ())))

    def pullback_by(self, backward: Backward, g: Any, y: Value) -> list[Value | None]:
        return composed_pullback(backward, self.composed, g, y)

    def composed(
        self, g: Value, x: Value, centre: Value, inverse: Value, *scale: Value
    ) -> tuple[Value, ...]:
        """The results in terms of other ops."""
        unit, n = (x - centre) * inverse, count_of(x, (x.rank - 1,))
        weighted = g * unit
        if scale:
            # Σ g·scale as a product with a matrix of one column.
            column = reshape(scale[0] / n, (x.shape[-1], 1))
            first, second = matmul(g, column), matmul(weighted, column)
            gradient = (g * scale[0] - first) * inverse
        else:
            first, second = mean(g, -1, True), mean(weighted, -1, True)
            gradient = (g - first) * inverse
        gradient = gradient - inverse * second * unit
        sums = (summed_rows(weighted), summed_rows(g))[: len(scale) + self.bias]
        return broadcast_to(gradient, x.shape), *sums

    def native(self, g: Type, x: Type, *others: Type) -> Kernel | None:
        return Kernel("LayerNormGradient") if x.dtype is f32 else None

    def numpy(
        self, g: Array, x: Array, centre: Array, inverse: Array, *scale: Array
    ) -> tuple[Array, ...]:
        unit, n = (x - centre) * inverse, x.dtype.type(max(x.shape[-1], 1))
        weighted = g * scale[0] if scale else g
        first = weighted.sum(-1, keepdims=True) / n
        second = (weighted * unit).sum(-1, keepdims=True) / n
        axes = tuple(range(x.ndim - 1))
        sums = (np.sum(g * unit, axes), np.sum(g, axes))[: len(scale) + self.bias]
        return (weighted - first - second * unit) * inverse, *sums

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        def types(x: Type) -> tuple[Type, ...]:
            row = x.with_shape((*x.shape[:-1], 1))
            return x, x, row, row

        yield Sample(cls(True), (*types(f32["n", 5]), f32[5]))
        yield Sample(cls(False), (*types(f32["n", "m", 4]), f32[4]))
        yield Sample(cls(False), types(f32[2, "n", 3]))
        yield Sample(cls(True), (*types(f64["n", "k + 1"]), f64["k + 1"]))


class BatchNormGradient(Composed, Op, Native):
    """From the gradient at y of `BatchNorm`, and its x, scale, m and 1/√(v + epsilon): the
    gradients at x, at the scale and at the bias."""

    mixes = True

    def infer(self, g: Type, x: Type, scale: Type, centre: Type, inverse: Type) -> TupleType:
        require_real(x)
        channel = x.shape[1:2]
        fits = x.rank >= 2 and same_shape(g.shape, x.shape) is True
        if not fits or any(same_shape(t.shape, channel) is not True for t in (centre, inverse)):
            raise ShapeError(f"{g}, {x}, {scale}, {centre} and {inverse} do not fit together")
        return TupleType((x, scale, scale))

    def pullback_by(self, backward: Backward, g: Any, y: Value) -> list[Value | None]:
        return composed_pullback(backward, self.composed, g, y)

    def composed(
        self, g: Value, x: Value, scale: Value, centre: Value, inverse: Value
    ) -> tuple[Value, ...]:
        """The results in terms of other ops."""
        shape, axes = channel_shape(x), all_but_channels(x)
        n = at_least_one(count_of(x, axes))
        distance = x - reshape(centre, shape)
        # The gradient at x is linear in the distance from the mean; Σ distance = 0.
        total, projection = Sum(axes)(g), Sum(axes)(g * distance)
        gain = scale * inverse
        factor = -(gain * inverse * inverse * projection)
        gradient = g * reshape(gain, shape) + ChannelAffine()(
            distance, factor / n, -(gain * total) / n
        )
        return broadcast_to(gradient, x.shape), projection * inverse, total

    def native(self, g: Type, x: Type, *others: Type) -> Kernel | None:
        return Kernel("BatchNormGradient") if x.dtype is f32 else None

    def numpy(
        self, g: Array, x: Array, scale: Array, centre: Array, inverse: Array
    ) -> tuple[Array, ...]:
        axes, channels = (0, *range(2, x.ndim)), (-1, *(1,) * (x.ndim - 2))
        n = x.dtype.type(max(x.size // max(x.shape[CHANNELS], 1), 1))
        distance = x - centre.reshape(channels)
        total, projection = g.sum(axes), (g * distance).sum(axes)
        gain = scale * inverse
        factor, shift = gain * inverse * inverse * projection / n, gain * total / n
        moved = distance * factor.reshape(channels) + shift.reshape(channels)
        return g * gain.reshape(channels) - moved, projection * inverse, total

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for x in (f32["n", 3], f32["n", 2, "h", "w"], f64[3, "c", 2]):
            yield Sample(cls(), (x, x, *(Type(x.dtype, x.shape[1:2]),) * 3))


def all_but_channels(x: Value) -> tuple[int, ...]:
    """The axes that a channel's statistics are taken over."""
    return (0, *range(2, x.rank))


def channel_shape(x: Value) -> tuple[Dim, ...]:
    """The shape in which one number for each channel broadcasts to x."""
    return (1, x.shape[CHANNELS], *(1,) * (x.rank - 2))


def at_least_one(n: Any) -> Any:
    """A count to divide by."""
    return n if isinstance(n, int) else maximum(n, 1)


def summed_rows(x: Value) -> Value:
    """The sum over all axes but the last."""
    rows = product(x.shape[:-1])
    return Sum((0,))(reshape(x, (rows, x.shape[-1])))
