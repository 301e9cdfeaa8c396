"""`conv` and `conv_transpose`: convolutions with their options in the forms that people write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncompile.dims import Dim, Shape, dim, same_shape
from nncompile.errors import DTypeError, ShapeError, whole_number
from nncompile.graph import Value
from nncompile.ops.basic import as_value
from nncompile.ops.convolution import Conv, ConvTranspose
from nncompile.ops.convolution_rules import beside_axes, check_operands, kernel_of
from nncompile.ops.convolution_windows import Window, numbers, pads_of
from nncompile.ops.slicing import padded
from nncompile.types import Type


def conv(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """x[N, C, *sizes] with the kernels w[O, C/groups, *kernel] slid over it, plus bias[O]:
    `[N, O, *results]` with ⌊(size + pads − dilation·(kernel − 1) − 1)/stride⌋ + 1 results along
    each axis. torch's `conv1d`, `conv2d`, `conv3d`, along any number of axes.

    `stride` and `dilation` are a number, or one for each axis. `padding` is a number, a number or
    a pair (before, after) for each axis, or a name: "valid" (none), "same" (⌈size/stride⌉ results;
    of an odd number of zeros the last one comes after) or "causal" (one axis: all zeros before).
    Raises `ShapeError` where ranks, channels or groups do not fit, where the kernel is larger than
    x with its padding, and for "same" where stride and a symbolic size leave the padding open.

    >>> from nncompile.graph import Input
    >>> from nncompile.types import f32
    >>> x, w = Input("x", f32["n", 3, "h", 32])(), Input("w", f32[8, 3, 3, 3])()
    >>> conv(x, w, padding="same"), conv(x, w, stride=2)
    (<conv : f32[n, 8, h, 32]>, <conv : f32[n, 8, (h + 1)//2 - 1, 15]>)
    """
    x = as_value(x)
    args = [as_value(a, x) for a in ((w,) if bias is None else (w, bias))]
    kernel = _spatial("conv", x, args[0])
    strides = numbers("stride", stride, kernel.rank - 2, 1)
    dilations = numbers("dilation", dilation, kernel.rank - 2, 1)
    window = Window(kernel_of(kernel), strides, (0,) * (2 * len(strides)), dilations)
    pads = pads_of(padding, x.shape[2:], window.extents, strides)
    return Conv(strides, pads, dilations, whole_number("groups", groups, 1))(x, *args)


def conv_transpose(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """The transpose of a convolution: x[N, C, *sizes] and w[C, O/groups, *kernel], plus bias[O], to
    `[N, O, *results]` with (size − 1)·stride − pads + dilation·(kernel − 1) + 1 + output_padding
    results along each axis. torch's `conv_transpose1d`, `2d`, `3d`; weights are laid out as there.

    `padding` cuts that much off the result, a number, a number or a pair (before, after) for each
    axis, or "valid" (none) or "same" (size·stride results); `output_padding`, less than the stride
    or the dilation, adds results at the end. Raises `ShapeError` where things do not fit.
    """
    x = as_value(x)
    weights = as_value(w, x)
    kernel = _spatial("conv_transpose", x, weights)
    rank = kernel.rank - 2
    strides = numbers("stride", stride, rank, 1)
    dilations = numbers("dilation", dilation, rank, 1)
    window = Window(kernel_of(kernel), strides, (0,) * (2 * rank), dilations)
    more = numbers("output padding", output_padding, rank, 0)
    if padding == "same":
        # That of the convolution which makes `size` of size·stride.
        spans = list(zip(window.extents, strides, strict=True))
        pads = pads_of("same", strides, window.extents, strides)
        more = tuple(m + max(s - e, 0) for m, (e, s) in zip(more, spans, strict=True))
    elif padding == "causal":
        raise ShapeError('conv_transpose: padding is a number, "valid" or "same", got "causal"')
    else:
        pads = pads_of(padding, x.shape[2:], window.extents, strides)
    for m, s, d in zip(more, strides, dilations, strict=True):
        if m >= max(s, d):
            raise ShapeError(
                f"conv_transpose: the output padding {m} is not less than stride {s} or "
                f"dilation {d}"
            )
    # The card makes less than a stride more. Beyond that, there is what the padding would cut off
    # at the end, and then zeros.
    within = [min(m, s - 1) for m, s in zip(more, strides, strict=True)]
    uncut = [min(m - w, a) for m, w, a in zip(more, within, pads[rank:], strict=True)]
    beyond = [m - w - u for m, w, u in zip(more, within, uncut, strict=True)]
    pads = (*pads[:rank], *(a - u for a, u in zip(pads[rank:], uncut, strict=True)))
    sizes = _transposed_sizes(x, Window(window.kernel, strides, pads, dilations), within)
    op = ConvTranspose(sizes, strides, pads, dilations, whole_number("groups", groups, 1))
    y: Value = op(x, weights)
    y = padded(y, [0] * y.rank, (0, 0, *beyond))
    if bias is None:
        return y
    b = as_value(bias, x)
    if same_shape(b.shape, y.shape[1:2]) is not True:
        raise ShapeError(
            f"conv_transpose: the bias is one number for each of {y.shape[1]} channels, got "
            f"{b.type}"
        )
    total: Value = y + beside_axes(b, rank)
    return total


def _spatial(name: str, x: Value, w: Value) -> Type:
    """The type of the weights, after a look at the ranks, which all else is counted by."""
    try:
        check_operands(x.type, w.type)
    except (ShapeError, DTypeError) as error:
        rows = [("x", str(x.type)), ("weight", str(w.type))]
        raise type(error)(f"{name}: {error.message}", rows=rows, hint=error.hint) from None
    return w.type  # type: ignore[no-any-return]


def _transposed_sizes(x: Value, window: Window, more: Sequence[int]) -> Shape:
    """The sizes of a transposed convolution."""
    sizes: list[Dim] = []
    for axis, n in enumerate(x.shape[2:]):
        pads = window.before[axis] + window.after[axis]
        covered: Any = (n - 1) * window.strides[axis] + window.extents[axis]
        size = dim(covered - pads + more[axis])
        if isinstance(size, int) and size < 1:
            raise ShapeError(
                f"conv_transpose: the padding cuts all of spatial axis {axis} off: its size would "
                f"be {size}",
                rows=[("x", str(x.type))],
            )
        sizes.append(size)
    return tuple(sizes)
