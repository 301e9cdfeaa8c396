"""Space and channels exchanged: patches of images as columns and back, pixels as channels and back.

All is made of slices and moved axes, so that any element type, size and order of gradients works.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import add
from nncompile.ir.basic import as_value
from nncompile.ir.dims import Dim, Shape, dim, floordiv, product, same, with_axis
from nncompile.ir.op import Value, described
from nncompile.ops.shape.joining import stack
from nncompile.ops.shape.reshape import moveaxis, reshape, squeeze, transpose
from nncompile.ops.shape.slicing import along, padded, spaced
from nncompile.ops.windows.convolution import Window, numbers, pads_of
from nncompile.ops.windows.pooling import per_axis
from nncompile.ops.windows.space import LEAD


@suggests_names
def unfold(
    x: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
    *,
    what: str = "unfold",
) -> Value:
    """The patches of `x` [batch, channels, *space] that a kernel slides over, as columns:
    [batch, channels·∏kernel, patches], also called im2col; torch's `unfold`, along any number of
    axes.

    Options are those of `conv`, in torch's order; zeros are padded. Rows are in the order of the
    channels and then of the kernel, columns in that of the space, the last axis fastest. Raises
    `ShapeError`, which begins with `what`, where the kernel is larger than `x` with its padding.

    >>> from nncompile.ir.interpreter import evaluate
    >>> evaluate(unfold([[[1.0, 2.0, 3.0, 4.0]]], 2, stride=2), {}).tolist()
    [[[1.0, 3.0], [2.0, 4.0]]]
    """
    x = _spatial(what, as_value(x))
    window, pads = _window(what, x.shape[LEAD:], kernel_size, dilation, padding, stride)
    rank = window.rank
    counts = window.results(_padded_sizes(x.shape[LEAD:], pads))
    x = padded(x, (0, 0, *pads[:rank]), (0, 0, *pads[rank:]))
    # The axes of the kernel come before those of space: the last one's first.
    for i in reversed(range(rank)):
        x = _windows_along(x, x.rank - rank + i, window, i, counts[i])
    return reshape(x, (x.shape[0], product(x.shape[1:-rank]), product(counts)))


@suggests_names
def fold(
    x: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
    *,
    what: str = "fold",
) -> Value:
    """Columns `x` [batch, channels·∏kernel, patches] put back to where `unfold` takes them from,
    and added up where they overlap: [batch, channels, *output_size], also called col2im; the
    transpose of `unfold`, torch's `fold`, along any number of axes.

    `output_size`, one number for each axis, may be symbolic. Raises `ShapeError`, which begins with
    `what`, where rows or columns are not those of such patches.
    """
    x = as_value(x)
    if x.rank != LEAD + 1:
        raise ShapeError(f"{what} needs [batch, channels·∏kernel, patches], x is {x.type}")
    sizes = tuple(dim(n) for n in output_size) if isinstance(output_size, Sequence) else None
    if sizes is None or isinstance(output_size, str):
        raise ShapeError(
            f"{what}: output_size must be a number for each axis, got {output_size!r}",
            hint=f"({output_size}, {output_size}) for two axes of it",
        )
    window, pads = _window(what, sizes, kernel_size, dilation, padding, stride)
    rank, wide = window.rank, _padded_sizes(sizes, pads)
    counts = window.results(wide)
    channels = _divided(what, x, 1, product(window.kernel), "the size of the kernel")
    if same(x.shape[2], product(counts)) is not True:
        raise ShapeError(
            f"{what}: space of {' × '.join(map(str, sizes))} has {product(counts)} patches, "
            f"x is {x.type}",
            rows=[("x", *described(x))],
            hint="name its last axis in terms of output_size",
        )
    x = reshape(x, (x.shape[0], channels, *window.kernel, *counts))
    for i in range(rank):
        x = _overlap_added(x, x.rank - rank + i, window, i, wide[i])
    return padded(x, (0, 0, *_negative(pads[:rank])), (0, 0, *_negative(pads[rank:])))


def _windows_along(x: Value, axis: int, window: Window, i: int, count: Dim) -> Value:
    """The elements of each window along an axis of space along a new one after the channels."""
    kernel, step, gap = window.kernel[i], window.strides[i], window.dilations[i]
    if kernel == step and gap == 1:  # each element once
        inner = along(x, axis, 0, dim(count * kernel), 1)
        split = with_axis(x.shape, axis, count, kernel)
        return moveaxis(reshape(inner, split), axis + 1, LEAD)
    return stack([along(x, axis, j * gap, count, step) for j in range(kernel)], LEAD)


def _overlap_added(x: Value, axis: int, window: Window, i: int, size: Dim) -> Value:
    """The transpose of `_windows_along`, to an axis of that size."""
    kernel, step, gap = window.kernel[i], window.strides[i], window.dilations[i]
    if kernel == step and gap == 1:
        x = moveaxis(x, LEAD, axis)
        taps = [
            reshape(
                x, (*x.shape[: axis - 1], dim(x.shape[axis - 1] * kernel), *x.shape[axis + 1 :])
            )
        ]
    else:
        taps = [
            spaced(squeeze(along(x, LEAD, j, 1, 1), LEAD), axis - 1, step) for j in range(kernel)
        ]
    return functools.reduce(
        add, (_embedded(tap, axis - 1, j * gap, size) for j, tap in enumerate(taps))
    )


def _embedded(x: Value, axis: int, start: int, size: Any) -> Value:
    """x in zeros of that size along an axis; zeros of its own at the end may be cut."""
    after = dim(size - start - x.shape[axis])
    first, last = ([w if i == axis else 0 for i in range(x.rank)] for w in (start, after))
    return padded(x, first, last)


@suggests_names
def pixel_shuffle(x: Any, upscale_factor: Any, *, what: str = "pixel_shuffle") -> Value:
    """`x` [batch, channels·∏factors, *space] as [batch, channels, *space·factors]: blocks of
    channels become blocks of pixels (W. Shi et al., "Real-time single image and video
    super-resolution", 2016); torch's `pixel_shuffle`, along any number of axes.

    The factor is one for all axes of space or one for each. Raises `ShapeError`, which begins with
    `what`, where the channels are not a multiple of the block.
    """
    x = _spatial(what, as_value(x))
    space = x.shape[LEAD:]
    rank = len(space)
    factors = per_axis(what, "the factor", upscale_factor, rank)
    channels = _divided(what, x, 1, product(factors), "the size of a block")
    split = reshape(x, (x.shape[0], channels, *factors, *space))
    pairs = [axis for i in range(rank) for axis in (LEAD + rank + i, LEAD + i)]
    sizes: Any = zip(space, factors, strict=True)
    target = (x.shape[0], channels, *(dim(n * f) for n, f in sizes))
    return reshape(transpose(split, (0, 1, *pairs)), target)


@suggests_names
def pixel_unshuffle(x: Any, downscale_factor: Any, *, what: str = "pixel_unshuffle") -> Value:
    """`x` [batch, channels, *space·factors] as [batch, channels·∏factors, *space]: the inverse of
    `pixel_shuffle`, with its options; torch's `pixel_unshuffle`.

    Raises `ShapeError`, which begins with `what`, where an axis of space is not known to be a
    multiple of its factor.
    """
    x = _spatial(what, as_value(x))
    rank = x.rank - LEAD
    factors = per_axis(what, "the factor", downscale_factor, rank)
    space = [_divided(what, x, LEAD + i, f, "the factor") for i, f in enumerate(factors)]
    pairs = [size for pair in zip(space, factors, strict=True) for size in pair]
    split = reshape(x, (*x.shape[:LEAD], *pairs))
    first = [LEAD + 2 * i + 1 for i in range(rank)]
    permuted = transpose(split, (0, 1, *first, *(axis - 1 for axis in first)))
    return reshape(permuted, (x.shape[0], product((x.shape[1], *factors)), *space))


def _spatial(what: str, x: Value) -> Value:
    if x.rank <= LEAD:
        raise ShapeError(
            f"{what} needs [batch, channels, *space], x is {x.type}", rows=[("x", *described(x))]
        )
    return x


def _divided(what: str, x: Value, axis: int, divisor: Any, name: str) -> Dim:
    """The size of an axis divided by a number."""
    size: Any = x.shape[axis]
    quotient: Any = floordiv(size, divisor)
    if same(dim(quotient * divisor), size) is not True:
        raise ShapeError(
            f"{what}: axis {axis} of {x.type} is not known to be a multiple of {name}, {divisor}",
            rows=[("x", *described(x))],
            hint=None if isinstance(size, int) else f'name it as one, such as "{divisor}*n"',
        )
    return dim(quotient)


def _window(
    what: str, sizes: Shape, kernel: Any, dilation: Any, padding: Any, stride: Any
) -> tuple[Window, tuple[Dim, ...]]:
    """The window, without the padding, which may be negative or symbolic."""
    rank = len(sizes)
    kernels = numbers(f"kernel_size of {what}", kernel, rank, 1)
    strides = numbers(f"stride of {what}", stride, rank, 1)
    dilations = numbers(f"dilation of {what}", dilation, rank, 1)
    window = Window(kernels, strides, (0,) * (2 * rank), dilations)
    return window, pads_of(padding, sizes, window.extents, strides, what)


def _padded_sizes(sizes: Shape, pads: Sequence[Dim]) -> Shape:
    rank = len(sizes)
    axes: Any = zip(pads[:rank], sizes, pads[rank:], strict=True)
    return tuple(dim(b + n + a) for b, n, a in axes)


def _negative(widths: Sequence[Any]) -> list[Dim]:
    return [dim(-width) for width in widths]
