"""Convolutions by slices and matrix products.

That is what the gradient at the weights is computed by everywhere (a convolution whose kernel is as
large as the image is three to ten times slower in onnxruntime), and all of it in float64, which
onnxruntime has no convolutions of.

A *tap* is one place of the kernel: what it sees of x is a slice of x, `[N, C, *results]`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from nncompile.ir.basic import const
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Shape, dim, floordiv, product
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import reshape, swapaxes, transpose
from nncompile.ops.shape.slicing import flip, padded, part, spaced
from nncompile.ops.windows.convolution import Ints, Window

# Measured in onnxruntime 1.31 on one core. With fewer channels the taps are joined for one product;
# with more, that copies more than it gains.
FEW_CHANNELS = 8
# With as many channels to a place, one product over all examples is faster than one for each.
FEW_PLACES = 2
# A strided slice takes as long for an element as three contiguous ones. With fewer taps of a phase
# (an image of every stride-th element), the gradient's rows take longer to widen than that gains.
FEW_TAPS = 3


def convolution(x: Value, w: Value, window: Window, groups: int) -> Value:
    """x[N, C, *sizes] and w[O, C/groups, *kernel] to `[N, O, *results]`: the weights times the
    taps one below the other, `[N, groups, taps·C/groups, results]`."""
    results, count = window.results(x.shape[2:]), math.prod(window.kernel)
    taps = [_grouped(_flat(tap), groups) for tap in _taps(x, window)]
    outs, ins = w.shape[:2]
    kernels = transpose(reshape(w, (outs, ins, count)), (0, 2, 1))
    split = (groups, dim(outs // groups)) if groups > 1 else (outs,)
    kernels = reshape(kernels, (*split, product((count, ins))))
    # onnxruntime does not broadcast to a batch of zero.
    kernels = broadcast_to(kernels, (x.shape[0], *kernels.shape))
    y = matmul(kernels, concatenate(taps, -2))
    return reshape(y, (x.shape[0], outs, *results))


def transposed_convolution(y: Value, w: Value, window: Window, groups: int, sizes: Shape) -> Value:
    """y[N, O, *results] and w[O, C/groups, *kernel] to `[N, C, *sizes]`: the convolution of y, with
    stride − 1 zeros after each element, with the kernel turned round."""
    before, after = [0, 0], [0, 0]
    for i, (size, stride, extent) in enumerate(
        zip(sizes, window.strides, window.extents, strict=True)
    ):
        y = spaced(y, i + 2, stride)
        first = extent - 1 - window.before[i]
        before.append(first)
        after.append(dim(size + extent - 1 - first - y.shape[i + 2]))
    outs, ins = w.shape[:2]
    split = reshape(w, (groups, dim(outs // groups), ins, *window.kernel))
    swapped = transpose(split, (0, 2, 1, *range(3, split.rank)))
    kernels = reshape(swapped, (product((groups, ins)), dim(outs // groups), *window.kernel))
    plain = Window(window.kernel, (1,) * window.rank, (0,) * (2 * window.rank), window.dilations)
    return convolution(
        padded(y, before, after), flip(kernels, tuple(range(2, w.rank))), plain, groups
    )


def weight_gradient(x: Value, g: Value, window: Window, groups: int) -> Value:
    """x[N, C, *sizes] and g[N, O, *results] to `[O, C/groups, *kernel]`: for each tap the product
    of g and what the tap sees, summed over the batch.

    The taps of few channels are joined for one product. Where each channel is alone, elementwise
    products are summed instead: onnxruntime takes up to four times as long for products of a row
    by a column.
    """
    ins = floordiv(x.shape[1], groups)
    shape = (g.shape[1], ins, *window.kernel)
    is_alone = groups > 1 and ins == 1
    is_joined = not is_alone and isinstance(ins, int) and ins < FEW_CHANNELS
    phases = math.prod(window.strides)
    if phases > 1 and (is_joined or math.prod(window.kernel) < FEW_TAPS * phases):
        taps, seen = [_flat(tap) for tap in _taps(x, window)], [_flat(g)]
    elif not is_joined and keeps_rows(x.type, g.type, window):
        taps, seen = _shifted_taps(x, g, window)
    else:
        taps, seen = _contiguous_taps(x, window), [_flat(_as_wide(g, window))]
    taps, seen = ([_grouped(x, groups) for x in xs] for xs in (taps, seen))
    pairs = list(zip(taps, itertools.cycle(seen)))
    if is_alone:
        sums = [sum(tap * g, -1, keepdims=True) for tap, g in pairs]  # [N, groups, outs, 1] each
        return reshape(sum(concatenate(sums, -1), 0), shape)
    if len(taps) == 1:
        return reshape(_batch_product(seen[0], taps[0]), shape)
    if is_joined:
        products = _batch_product(seen[0], concatenate(taps, -2))
        split = reshape(products, (shape[0], len(taps), ins))
        return reshape(transpose(split, (0, 2, 1)), shape)
    products = concatenate([_batch_product(g, tap) for tap, g in pairs], 0)
    split = reshape(products, (len(taps), shape[0], ins))
    return reshape(transpose(split, (1, 2, 0)), shape)


def _batch_product(g: Value, tap: Value) -> Value:
    """Σ over the batch of g·tapᵀ: `[1, groups, outs, ins]`, without groups where there is one.

    Where channels are many and places few, the products of all examples would be larger than the
    factors by far: it is one product over the examples and places then.
    """
    outs, places = g.shape[-2:]
    ins = tap.shape[-2]
    is_known = isinstance(places, int) and isinstance(outs, int) and isinstance(ins, int)
    if g.rank > 3 or not is_known or places * FEW_PLACES > min(outs, ins):
        return sum(matmul(g, swapaxes(tap, -1, -2)), 0, keepdims=True)
    count = product((g.shape[0], places))
    columns = reshape(transpose(tap, (0, 2, 1)), (count, ins))
    y = matmul(reshape(transpose(g, (1, 0, 2)), (outs, count)), columns)
    return reshape(y, (1, outs, ins))


def _tap_offsets(window: Window) -> list[Ints]:
    """Where each tap starts, in row-major order of the kernel."""
    return [
        tuple(i * d for i, d in zip(index, window.dilations, strict=True))
        for index in itertools.product(*map(range, window.kernel))
    ]


def _with_zeros(x: Value, window: Window, counts: Ints = ()) -> Value:
    """x with its padding, and `counts` zeros after the spatial axes."""
    extra = counts or (0,) * window.rank
    after = [a + e for a, e in zip(window.after, extra, strict=True)]
    return padded(x, (0, 0, *window.before), (0, 0, *after))


def _taps(x: Value, window: Window) -> list[Value]:
    sizes = (*x.shape[:2], *window.results(x.shape[2:]))
    x = _with_zeros(x, window)
    steps = (1, 1, *window.strides)
    return [part(x, (0, 0, *offsets), sizes, steps) for offsets in _tap_offsets(window)]


def _contiguous_taps(x: Value, window: Window) -> list[Value]:
    """The taps as contiguous slices of images with their spatial axes joined: of x for stride 1,
    else of its *phases*, every stride-th element of it from some place on.

    They hold rows as wide as these images are, with elements that belong to no result at the ends:
    g must have zeros there. One more row of zeros keeps the last tap within them.
    """
    strides, results = window.strides, window.results(x.shape[2:])
    more_rows = int(any(k > 1 for k in window.kernel[1:]))
    widths = _widths(window, results)
    sizes = (dim(widths[0] + more_rows), *widths[1:])
    extra = [stride - 1 for stride in strides]
    extra[0] += more_rows * strides[0]
    x = _with_zeros(x, window, tuple(extra))
    length = product((results[0], *widths[1:]))
    phases: dict[Ints, Value] = {}
    taps: list[Value] = []
    for offsets in _tap_offsets(window):
        phase = tuple(o % s for o, s in zip(offsets, strides, strict=True))
        if phase not in phases:
            at, steps = (0, 0, *phase), (1, 1, *strides)
            phases[phase] = _flat(part(x, at, (*x.shape[:2], *sizes), steps))
        start: Any = 0
        for offset, stride, width in zip(offsets, strides, widths, strict=True):
            start = start * width + offset // stride
        taps.append(part(phases[phase], (0, 0, dim(start)), (*x.shape[:2], length), (1, 1, 1)))
    return taps


def _widths(window: Window, results: Shape) -> Shape:
    """The sizes of phases that hold all that the taps see for these results."""
    reaches = ((e - 1) // s for e, s in zip(window.extents, window.strides, strict=True))
    return tuple(dim(n + reach) for n, reach in zip(results, reaches, strict=True))


def keeps_rows(x: Type, g: Type, window: Window) -> bool:
    """Whether the results of stride 1 lie in rows as long as those of the image x, of known
    size."""
    is_known = all(isinstance(n, int) for n in (*x.shape[2:], *g.shape[2:]))
    return window.strides == (1, 1) and is_known and x.shape[3] == g.shape[3]


def _shifted_taps(x: Value, g: Value, window: Window) -> tuple[list[Value], list[Value]]:
    """The taps as contiguous slices of x with its rows joined, where these are as long as those of
    g, and for each tap what it is multiplied with: g, with zeros where the tap is not in its row.

    So neither x nor g is padded row by row, which takes longer than products with zeros and ones.
    """
    rows, width = g.shape[2:]
    above, left, below, right = window.pads
    joined = padded(_flat(x), (0, 0, above * width + left), (0, 0, below * width + right))
    flat = _flat(g)
    taps, seen = [], []
    for row, column in _tap_offsets(window):
        sizes = (*x.shape[:2], rows * width)
        taps.append(part(joined, (0, 0, row * width + column), sizes, (1, 1, 1)))
        seen.append(within_rows(flat, column - left, int(width)))
    return taps, seen


def within_rows(g: Value, offset: int, width: int) -> Value:
    """g, the last axis of which holds rows of that width, with zeros where what lies `offset`
    columns further on is not in the same row."""
    columns = np.arange(width) + offset
    is_within = (columns >= 0) & (columns < width)
    rows = int(g.shape[-1]) // width
    return g if is_within.all() else g * const(np.tile(is_within, rows), g.dtype)


def _as_wide(g: Value, window: Window) -> Value:
    """g with zeros at the ends of its rows, as wide as what the taps are slices of."""
    widths: Any = _widths(window, g.shape[2:])
    after = [0, 0, 0, *(dim(w - n) for w, n in zip(widths[1:], g.shape[3:], strict=True))]
    return padded(g, [0] * g.rank, after)


def _flat(x: Value) -> Value:
    """`[N, C, *sizes]` with the spatial axes joined."""
    return reshape(x, (*x.shape[:2], product(x.shape[2:])))


def _grouped(x: Value, groups: int) -> Value:
    """`[N, C, L]` as `[N, groups, C/groups, L]`, where there are groups."""
    if groups == 1:
        return x
    return reshape(x, (x.shape[0], groups, dim(x.shape[1] // groups), x.shape[2]))
