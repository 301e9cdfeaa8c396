"""Running products, extremes and logarithms of sums: what ONNX has no op for.

All are one scheme for an associative function of two values. Within blocks of a fixed size each
element is combined with the one 1, 2, 4, … places before it (W. D. Hillis and G. L. Steele, "Data
parallel algorithms", 1986); the results of the blocks are run through in the same way, and a scan
goes through what is left of a size that is known only later. Gradients, also those of a product
with zeros, follow from the function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.dims import dim, floordiv
from nncompile.elementwise import equal, logaddexp, logical_or, maximum, minimum, multiply, where
from nncompile.graph import Value
from nncompile.habits import teaching
from nncompile.ops.basic import cast, full, iota
from nncompile.ops.index import take_along_axis
from nncompile.ops.joining import concatenate
from nncompile.ops.reduce import accumulator, along, real_value
from nncompile.ops.scan import scan
from nncompile.ops.shape import reshape
from nncompile.ops.slicing import along as part_along
from nncompile.ops.slicing import flip, padded
from nncompile.types import DType
from nncompile.values import register

BLOCK = 32
LEVELS = 2  # blocks, and blocks of blocks, where the size is symbolic

Combine = Callable[[Any, Any], Any]


def running(combine: Combine, x: Value, axis: int, identity: Any, levels: int = LEVELS) -> Value:
    """`x[0]`, `combine(x[0], x[1])`, … along the axis. The function is associative, and leaves
    others as they are with the number `identity`."""
    size = x.shape[axis]
    if isinstance(size, int) and size <= BLOCK:
        return _doubled(combine, x, axis, size)
    if not isinstance(size, int) and not levels:
        start = full((*x.shape[:axis], *x.shape[axis + 1 :]), identity, x.dtype)
        rows = _padded(x, axis, 1, 0, identity)  # torch.export has no loop that may be empty
        found = scan(lambda c, row: (combine(c, row),) * 2, start, rows, axis=axis)[1]
        return part_along(found, axis, 1, size, 1)
    # Of a symbolic size one block at least: there is one before all others.
    count = dim(floordiv(size, BLOCK) + 1) if not isinstance(size, int) else -(-size // BLOCK)
    lead, rest = x.shape[:axis], x.shape[axis + 1 :]
    filled = _padded(x, axis, 0, dim(count * BLOCK - size), identity)
    within = reshape(filled, (*lead, count, BLOCK, *rest))
    within = _doubled(combine, within, axis + 1, BLOCK)
    ends = part_along(part_along(within, axis + 1, BLOCK - 1, 1, 1), axis, 0, dim(count - 1), 1)
    before = reshape(ends, (*lead, dim(count - 1), *rest))
    before = _padded(running(combine, before, axis, identity, levels - 1), axis, 1, 0, identity)
    whole = combine(reshape(before, (*lead, count, 1, *rest)), within)
    return part_along(reshape(whole, (*lead, dim(count * BLOCK), *rest)), axis, 0, size, 1)


def _doubled(combine: Combine, x: Value, axis: int, size: int) -> Value:
    step = 1
    while step < size:
        head, early, late = (
            part_along(x, axis, start, count, 1)
            for start, count in ((0, step), (0, size - step), (step, size - step))
        )
        x = concatenate([head, combine(early, late)], axis)
        step *= 2
    return x


def _padded(x: Value, axis: int, before: Any, after: Any, number: Any) -> Value:
    first, last = ([width if i == axis else 0 for i in range(x.rank)] for width in (before, after))
    return padded(x, first, last, number)


@teaching
def cumprod(
    x: Any, axis: int | None = None, exclusive: bool = False, reverse: bool = False
) -> Value:
    """Running products along `axis` (of all elements in one row if None), of integers and truth
    values in i64. `exclusive` leaves each element itself out, `reverse` runs from the end.

    The gradient is right where elements are zero.
    """
    row, place = along("cumprod", x, axis)
    row = cast(row, accumulator(row.dtype))
    row = flip(row, place) if reverse else row
    if exclusive:
        row = part_along(_padded(row, place, 1, 0, 1), place, 0, row.shape[place], 1)
    y = running(multiply, row, place, 1)
    return flip(y, place) if reverse else y


@teaching
def logcumsumexp(x: Any, axis: int | None = None) -> Value:
    """log of the running sums of exp(x) along `axis` (of all elements in one row if None); never
    overflows, and loses nothing of small elements before large ones."""
    row, place = along("logcumsumexp", x, axis)
    return running(logaddexp, real_value(row), place, -np.inf)


@teaching
def cummax(x: Any, axis: int | None = None) -> tuple[Value, Value]:
    """The greatest elements so far along `axis` (of all elements in one row if None), and their
    places (i64): of equal ones the last, as torch's. After a NaN all are NaN.

    The gradient goes to the elements at these places.
    """
    return _running_extreme("cummax", x, axis, maximum, _lowest)


@teaching
def cummin(x: Any, axis: int | None = None) -> tuple[Value, Value]:
    """The least elements so far along `axis` (of all elements in one row if None), and their
    places (i64): of equal ones the last, as torch's. After a NaN all are NaN."""
    return _running_extreme("cummin", x, axis, minimum, _highest)


def _running_extreme(
    name: str, x: Any, axis: int | None, combine: Combine, identity: Callable[[DType], Any]
) -> tuple[Value, Value]:
    row, place = along(name, x, axis)
    extreme = running(combine, row, place, identity(row.dtype))
    chosen = equal(row, extreme)
    if row.dtype.is_float:
        chosen = logical_or(chosen, row != row)
    size = row.shape[place]
    column = reshape(iota(size), [size if i == place else 1 for i in range(row.rank)])
    places = running(maximum, where(chosen, column, 0), place, 0)
    return take_along_axis(row, places, place), places


def _lowest(dtype: DType) -> Any:
    if dtype.is_float:
        return -np.inf
    return False if dtype.is_bool else int(np.iinfo(dtype.numpy).min)


def _highest(dtype: DType) -> Any:
    if dtype.is_float:
        return np.inf
    return True if dtype.is_bool else int(np.iinfo(dtype.numpy).max)


for _function in (cumprod, cummax, cummin, logcumsumexp):
    register(_function.__name__, _function)
