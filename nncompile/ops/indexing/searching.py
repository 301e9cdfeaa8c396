"""Places in order and in sets: searchsorted, isin, counts of integers and histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import (
    equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    minimum,
    where,
)
from nncompile.ir.basic import as_value, cast, const, size_value
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import dim, same
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ir.types import f64, i32, i64, promote
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.scan import scan
from nncompile.ops.reduction.extremes import max as greatest
from nncompile.ops.reduction.extremes import min as least
from nncompile.ops.reduction.statistics import any as any_of
from nncompile.ops.reduction.sums import sum as total
from nncompile.ops.shape.arranging import diff
from nncompile.ops.shape.gathering import scatter_add, take
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import expand_dims, ravel, reshape
from nncompile.ops.shape.slicing import along, padded
from nncompile.ops.shape.sorting import sort

FEW = 16  # numbers that each element is compared with
LARGEST = 31  # binary digits of a symbolic size


def _same_dtype(a: Any, b: Any) -> tuple[Value, Value]:
    """Two values of one element type, which has an order."""
    a = as_value(a, b if isinstance(b, Value) else None)
    b = as_value(b, a)
    dtype = promote(a.dtype, b.dtype)
    dtype = i32 if dtype.is_bool else dtype
    return cast(a, dtype), cast(b, dtype)


@suggests_names
def searchsorted(a: Any, v: Any, side: str = "left") -> Value:
    """Where the elements of `v` belong in the rising vector `a`, i64: before equal ones, or after
    them with `side="right"`. NaN is greater than all others. Where `a` does not rise the result
    means nothing.

    Raises `ShapeError` where `a` is not a vector, `ModelError` for another side.
    """
    if side not in ("left", "right"):
        raise ModelError(f'searchsorted: side must be "left" or "right", got {side!r}')
    a, v = _same_dtype(a, v)
    if a.rank != 1:
        raise ShapeError(f"searchsorted needs a sorted vector, got {a.type}")
    size = a.shape[0]
    count = size_value(size)
    ended = padded(a, [0], [1])  # so that there is an element, whatever the size

    def further(position: Any, step: Any) -> Value:
        """The place `step` further where that is not beyond where v belongs."""
        after = position + step
        before = take(ended, minimum(after - 1, count))
        fits = less_equal(before, v) if side == "right" else less(before, v)
        if v.dtype.is_float:
            last = v != v
            fits = logical_or(
                fits, last if side == "right" else logical_and(last, before == before)
            )
        result: Value = where(logical_and(after <= count, fits), after, position)
        return result

    position = full(v.shape, 0, i64)
    if isinstance(size, int):
        for digit in reversed(range(size.bit_length())):
            position = further(position, 1 << digit)
        return position
    steps = const(1 << np.arange(LARGEST)[::-1])
    result: Value = scan(further, position, steps)
    return result


@suggests_names
def isin(x: Any, test: Any, invert: bool = False) -> Value:
    """Whether each element is one of those of `test`, of any shape; or none of them with `invert`.
    NaN is none."""
    x, test = _same_dtype(x, test)
    row = ravel(test)
    size = row.shape[0]
    if isinstance(size, int) and size <= FEW:
        matches = any_of(equal(expand_dims(x, x.rank), row), -1)
    else:
        ordered = sort(row)
        positions = searchsorted(ordered, x)
        candidate = take(padded(ordered, [0], [1]), positions)
        matches = logical_and(positions < size_value(size), equal(candidate, x))
    return logical_not(matches) if invert else matches


@suggests_names
def bincount(x: Any, weights: Any = None, minlength: Any = 0, *, length: Any = None) -> Value:
    """How often 0, 1, 2, … are among the elements of a vector of integers, i64; or the sums of the
    `weights` of these elements, of their element type. A negative number counts nowhere.

    The result has an element for each number up to the greatest, and `minlength` at least: how many
    is known only when the graph runs, so its size is a name of its own. With `length` it has that
    many, and greater numbers count nowhere.

    Raises `DTypeError` where `x` is not of integers, `ShapeError` where it is not a vector.
    """
    x = as_value(x)
    if not x.dtype.is_integer:
        raise DTypeError(f"bincount needs integers, got {x.type}", hint="x.astype(i64)")
    if x.rank != 1:
        raise ShapeError(f"bincount needs a vector, got {x.type}", hint="ravel(x)")
    x = cast(x, i64)
    if length is None:
        least_size = reshape(size_value(minlength) - 1, (1,))
        size = iota(greatest(concatenate([x, least_size])) + 1).shape[0]
    else:
        size = dim(length)
    weights = full(x.shape, 1, i64) if weights is None else as_value(weights)
    count = size_value(size)
    inside = logical_and(x >= 0, x < count)
    # What counts nowhere is counted beyond the end.
    bins = full((dim(size + 1),), 0, weights.dtype)
    return along(scatter_add(bins, where(inside, x, count), weights), 0, 0, size, 1)


@suggests_names
def histogram(
    x: Any,
    bins: Any = 10,
    range: tuple[float, float] | None = None,
    density: bool = False,
    weights: Any = None,
) -> tuple[Value, Value]:
    """How many elements lie in each of the bins, i64, and the edges of the bins.

    `bins` is a number of equal ones from the first to the second number of `range`, by default
    from the least element to the greatest (of nothing 0 and 1), or a vector of rising edges.
    A bin holds its lower edge, the last one both. Elements outside count nowhere, NaN neither. With
    `weights`, of the shape of `x`, these are added up; with `density` the result is divided by
    their sum and the widths.

    Raises `ModelError` for an empty range and for known edges that do not increase, `ShapeError`
    for edges that are not a vector.
    """
    x = as_value(x)
    x = x if x.dtype.is_float else cast(x, f64)
    row = ravel(x)
    edges = _edges(row, bins, range)
    last = dim(edges.shape[0] - 1)
    last_edge = along(edges, 0, last, 1, 1)
    positions = searchsorted(edges, row, "right") - 1
    positions = where(row == last_edge, size_value(last) - 1, positions)
    flat_weights = None if weights is None else ravel(weights)
    counts = bincount(positions, flat_weights, length=last)
    if not density:
        return counts, edges
    shares = cast(counts, edges.dtype) / total(cast(counts, edges.dtype))
    return shares / diff(edges), edges


def _edges(row: Value, bins: Any, span: Sequence[float] | None) -> Value:
    """The edges of bins, of the element type of the row."""
    if isinstance(bins, Value) or np.ndim(bins) or isinstance(bins, list | tuple):
        edges = cast(as_value(bins), row.dtype)
        if edges.rank != 1 or same(edges.shape[0], 0) or same(edges.shape[0], 1):
            raise ShapeError(
                f"histogram needs at least two bin edges in a vector, got {edges.type}"
            )
        if not isinstance(bins, Value) and np.any(np.diff(np.asarray(bins)) < 0):
            raise ModelError(f"histogram: bin edges must increase, got {bins}")
        return edges
    count = dim(bins)
    if isinstance(count, int) and count < 1:
        raise ModelError(f"histogram needs at least one bin, got {bins}")
    low, high = _ends(row) if span is None else _numbers(span, row)
    low, high = cast(low, f64), cast(high, f64)
    flat = low == high
    low, high = where(flat, low - 0.5, low), where(flat, high + 0.5, high)
    numbers = iota(dim(count + 1), f64)
    step = (high - low) / size_value(count, f64)
    edges = where(numbers == size_value(count, f64), high, numbers * step + low)
    return cast(edges, row.dtype)


def _ends(row: Value) -> tuple[Value, Value]:
    """The least and the greatest element; 0 and 1 of nothing."""
    size = row.shape[0]
    if isinstance(size, int) and size > 0:
        return least(row), greatest(row)
    low, high = least(padded(row, [0], [1], np.inf)), greatest(padded(row, [0], [1], -np.inf))
    is_empty = low > high
    return where(is_empty, 0, low), where(is_empty, 1, high)


def _numbers(span: Sequence[float], row: Value) -> tuple[Value, Value]:
    low, high = span
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ModelError(f"histogram: the range must not decrease, got {span}")
    return const(low, f64), const(high, f64)


register("searchsorted", searchsorted)
