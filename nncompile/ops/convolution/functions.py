"""`conv` and `conv_transpose`: convolutions with their options in the forms that people write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncompile.diagnostics.errors import DTypeError, ShapeError, did_you_mean, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value
from nncompile.ir.dims import Dim, Shape, dim, same_shape
from nncompile.ir.op import Value, described
from nncompile.ir.types import Type
from nncompile.ops.convolution.checks import beside_axes, check_operands, kernel_of
from nncompile.ops.convolution.convolve import Conv, ConvTranspose
from nncompile.ops.shape.padding import TORCH_MODES, extended
from nncompile.ops.shape.slicing import padded
from nncompile.ops.windows.convolution import Window, explicit, numbers, pads_of
from nncompile.ops.windows.space import LEAD, axis_of


@suggests_names
def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    *,
    what: str = "conv",
) -> Value:
    """x[N, C, *sizes] with the kernels weight[O, C/groups, *kernel] slid over it, plus bias[O]:
    `[N, O, *results]` with ⌊(size + pads − dilation·(kernel − 1) − 1)/stride⌋ + 1 results along
    each axis. torch's `conv1d`, `conv2d`, `conv3d`, along any number of axes.

    `stride` and `dilation` are a number, or one for each axis. `padding` is a number, a number or
    a pair (before, after) for each axis, or a name: "valid" (none), "same" (⌈size/stride⌉ results;
    of an odd number of zeros the last one comes after) or "causal" (one axis: all zeros before).
    A negative number removes elements. With "same" and strides, the padding of an axis of symbolic
    size is symbolic. `padding_mode` says what is padded, by torch's names: "zeros", "reflect"
    (mirrored at the outermost element), "replicate" (that element) or "circular" (from the other
    end). Raises `ShapeError`, which begins with `what`, where ranks, channels or groups do not fit,
    and where the kernel is larger than x with its padding.

    >>> from nncompile.ir.graph import Input
    >>> from nncompile.ir.types import f32
    >>> x, w = Input("x", f32["n", 3, "h", 32])(), Input("w", f32[8, 3, 3, 3])()
    >>> conv(x, w, padding="same"), conv(x, w, stride=2)
    (<conv : f32[n, 8, h, 32]>, <conv : f32[n, 8, (h + 1)//2 - 1, 15]>)
    >>> conv(x, w, stride=2, padding="same")
    <conv : f32[n, 8, (h + 1)//2, 16]>
    """
    x = as_value(x)
    args = [as_value(a, x) for a in ((weight,) if bias is None else (weight, bias))]
    kernel = _spatial(what, x, args[0])
    strides = numbers(f"stride of {what}", stride, kernel.rank - 2, 1)
    dilations = numbers(f"dilation of {what}", dilation, kernel.rank - 2, 1)
    window = Window(kernel_of(kernel), strides, (0,) * (2 * len(strides)), dilations)
    widths = pads_of(padding, x.shape[2:], window.extents, strides, what)
    check_padding_mode(what, padding_mode)
    half = len(widths) // 2
    mode = TORCH_MODES[padding_mode]
    pads, before, after = (
        explicit(widths)
        if mode == "constant"
        else ((0,) * len(widths), widths[:half], widths[half:])
    )
    _check_fit(what, x, Window(window.kernel, strides, pads, dilations), before, after)
    sides = (0, 0, *before), (0, 0, *after)
    x = padded(x, *sides) if mode == "constant" else extended(x, *sides, mode)
    op = Conv(strides, pads, dilations, whole_number(f"the groups of {what}", groups, 1))
    return op(x, *args)


@suggests_names
def conv_transpose(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    what: str = "conv_transpose",
) -> Value:
    """The transpose of a convolution: x[N, C, *sizes] and weight[C, O/groups, *kernel], plus
    bias[O], to `[N, O, *results]` with (size − 1)·stride − pads + dilation·(kernel − 1) + 1 +
    output_padding results along each axis. torch's `conv_transpose1d`, `2d`, `3d`; weights are laid
    out as there.

    `padding` cuts that much off the result (a negative number adds zeros to it), a number, a number
    or a pair (before, after) for each
    axis, or "valid" (none) or "same" (size·stride results); `output_padding`, less than the stride
    or the dilation, adds results at the end. Raises `ShapeError`, which begins with `what`, where
    things do not fit.
    """
    x = as_value(x)
    weights = as_value(weight, x)
    kernel = _spatial(what, x, weights)
    rank = kernel.rank - 2
    strides = numbers(f"stride of {what}", stride, rank, 1)
    dilations = numbers(f"dilation of {what}", dilation, rank, 1)
    window = Window(kernel_of(kernel), strides, (0,) * (2 * rank), dilations)
    extra = numbers(f"output padding of {what}", output_padding, rank, 0)
    if padding == "same":
        spans = list(zip(window.extents, strides, strict=True))
        extra = tuple(m + max(s - e, 0) for m, (e, s) in zip(extra, spans, strict=True))
    if padding == "causal":
        raise ShapeError(
            f'{what}: padding must be a number, "valid" or "same", got "causal"',
            hint="it never looks ahead; padding=((0, kernel - stride),) leaves size·stride results",
        )
    # "same" is that of the convolution which makes `size` of size·stride.
    pads, *removed = explicit(pads_of(padding, strides, window.extents, strides, what))
    for m, s, d in zip(extra, strides, dilations, strict=True):
        if m >= max(s, d):
            raise ShapeError(
                f"{what}: the output padding {m} is not less than stride {s} or dilation {d}",
                hint="one more element of x gives as many more results",
            )
    # The op makes less than a stride more. Beyond that, there is what the padding would cut off
    # at the end, and then zeros.
    within = [min(m, s - 1) for m, s in zip(extra, strides, strict=True)]
    uncut = [min(m - w, a) for m, w, a in zip(extra, within, pads[rank:], strict=True)]
    excess = [m - w - u for m, w, u in zip(extra, within, uncut, strict=True)]
    pads = (*pads[:rank], *(a - u for a, u in zip(pads[rank:], uncut, strict=True)))
    sizes = _transposed_sizes(what, x, Window(window.kernel, strides, pads, dilations), within)
    number = whole_number(f"the groups of {what}", groups, 1)
    op = ConvTranspose(sizes, strides, pads, dilations, number)
    y: Value = op(x, weights)
    # Where the convolution leaves elements of x out, its transpose has zeros.
    first, last = ([dim(-width) for width in side] for side in removed)
    ends: Any = zip(last, excess, strict=True)
    y = padded(y, (0, 0, *first), (0, 0, *(dim(a + b) for a, b in ends)))
    if bias is None:
        return y
    b = as_value(bias, x)
    if same_shape(b.shape, y.shape[1:2]) is not True:
        raise ShapeError(
            f"{what}: the bias needs one number for each of {y.shape[1]} channels, got {b.type}"
        )
    total: Value = y + beside_axes(b, rank)
    return total


def check_padding_mode(what: str, mode: Any) -> None:
    """Raises `ShapeError` where it is none of torch's names."""
    if mode not in TORCH_MODES:
        raise ShapeError(
            f"{what}: padding_mode must be one of {', '.join(TORCH_MODES)}, got {mode!r}",
            hint=did_you_mean(str(mode).lower(), list(TORCH_MODES)),
        )


def _spatial(name: str, x: Value, w: Value) -> Type:
    """The type of the weights, after a look at the ranks, which all else is counted by."""
    try:
        check_operands(x.type, w.type)
    except (ShapeError, DTypeError) as error:
        rows = [("x", str(x.type)), ("weight", str(w.type))]
        raise type(error)(f"{name}: {error.problem}", rows=rows, hint=error.hint) from None
    result: Type = w.type
    return result


def _check_fit(
    what: str, x: Value, window: Window, before: Sequence[Dim], after: Sequence[Dim]
) -> None:
    """Raises `ShapeError` where the kernel is known to be larger than x with its padding, or this
    to remove more than there is."""
    axes: list[Any] = list(zip(before, x.shape[LEAD:], after, strict=True))
    try:
        for axis, sizes in enumerate(axes):
            if all(isinstance(size, int) for size in sizes) and min(sizes) < -sizes[1]:
                raise ShapeError(
                    f"the padding {sizes[::2]} removes more than the {sizes[1]} elements of "
                    f"{axis_of(axis, window.rank)}"
                )
        window.results(tuple(dim(b + n + a) for b, n, a in axes))
    except ShapeError as error:
        rows = [("x", *described(x)), ("kernel", "×".join(map(str, window.kernel)))]
        raise ShapeError(f"{what}: {error.problem}", rows=rows, hint=error.hint) from None


def _transposed_sizes(what: str, x: Value, window: Window, extra: Sequence[int]) -> Shape:
    """The sizes of a transposed convolution."""
    sizes: list[Dim] = []
    for axis, n in enumerate(x.shape[2:]):
        pads = window.before[axis] + window.after[axis]
        span: Any = (n - 1) * window.strides[axis] + window.extents[axis]
        size = dim(span - pads + extra[axis])
        if isinstance(size, int) and size < 1:
            raise ShapeError(
                f"{what}: the padding cuts all of {axis_of(axis, window.rank)} off: its size "
                f"would be {size}",
                rows=[("x", *described(x))],
                hint="less padding",
            )
        sizes.append(size)
    return tuple(sizes)
