"""Layers that normalize: batch, layer, group, instance and RMS normalization.

Names, defaults and conventions are torch's; the axis of channels is 1. Parameters are `weight`
(the scale, starting at 1) and `bias` (at 0).
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from dsl.initializers import ones, zeros
from dsl.layers.base import Layer
from dsl.layers.convolution_checks import CHANNELS_SECOND
from dsl.layers.known_sizes import known_size
from nncompile.diagnostics.errors import ModelError, ShapeError, whole_number
from nncompile.diagnostics.options import real
from nncompile.elementwise import maximum, minimum
from nncompile.ir.basic import cast, floating, size_value
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import product
from nncompile.ir.op import Value
from nncompile.ir.types import i64
from nncompile.ops import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
)
from nncompile.ops.normalization.batch import positive_epsilon
from nncompile.ops.normalization.channels import CHANNELS


class BatchNorm(Layer):
    """Batch normalization of `[batch, channels, *sizes]`, with any number of sizes: mean 0 and
    variance 1 in each channel over the batch while training, by the running mean and variance in
    inference; then times `weight`[channels] and plus `bias`[channels] where it is `affine`
    (`bias=False` leaves that one out).

    The states `running_mean` and `running_var` follow the batches, `next = (1 − momentum)·now +
    momentum·batch`, the variance being the unbiased one there and the biased one in normalizing.
    That is torch's convention; Keras's momentum 0.99 is 0.01 here. With `momentum=None` they are
    the means of all batches so far, which the state `num_batches_tracked` counts. A batch of one
    number a channel, which torch refuses, gives the bias, and counts with the variance 0.
    `track_running_stats=False` keeps none: then the batch's own mean and variance are those of
    inference, too, where an example's result depends on the others.

    Of a batch that several processes share, each normalizes its rows by their own statistics; with
    `sync=True`, by those of the whole batch, as one process does, which takes two reductions for
    each such layer.

    Raises `ShapeError` for an x without channels or whose number of channels only the data tell,
    `DTypeError` where it is not floating.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True
    bias: bool = True
    sync: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_epsilon("BatchNorm", self.eps)
        if self.momentum is None:
            return
        if not 0 <= real("the momentum of BatchNorm", self.momentum) <= 1:
            raise ModelError(
                f"the momentum of BatchNorm must be in [0, 1], got {self.momentum!r}",
                hint="it is the weight of the new batch, as in torch: 0.99 in Keras is 0.01 here",
            )

    def __call__(self, x: Any) -> Value:
        x = _channelled("BatchNorm", x, 2)
        shape = (x.shape[CHANNELS],)
        zero, one = full(shape, 0, x.dtype), full(shape, 1, x.dtype)
        mean, variance = zero, one
        if self.track_running_stats:
            mean = self.state("running_mean", shape, zeros, x.dtype)
            variance = self.state("running_var", shape, ones, x.dtype)
        scale, bias = _affine(self, x, shape, self.affine, self.bias)
        scale, bias = one if scale is None else scale, zero if bias is None else bias
        momentum = 1.0 if self.momentum is None else self.momentum
        tracked = self.track_running_stats
        y, next_mean, next_variance = batch_norm(
            x, scale, bias, mean, variance, momentum, self.eps, tracked, self.sync
        )
        if not tracked:
            return y
        if self.momentum is None:
            # An empty batch leaves the statistics as they are, and does not count.
            share = self._share(minimum(size_value(product(x.shape)), 1), x)
            next_mean = (1 - share) * mean + share * next_mean
            next_variance = (1 - share) * variance + share * next_variance
        self.update("running_mean", next_mean)
        self.update("running_var", next_variance)
        return y

    def _share(self, batches: Value, x: Value) -> Value:
        """The share of one more batch in all batches so far; counts it."""
        count = self.state("num_batches_tracked", (), zeros, i64) + batches
        self.update("num_batches_tracked", count)
        return 1 / cast(maximum(count, 1), x.dtype)


class LayerNorm(Layer):
    """Mean 0 and variance 1 over the last `axes` axes of each example, times `weight` and plus
    `bias` of the shape of these axes where it is `elementwise_affine` (`bias=False` leaves that one
    out).

    Raises `ShapeError` where x has fewer axes, or the data alone tell the size of one that the
    parameters need, `DTypeError` where it is not floating.
    """

    axes: int = field(default=1, kw_only=True)  # first, it would be mistaken for the size
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        _check_axes("LayerNorm", self.axes)
        _check_epsilon("LayerNorm", self.eps, SIZE_OF_X)

    def __call__(self, x: Any) -> Value:
        x = floating("LayerNorm", x)
        shape = _last_axes("LayerNorm", x, self.axes, self.elementwise_affine)
        scale, bias = _affine(self, x, shape, self.elementwise_affine, self.bias)
        return layer_norm(x, scale, bias, self.axes, self.eps)


class RMSNorm(Layer):
    """x divided by its root mean square over its last `axes` axes, times `weight` of the shape of
    these axes where it is `elementwise_affine`. Without `eps` it is the smallest step from 1 of x's
    element type, as torch's.

    Raises `ShapeError` where x has fewer axes, or the data alone tell the size of one that the
    weight needs, `DTypeError` where it is not floating.
    """

    axes: int = field(default=1, kw_only=True)
    eps: float | None = None
    elementwise_affine: bool = True

    def __post_init__(self) -> None:
        _check_axes("RMSNorm", self.axes)
        if self.eps is not None:
            _check_epsilon("RMSNorm", self.eps, SIZE_OF_X)

    def __call__(self, x: Any) -> Value:
        x = floating("RMSNorm", x)
        shape = _last_axes("RMSNorm", x, self.axes, self.elementwise_affine)
        scale, _ = _affine(self, x, shape, self.elementwise_affine, False)
        return rms_norm(x, scale, self.axes, self.eps)


