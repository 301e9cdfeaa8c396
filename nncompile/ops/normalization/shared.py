"""Batch normalization whose batch may be spread over several processes."""

from __future__ import annotations

from collections.abc import Iterator

from nncompile.elementwise import maximum, sqrt
from nncompile.ir.basic import cast, size_value
from nncompile.ir.op import Sample, Value
from nncompile.ir.types import f32, f64
from nncompile.ops.normalization.batch import BatchNorm, unbiased
from nncompile.ops.normalization.channels import ChannelAffine
from nncompile.ops.normalization.gradients import all_but_channels, at_least_one, channel_shape
from nncompile.ops.reduction.moments import count_of, moments
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import reshape


class SharedBatchNorm(BatchNorm):
    """`BatchNorm` by the statistics of all processes that train together. In one process it is the
    same; several reduce `sums_of` between two parts of the graph, and go on with
    `normalized_by`."""

    def sums_of(self, x: Value) -> Value:
        """What processes add up: of each channel Σ x and Σ x², and the count; in double precision,
        f64[2·C + 1]."""
        axes = all_but_channels(x)
        n = count_of(x, axes)
        centre, _, variance = moments(x, axes, at_least_one(n), keepdims=False)
        count = cast(n, f64) if isinstance(n, Value) else size_value(n, f64)
        mean, square = cast(centre, f64), cast(variance, f64)
        return concatenate([count * mean, count * (square + mean * mean), reshape(count, (1,))], 0)

    def normalized_by(
        self, sums: Value, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
    ) -> tuple[Value, ...]:
        """The results by such sums of all processes."""
        channels, dtype = x.shape[1], x.dtype
        n = maximum(sums[-1], 1.0)
        centre = sums[:channels] / n
        spread = maximum(sums[channels:-1] / n - centre * centre, 0.0)
        inverse = cast(1 / sqrt(spread + self.epsilon), dtype)
        middle = cast(centre, dtype)
        distance = x - reshape(middle, channel_shape(x))
        old, new = 1 - self.momentum, self.momentum
        following = cast(unbiased(spread, n), dtype)
        return (
            ChannelAffine()(distance, scale * inverse, bias),
            mean * old + middle * new,
            variance * old + following * new,
            middle,
            inverse,
        )

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        types = (f32["n", 2, "l"], *(f32[2],) * 4)
        yield Sample(cls(0.1, 1e-5), types, floats=(0.1, 2.0))


def gradient_sums(g: Value, x: Value, centre: Value, weight: Value) -> Value:
    """What processes add up for the gradient at x: of each channel Σ g and Σ g·(x − m), times what
    the rows of a process weigh in the loss; f64[2·C]."""
    axes = all_but_channels(x)
    distance = x - reshape(centre, channel_shape(x))
    sums = concatenate([Sum(axes)(g), Sum(axes)(g * distance)], 0)
    return cast(sums, f64) * weight


def gradients_by(
    sums: Value,
    count: Value,
    weight: Value,
    g: Value,
    x: Value,
    scale: Value,
    centre: Value,
    inverse: Value,
) -> tuple[Value, ...]:
    """The results of `BatchNormGradient` by such sums of all processes, and the count of numbers in
    a channel of all: the gradient at x is that of the loss of this process's rows, those at scale
    and bias are its own part."""
    axes, channels, shape = all_but_channels(x), x.shape[1], channel_shape(x)
    means = cast(sums / (weight * maximum(count, 1.0)), x.dtype)
    total, projection = means[:channels], means[channels:]
    distance = x - reshape(centre, shape)
    gain = scale * inverse
    factor = -(gain * inverse * inverse * projection)
    gradient = g * reshape(gain, shape) + ChannelAffine()(distance, factor, -(gain * total))
    return gradient, Sum(axes)(g * distance) * inverse, Sum(axes)(g)
