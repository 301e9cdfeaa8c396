"""Elements by their rank: median, quantiles, and the k-th smallest.

R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50
(1996) has the methods; they are called as numpy calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import ModelError, ShapeError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.kinds import shown
from nncompile.elementwise import ceil, clip, floor, isfinite, isnan, maximum, round, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value, cast, const, in_single, size_value
from nncompile.ir.dims import dim, floordiv, product
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ir.types import Axes, f64, i64
from nncompile.ops.core.axes import axis_of
from nncompile.ops.reduction.operands import kept, needs_elements, over, real_value
from nncompile.ops.reduction.sums import sum as total
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import moveaxis, reshape, squeeze
from nncompile.ops.shape.slicing import along, padded
from nncompile.ops.shape.sorting import sort, top_k


def _row(name: str, x: Any, axis: Axes) -> tuple[Value, Value, tuple[int, ...]]:
    """The real value, with the axes, which are returned too, as one last axis in their place."""
    x, axes = over(name, real_value(x), axis)
    needs_elements(x.type, axes)
    rest = [d for i, d in enumerate(x.shape) if i not in axes]
    last = moveaxis(x, axes, tuple(range(-len(axes), 0)))
    return x, reshape(last, (*rest, product(x.shape[i] for i in axes))), axes


def _filled(row: Value) -> Value:
    """The row with a NaN behind its elements where there may be none."""
    if isinstance(row.shape[-1], int):
        return row
    zeros = [0] * row.rank
    return padded(row, zeros, [*zeros[1:], 1], np.nan)


def _unknown(row: Value, y: Value) -> Value:
    """`y`; where there is a NaN in the row, NaN, with its gradient."""
    unknown = total(where(isnan(row), row, 0), -1)
    return where(isnan(unknown), unknown, y)


@suggests_names
@in_single
def median(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The middle element over one axis, several or all, or the mean of the two in the middle; NaN
    where there is a NaN, or nothing along a symbolic axis. Of integers and truth values in f32. The
    gradient goes to these elements.

    Raises `ShapeError` where there is nothing to choose from.
    """
    x, row, axes = _row("median", x, axis)
    size = row.shape[-1]
    upper = floordiv(size, 2)
    least, _ = top_k(_filled(row), dim(upper + 1), largest=False)
    lower = dim(sp.Max(floordiv(dim(size - 1), 2), 0))
    two = [squeeze(along(least, row.rank - 1, index, 1, 1), -1) for index in (lower, upper)]
    y = _unknown(row, two[0] / 2 + two[1] / 2)
    return kept(y, x, axes) if keepdims else y


@formula
def _between(a: Any, b: Any, t: Any) -> Any:
    """a + (b − a)·t; where that is infinite, which one is nearer does not matter."""
    return where(isfinite(b - a), a + (b - a) * t, where(t == 0, a, (1 - t) * a + t * b))


Position = Callable[[Any, Any], Any]


def _by_parameters(alpha: float, beta: float) -> Position:
    return lambda n, q: n * q + (alpha + q * (1 - alpha - beta)) - 1


def _middle(n: Any, q: Any) -> Any:
    position = (n - 1) * q
    return (floor(position) + ceil(position)) / 2


def _averaged(n: Any, q: Any) -> Any:
    position = n * q - 1
    return where(position == floor(position), position + 0.5, ceil(position))


def _closest(n: Any, q: Any) -> Any:
    position = n * q - 1.5
    exact = (position == floor(position)) & (floor(position / 2) * 2 != position)
    return where(exact, position, floor(position) + 1)


# Where the quantile q of n elements in order lies among them, counted from 0: at an element, or
# between two.
METHODS: dict[str, Position] = {
    "linear": lambda n, q: (n - 1) * q,
    "lower": lambda n, q: floor((n - 1) * q),
    "higher": lambda n, q: ceil((n - 1) * q),
    "nearest": lambda n, q: round((n - 1) * q),
    "midpoint": _middle,
    "inverted_cdf": lambda n, q: ceil(n * q - 1),
    "averaged_inverted_cdf": _averaged,
    "closest_observation": _closest,
    "interpolated_inverted_cdf": _by_parameters(0, 1),
    "hazen": _by_parameters(0.5, 0.5),
    "weibull": _by_parameters(0, 0),
    "median_unbiased": _by_parameters(1 / 3, 1 / 3),
    "normal_unbiased": _by_parameters(3 / 8, 3 / 8),
}


@suggests_names
@in_single
def quantile(
    x: Any, q: Any, axis: Axes = None, method: str = "linear", keepdims: bool = False
) -> Value:
    """The elements below which are the shares `q` of all, over one axis, several or all; NaN where
    there is a NaN, or nothing along a symbolic axis. `q` is a number of 0 … 1, a list or a value;
    its axes come first in the result. `method` says what lies between two elements, under numpy's
    names.

    The gradient goes to the elements on both sides, and to `q` where it is a value. Raises
    `ShapeError` where there is nothing to choose from, `ModelError` for a `q` outside 0…1 and
    an unknown method.
    """
    if method not in METHODS:
        raise ModelError(
            f"quantile: there is no method {method!r}", hint=did_you_mean(method, list(METHODS))
        )
    if not isinstance(q, Value):
        try:
            shares = np.asarray(q, np.float64)
        except (TypeError, ValueError):
            raise ModelError(f"quantile: q must be numbers in [0, 1], got {shown(q)}") from None
        if not np.all((shares >= 0) & (shares <= 1)):
            raise ModelError(f"quantile: q must be in [0, 1], got {q}")
        q = const(shares, f64)
    x, row, axes = _row("quantile", x, axis)
    count = size_value(row.shape[-1], f64)
    position = clip(METHODS[method](count, cast(q, f64)), 0, maximum(count - 1, 0))
    before = floor(position)
    indices = cast(before, i64)
    ordered = sort(_filled(row))
    ends = [take(ordered, i, -1) for i in (indices, cast(ceil(position), i64))]
    y = _between(*ends, cast(position - before, row.dtype))
    y = _unknown(reshape(row, (*row.shape[:-1], *(1 for _ in q.shape), row.shape[-1])), y)
    y = moveaxis(y, tuple(range(row.rank - 1, y.rank)), tuple(range(q.rank)))
    if not keepdims:
        return y
    return reshape(y, (*q.shape, *(1 if i in axes else d for i, d in enumerate(x.shape))))


@suggests_names
def kthvalue(x: Any, k: Any, axis: int = -1, keepdims: bool = False) -> tuple[Value, Value]:
    """The `k`-th smallest elements along the axis, counted from 1, and their places (i64): of equal
    ones the first come first, NaN last. The gradient goes to these elements.

    Raises `ShapeError` where there are fewer, as far as that is known.
    """
    x = as_value(x)
    axis, rank = axis_of(axis, x.rank, "kthvalue: axis"), dim(k)
    if isinstance(rank, int) and rank < 1:
        raise ShapeError(f"kthvalue: k counts from 1, got {k}")
    slices = [
        along(part, axis, dim(rank - 1), 1, 1) for part in top_k(x, rank, axis, largest=False)
    ]
    values, indices = slices if keepdims else (squeeze(part, axis) for part in slices)
    return values, indices


for _function in (median, quantile, kthvalue):
    register(_function.__name__, _function)
