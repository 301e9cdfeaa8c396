"""Checks of the options and of x for layers that slide a kernel; errors name the layer."""

from __future__ import annotations

from typing import Any

from dsl.layers.base import Layer
from dsl.layers.known_sizes import known_size
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError, whole_number
from nncompile.ir.op import Value
from nncompile.ops.convolution.functions import check_padding_mode
from nncompile.ops.windows.convolution import Window, numbers, pads_of
from nncompile.ops.windows.space import form_of


def check_channels(layer: Layer, out_channels: Any, groups: Any = 1) -> None:
    """Raises `ModelError` where the groups do not divide the output channels."""
    kind = type(layer).__name__
    count = whole_number(f"{kind}: out_channels", out_channels, 1)
    if count % whole_number(f"{kind}: groups", groups, 1):
        raise ModelError(
            f"{kind}: {groups} groups do not divide out_channels={out_channels}",
            hint="each group computes an equal share of the output channels",
        )


def check_options(layer: Any) -> None:
    """Raises `ModelError` or `ShapeError` for a kernel size, stride, padding, dilation or
    activation that is not valid, before there is an x."""
    kind, activation = type(layer).__name__, layer.activation
    axes = layer.axes
    windows = {}
    for name in ("kernel_size", "stride", "dilation"):
        option = getattr(layer, name)
        if callable(option):
            raise ModelError(
                f"{kind}: the {name} must be a number, got the function {option!r}",
                hint=f"{kind}(16, 3, activation=relu)",
            )
        try:
            windows[name] = numbers(f"{name} of {kind}", option, axes, 1)
        except ShapeError as error:
            raise ModelError(error.problem, hint=error.hint) from None
    strides = windows["stride"]
    no_pads = (0,) * (2 * axes)
    extents = Window(windows["kernel_size"], strides, no_pads, windows["dilation"]).extents
    pads_of(layer.padding, strides, extents, strides, kind)
    check_padding_mode(kind, getattr(layer, "padding_mode", "zeros"))
    if activation is not None and not callable(activation):
        raise ModelError(
            f"the activation of {kind} must be a function, got {activation!r}",
            hint=f"{kind}(16, 3, activation=relu), with relu from dsl",
        )


CHANNELS_SECOND = "the channels are axis 1: moveaxis(x, -1, 1) moves them there from the end"


def channels_of(layer: Layer, x: Value, axes: int, groups: int = 1) -> int:
    """The number of channels of x, once it is known to fit the layer."""
    kind = type(layer).__name__
    if not x.dtype.is_float:
        raise DTypeError(
            f"{kind} needs floating numbers, x is {x.type}", hint="x.astype(f32) converts"
        )
    if x.rank != axes + 2:
        raise ShapeError(
            f"{kind} needs {form_of(axes)}, x is {x.type}",
            hint="expand_dims(x, 1) adds an axis for a single channel"
            if x.rank == axes + 1
            else None,
        )
    channels = known_size(
        f"{kind} needs a known number of channels, x is {x.type}", x, 1, CHANNELS_SECOND
    )
    if channels % groups:
        raise ShapeError(
            f"{kind}: {groups} groups do not divide the {channels} channels of x, {x.type}",
            hint="each group sees an equal share of the channels",
        )
    return channels


def check_habits(layer: Any, x: Value, is_transposed: bool = False) -> None:
    """Tells where the kernel does not fit because channels come last, or the options are in
    torch's order."""
    kind, kernel, sizes = type(layer).__name__, layer.kernel_size, x.shape[2:]
    _check_order(layer, x)
    if is_transposed or not isinstance(kernel, int) or layer.padding not in (0, "valid"):
        return
    small = [size for size in sizes if isinstance(size, int) and size < kernel]
    hint = None
    if small and isinstance(layer.stride, int) and layer.stride > 1:
        hint = _torch_order(layer)
    elif small == [sizes[-1]] and len(sizes) > 1 and sizes[-1] in (1, 3, 4):
        hint = CHANNELS_SECOND
    if hint is not None:
        raise ShapeError(
            f"{kind}: a kernel of size {kernel} does not fit an axis of size {small[0]}, x is "
            f"{x.type}",
            hint=hint,
        )


def _check_order(layer: Any, x: Value) -> None:
    """Refuses three numbers in a row which are hardly filters, kernel and stride, but torch's
    channels, filters and kernel: there are as many filters as x has channels, and the kernel is
    longer than the stride by far, or the stride one that kernels have."""
    kind, kernel, stride = type(layer).__name__, layer.kernel_size, layer.stride
    if layer._positional_count < 3 or not isinstance(kernel, int) or not isinstance(stride, int):
        return
    is_odd = kernel > stride >= 3 and stride % 2 == 1
    if layer.out_channels == x.shape[1] and (is_odd or kernel >= max(8, 2 * stride)):
        raise ModelError(
            f"{kind}({layer.out_channels}, {kernel}, {stride}) has {layer.out_channels} filters of "
            f"size {kernel} with stride {stride}, and x has {x.shape[1]} channels: {x.type}",
            hint=f"{_torch_order(layer)}; if the stride is meant, write stride={stride}",
        )


def _torch_order(layer: Any) -> str:
    kind, kernel, stride = type(layer).__name__, layer.kernel_size, layer.stride
    return (
        f"the number of channels follows from x: {kind}({kernel}, {stride}) "
        f"has {kernel} filters of size {stride}"
    )
