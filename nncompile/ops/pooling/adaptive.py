"""Pooling to a given size, and of all of space."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import minimum
from nncompile.ir.basic import cast, floating, in_single, size_value
from nncompile.ir.dims import Dim, dim, floordiv, same
from nncompile.ir.op import Value, described
from nncompile.ops.contraction.axis_maps import along_axis, span_matrix
from nncompile.ops.core.counting import iota
from nncompile.ops.pooling.average import average_pool
from nncompile.ops.pooling.integers import numbers
from nncompile.ops.pooling.maximum import max_pool
from nncompile.ops.reduction.extremes import argmax
from nncompile.ops.reduction.extremes import max as greatest
from nncompile.ops.reduction.statistics import mean
from nncompile.ops.shape.gathering import take, take_along_axis
from nncompile.ops.shape.reshape import expand_dims, squeeze
from nncompile.ops.windows.space import LEAD


@suggests_names
@in_single
def global_average_pool(x: Any, keepdims: bool = False) -> Value:
    """The mean over space of `x` [batch, channels, *space]: [batch, channels], or with axes of
    size one for space where `keepdims` is true."""
    x = floating("global_average_pool", x)
    return mean(x, _space("global_average_pool", x), keepdims)


@suggests_names
def global_max_pool(x: Any, keepdims: bool = False) -> Value:
    """The greatest over space of `x` [batch, channels, *space]: [batch, channels], or with axes of
    size one for space where `keepdims` is true. Equal greatest ones share the gradient equally, as
    those of `max` do."""
    x = numbers("global_max_pool", x)
    return greatest(x, _space("global_max_pool", x), keepdims)


def _space(what: str, x: Value) -> tuple[int, ...]:
    if x.rank <= LEAD:
        raise ShapeError(
            f"{what} needs [batch, channels, *space], x is {x.type}",
            rows=[("x", *described(x))],
        )
    return tuple(range(LEAD, x.rank))


@suggests_names
@in_single
def adaptive_average_pool(
    x: Any, output_size: Any, *, rank: int | None = None, what: str = "adaptive_average_pool"
) -> Value:
    """`x` [batch, channels, *space] averaged to space of the given `output_size`: one number, or
    one for each axis (None keeps an axis).

    Of n elements the i-th of m windows holds those from ⌊i·n/m⌋ to below ⌈(i + 1)·n/m⌉, as torch's;
    n may be symbolic. Raises `ShapeError`, which begins with `what`, where the sizes do not fit.
    """
    y, sizes = _with_sizes(what, floating(what, x), output_size, rank)
    even = _even_kernels(y, sizes)
    if even is not None:
        return average_pool(y, even, rank=len(sizes), what=what)
    for i, count in enumerate(sizes):
        axis, n = LEAD + i, y.shape[LEAD + i]
        if same(n, count) is True:
            continue
        starts, ends = _spans(n, count)
        share = 1 / expand_dims(cast(ends - starts, y.dtype), 1)
        y = along_axis(y, axis, span_matrix(starts, ends, n, share))
    return y


@suggests_names
def adaptive_max_pool(
    x: Any, output_size: Any, *, rank: int | None = None, what: str = "adaptive_max_pool"
) -> Value:
    """`x` [batch, channels, *space] pooled to space of the given `output_size`, the greatest of
    each window; windows and errors are those of `adaptive_average_pool`. Of equal ones the first in
    row-major order gets the gradient."""
    y, sizes = _with_sizes(what, numbers(what, x), output_size, rank)
    even = _even_kernels(y, sizes)
    if even is not None:
        return max_pool(y, even, rank=len(sizes), what=what)
    # From the last axis on, so that among equal ones the first row counts before the first column.
    for i, count in reversed(list(enumerate(sizes))):
        axis, n = LEAD + i, y.shape[LEAD + i]
        if same(n, count) is True:
            continue
        starts, ends = _spans(n, count)
        widest = n if count == 1 else dim(floordiv(n, count) + 2)
        inside = minimum(expand_dims(starts, 1) + iota(widest), expand_dims(ends - 1, 1))
        windows = take(y, inside, axis)
        first = argmax(windows, axis + 1, keepdims=True)
        y = squeeze(take_along_axis(windows, first, axis + 1), axis + 1)
    return y


def _with_sizes(what: str, x: Value, size: Any, rank: int | None) -> tuple[Value, list[Dim]]:
    rank = x.rank - LEAD if rank is None else rank
    requested = list(size) if isinstance(size, tuple | list) else [size] * rank
    if rank < 1 or x.rank != LEAD + rank or len(requested) != rank:
        raise ShapeError(
            f"{what} needs [batch, channels] and one size for each spatial axis, x is {x.type} "
            f"and the output_size {size!r}",
            rows=[("x", *described(x))],
        )
    sizes = [n if s is None else dim(s) for n, s in zip(x.shape[LEAD:], requested, strict=True)]
    for s in sizes:
        if isinstance(s, int) and s < 1:
            raise ShapeError(f"{what}: output_size must be at least 1, got {size!r}")
    return x, sizes


def _even_kernels(x: Value, sizes: list[Dim]) -> list[int] | None:
    """The sizes of the windows, where they are all of one and known."""
    pairs = list(zip(x.shape[LEAD:], sizes, strict=True))
    kernels: list[int] = []
    for n, m in pairs:
        kernel = floordiv(n, m)
        if not isinstance(kernel, int) or kernel < 1 or same(dim(kernel * m), n) is not True:
            return None
        kernels.append(kernel)
    return kernels


def _spans(n: Dim, count: Dim) -> tuple[Value, Value]:
    """Where each of `count` windows over n elements starts, and the place behind its end."""
    indices, size, windows = iota(count), size_value(n), size_value(count)
    return indices * size // windows, ((indices + 1) * size + windows - 1) // windows


__all__ = [
    "adaptive_average_pool",
    "adaptive_max_pool",
    "global_average_pool",
    "global_max_pool",
]