class GroupNorm(Layer):
    """Mean 0 and variance 1 in each of `num_groups` groups of channels of each example of
    `[batch, channels, *sizes]`, times `weight`[channels] and plus `bias`[channels] where it is
    `affine` (`bias=False` leaves that one out).

    Raises `ShapeError` where x has no channels or the groups do not divide them, `DTypeError`
    where it is not floating.
    """

    num_groups: int
    eps: float = 1e-5
    affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        whole_number("num_groups of GroupNorm", self.num_groups, least=1)
        _check_epsilon("GroupNorm", self.eps, options=f"{self.num_groups}")

    def __call__(self, x: Any) -> Value:
        x = _channelled("GroupNorm", x, 2)
        if x.shape[CHANNELS] % self.num_groups:
            raise ShapeError(
                f"GroupNorm: {self.num_groups} groups do not divide {x.shape[CHANNELS]} channels, "
                f"x is {x.type}",
                hint="choose a number of groups that divides the channels",
            )
        scale, bias = _affine(self, x, x.shape[1:2], self.affine, self.bias)
        return group_norm(x, self.num_groups, scale, bias, self.eps)


class InstanceNorm(Layer):
    """Mean 0 and variance 1 in each channel of each example of `[batch, channels, *sizes]`, with
    at least one size; times `weight`[channels] and plus `bias`[channels] where it is `affine`
    (not by default, as torch's; `bias=False` leaves the bias out). A channel of one number,
    which torch refuses, gives the bias.

    Raises `ShapeError` where x has no sizes, `DTypeError` where it is not floating.
    """

    eps: float = 1e-5
    affine: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        _check_epsilon("InstanceNorm", self.eps)

    def __call__(self, x: Any) -> Value:
        x = _channelled("InstanceNorm", x, 3)
        scale, bias = _affine(self, x, x.shape[1:2], self.affine, self.bias)
        return instance_norm(x, scale, bias, self.eps)


CHANNELS_OF_X = "the number of channels follows from x"
SIZE_OF_X = "normalizes the last axis, whose size follows from x"


def _check_epsilon(name: str, eps: Any, instead: str = CHANNELS_OF_X, options: str = "") -> None:
    """That it is a small number, and not a size, as torch has one in its place."""
    if isinstance(eps, list | tuple):
        raise ModelError(
            f"the eps of {name} must be a small number such as 1e-5, got {eps!r}",
            hint=_over(name, eps),
        )
    if isinstance(eps, int | float) and eps >= 1:
        axes_hint = f"; {name}(axes={eps}) normalizes the last {eps}" if eps in (2, 3) else ""
        raise ModelError(
            f"the eps of {name} must be a small number such as 1e-5, got {eps}",
            hint=f"{name}({options}){' ' if instead is SIZE_OF_X else ': '}{instead}"
            f"{axes_hint if instead is SIZE_OF_X else ''}",
        )
    positive_epsilon(name, eps)


def _over(name: str, sizes: Any) -> str:
    axes = f"axes={len(sizes)}" if len(sizes) > 1 else ""
    return f"{name}({axes}): the sizes follow from x"


def _check_axes(name: str, axes: Any) -> None:
    """That it is a number of axes, not their sizes."""
    if isinstance(axes, list | tuple):
        raise ModelError(
            f"the axes of {name} are a number of axes, got {axes!r}",
            hint=_over(name, axes),
        )
    whole_number(f"the axes of {name}", axes, least=1)


def _affine(
    layer: Layer, x: Value, shape: tuple[Any, ...], affine: bool, with_bias: bool = True
) -> tuple[Value | None, Value | None]:
    """The scale and the bias of a layer; None for one that it lacks."""
    if not affine:
        return None, None
    scale = layer.parameter("weight", shape, ones, x.dtype)
    return scale, layer.parameter("bias", shape, zeros, x.dtype) if with_bias else None


def _channelled(name: str, x: Any, rank: int) -> Value:
    """x, which has at least `rank` axes, that of the channels of known size."""
    value = floating(name, x)
    form = "[batch, channels, …]" if rank == 2 else "[batch, channels, size, …]"
    if value.rank < rank:
        raise ShapeError(f"{name} needs {form}, x is {value.type}")
    known_size(
        f"{name} needs a known number of channels, axis {CHANNELS}, x is {value.type}",
        value,
        CHANNELS,
        CHANNELS_SECOND,
    )
    return value


def _last_axes(name: str, x: Value, axes: int, affine: bool) -> tuple[Any, ...]:
    """The sizes of the last axes, which are known where parameters have them."""
    if x.rank < axes:
        raise ShapeError(
            f"{name} normalizes the last {axes} axes, x is {x.type}",
            hint=f"{name}() normalizes the last one, whose size follows from x",
        )
    shape = x.shape[x.rank - axes :]
    for axis in range(x.rank - axes, x.rank) if affine else ():
        known_size(
            f"{name} needs last axes of known size for its weights, x is {x.type}",
            x,
            axis,
            "elementwise_affine=False has no weights",
        )
    return shape


class LocalResponseNorm(Layer):
    """x/(k + α·m)^β over [batch, channels, *space], m the mean of the squares of the `size`
    channels around each; without parameters, as torch's. Raises `ModelError` for a size below 1."""

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def __post_init__(self) -> None:
        whole_number("LocalResponseNorm: size", self.size, 1)

    def __call__(self, x: Any) -> Value:
        options = self.size, self.alpha, self.beta, self.k
        return local_response_norm(x, *options, what="LocalResponseNorm")


__all__ = [
    "BatchNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]
