"""Layers that slide a kernel over one, two or three axes: convolutions, depthwise, separable and
transposed ones. Data are `[batch, channels, *sizes]`, as in torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dsl.initializers import Fans, glorot_uniform, zeros
from dsl.layers.base import Layer
from dsl.layers.convolution_checks import channels_of, check_channels, check_habits, check_options
from nncompile.diagnostics.errors import whole_number
from nncompile.ir.basic import as_value
from nncompile.ir.op import Value
from nncompile.ops import conv, conv_transpose
from nncompile.ops.windows.convolution import numbers

Function = Callable[[Any], Any]


# The options, each declared once. A class that joins several has those of the last one first.


class _Filters(Layer):
    out_channels: int


class _Window(Layer):
    kernel_size: Any
    stride: Any = 1
    padding: Any = 0

    axes = 2  # spatial ones


class _Grouped(Layer):
    dilation: Any = 1
    groups: int = 1
    activation: Function | None = None
    bias: bool = True
    init: Any = glorot_uniform
    bias_init: Any = zeros


class _Multiplied(_Window):
    dilation: Any = 1
    depth_multiplier: int = 1
    activation: Function | None = None
    bias: bool = True
    init: Any = glorot_uniform
    bias_init: Any = zeros
    padding_mode: str = "zeros"

    def __post_init__(self) -> None:
        whole_number(f"{type(self).__name__}: depth_multiplier", self.depth_multiplier, 1)
        check_options(self)


class _Spread(_Window):
    output_padding: Any = 0


class _Convolution(_Grouped, _Window, _Filters):
    """What the layers of all numbers of axes have in common."""

    padding_mode: str = "zeros"

    def __post_init__(self) -> None:
        check_channels(self, self.out_channels, self.groups)
        check_options(self)

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        channels = channels_of(self, x, self.axes, self.groups)
        check_habits(self, x)
        per_group = channels // self.groups
        kernel = numbers("kernel_size", self.kernel_size, self.axes, 1)
        taps = math.prod(kernel)
        fans = per_group * taps, self.out_channels // self.groups * taps
        shape = (self.out_channels, per_group, *kernel)
        w = self.parameter("weight", shape, self.init, x.dtype, fans)
        bias = _bias(self, self.out_channels, x)
        options = self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        return _activated(self, conv(x, w, bias, *options, what=type(self).__name__))


class Conv1d(_Convolution):
    """activation(w ∗ x + b) along one axis: `[batch, channels, n]` to `[batch, out_channels, m]`,
    with m = ⌊(n + pads − dilation·(kernel − 1) − 1)/stride⌋ + 1.

    `padding` is a number, a pair `((before, after),)`, or "valid" (none), "same" (m = ⌈n/stride⌉,
    also of an n that only the data tell) or "causal" (zeros before only: no result sees what comes
    later); a negative number removes elements. `padding_mode` is "zeros", or what torch puts there
    in their place: "reflect", "replicate" or "circular". `groups` cuts the channels of both sides
    into groups that do not see each other. Parameters `weight`
    `[out_channels, channels/groups, kernel]`, Glorot uniform, and `bias` `[out_channels]`, zeros.
    Raises `ShapeError` where x has another rank, channels that only the data tell, that the groups
    do not divide, or fewer elements than the kernel spans.

    >>> Conv1d(16, 3, padding="causal", dilation=2)  # doctest: +ELLIPSIS
    Conv1d(out_channels=16, kernel_size=3, stride=1, padding='causal', dilation=2, groups=1, ...)
    """

    axes = 1


class Conv2d(_Convolution):
    """activation(w ∗ x + b) over images: `[batch, channels, height, width]` to
    `[batch, out_channels, …, …]`.

    `kernel_size`, `stride`, `padding` and `dilation` are a number, or one for each axis; padding
    also a pair (before, after) for each axis, "valid" or "same". Sizes, parameters and errors as of
    `Conv1d`.
    """

    axes = 2


class Conv3d(_Convolution):
    """activation(w ∗ x + b) over volumes: `[batch, channels, depth, height, width]` to
    `[batch, out_channels, …, …, …]`; otherwise as `Conv2d`."""

    axes = 3


class DepthwiseConv2d(_Multiplied):
    """A convolution in which each channel is seen by `depth_multiplier` filters of its own, and by
    no others: `[batch, channels, height, width]` to `[batch, channels·depth_multiplier, …, …]`.

    Parameters `weight` `[channels·depth_multiplier, 1, *kernel]` and `bias`; the rest as of
    `Conv2d`, and the order of options as in Keras.
    """

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        channels = channels_of(self, x, 2)
        kernel = numbers("kernel_size", self.kernel_size, 2, 1)
        filters, taps = channels * self.depth_multiplier, math.prod(kernel)
        fans = taps, self.depth_multiplier * taps
        w = self.parameter("weight", (filters, 1, *kernel), self.init, x.dtype, fans)
        bias = _bias(self, filters, x)
        options = self.stride, self.padding, self.dilation, channels, self.padding_mode
        return _activated(self, conv(x, w, bias, *options, what=type(self).__name__))


class SeparableConv2d(_Multiplied, _Filters):
    """A depthwise convolution and then one of kernel 1 that mixes its channels: nearly what a
    `Conv2d` does, with kernel² times fewer products for many channels (F. Chollet, "Xception",
    2017).

    Layers `depthwise` (without bias) and `pointwise`, which has bias and activation.
    """

    def __post_init__(self) -> None:
        check_channels(self, self.out_channels)
        super().__post_init__()

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        channels_of(self, x, 2)
        check_habits(self, x)
        options = self.stride, self.padding, self.dilation
        depthwise = DepthwiseConv2d(
            self.kernel_size,
            *options,
            self.depth_multiplier,
            bias=False,
            init=self.init,
            padding_mode=self.padding_mode,
            name="depthwise",
        )
        pointwise = Conv2d(
            self.out_channels,
            1,
            activation=self.activation,
            bias=self.bias,
            init=self.init,
            bias_init=self.bias_init,
            name="pointwise",
        )
        return pointwise(depthwise(x))


class _Transposed(_Grouped, _Spread, _Filters):
    """What the transposed layers of all numbers of axes have in common."""

    def __post_init__(self) -> None:
        check_channels(self, self.out_channels, self.groups)
        check_options(self)

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        channels = channels_of(self, x, self.axes, self.groups)
        check_habits(self, x, is_transposed=True)
        per_group = self.out_channels // self.groups
        kernel = numbers("kernel_size", self.kernel_size, self.axes, 1)
        strides = numbers("stride", self.stride, self.axes, 1)
        taps = math.prod(kernel)
        # Of the taps only every stride-th meets an element of x.
        met = math.prod(math.ceil(k / s) for k, s in zip(kernel, strides, strict=True))
        fans: Fans = channels // self.groups * met, per_group * taps
        shape = (channels, per_group, *kernel)
        w = self.parameter("weight", shape, self.init, x.dtype, fans)
        bias = _bias(self, self.out_channels, x)
        options = strides, self.padding, self.output_padding, self.dilation, self.groups
        return _activated(self, conv_transpose(x, w, bias, *options, what=type(self).__name__))


class ConvTranspose1d(_Transposed):
    """activation of the transpose of a convolution, plus b: `[batch, channels, n]` to
    `[batch, out_channels, m]`, m = (n − 1)·stride − pads + dilation·(kernel − 1) + 1 +
    output_padding.

    It makes sequences longer by the stride; with padding="same", m = n·stride. Parameters `weight`
    `[channels, out_channels/groups, kernel]`, laid out as in torch, and `bias` `[out_channels]`.
    Raises `ShapeError` as `Conv1d` does, and where the padding leaves nothing.
    """

    axes = 1


class ConvTranspose2d(_Transposed):
    """The transposed convolution of images; otherwise as `ConvTranspose1d`."""

    axes = 2


class ConvTranspose3d(_Transposed):
    """The transposed convolution of volumes; otherwise as `ConvTranspose1d`."""

    axes = 3


def _bias(layer: Any, filters: int, x: Value) -> Value | None:
    if not layer.bias:
        return None
    bias: Value = layer.parameter("bias", filters, layer.bias_init, x.dtype)
    return bias


def _activated(layer: Any, y: Value) -> Value:
    if layer.activation is None:
        return y
    activated: Value = layer.activation(y)
    return activated


__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DepthwiseConv2d",
    "SeparableConv2d",
]
