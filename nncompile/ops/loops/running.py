"""Running products, extremes and logarithms of sums: what ONNX has no op for.

All are one scheme for an associative function of two values. Within blocks of a fixed size each
element is combined with the one 1, 2, 4, … places before it (W. D. Hillis and G. L. Steele, "Data
parallel algorithms", 1986); the results of the blocks are run through in the same way, and a scan
goes through what is left of a size that is known only later. Gradients, also those of a product
with zeros, follow from the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, logaddexp, logical_or, maximum, minimum, multiply, where
from nncompile.ir.basic import cast, const, in_single
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import Shape, dim, floordiv
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f64, i32, i64
from nncompile.ops.core.counting import iota
from nncompile.ops.core.long_sums import ACROSS
from nncompile.ops.loops.scan import scan
from nncompile.ops.reduction.operands import accumulator, along, real_value
from nncompile.ops.shape.gathering import take_along_axis
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.slicing import along as part_along
from nncompile.ops.shape.slicing import flip, padded

BLOCK = 32
LEVELS = 2  # blocks, and blocks of blocks, where the size is symbolic

Values = tuple[Any, ...]
Combine = Callable[[Values, Values], Values]


def running(combine: Callable[[Any, Any], Any], x: Value, axis: int, identity: Any) -> Value:
    """`x[0]`, `combine(x[0], x[1])`, … along the axis. The function is associative, and leaves
    others as they are with the number `identity`."""
    (result,) = running_together(lambda a, b: (combine(a[0], b[0]),), (x,), axis, (identity,))
    total: Value = result
    return total


def running_together(
    combine: Combine, xs: Values, axis: int, identities: Values, levels: int = LEVELS
) -> Values:
    """The same of several values of one shape, which the function combines together."""
    shape = xs[0].shape
    size = shape[axis]
    if isinstance(size, int) and size <= BLOCK:
        return _doubled(combine, xs, axis, size)
    lead, rest = shape[:axis], shape[axis + 1 :]
    if not isinstance(size, int) and not levels:
        start = [full((*lead, *rest), i, x.dtype) for x, i in zip(xs, identities, strict=True)]
        # torch.export has no loop that may be empty.
        rows = _padded(xs, axis, 1, 0, identities)
        count = len(xs)
        results = scan(
            lambda *values: combine(values[:count], values[count:]) * 2, start, rows, axis=axis
        )
        return tuple(part_along(y, axis, 1, size, 1) for y in results[count:])
    # Of a symbolic size one block at least: there is one before all others.
    count = dim(floordiv(size, BLOCK) + 1) if not isinstance(size, int) else -(-size // BLOCK)
    rest_count = dim(count - 1)
    filled = _padded(xs, axis, 0, dim(count * BLOCK - size), identities)
    within = _doubled(combine, _reshaped(filled, (*lead, count, BLOCK, *rest)), axis + 1, BLOCK)
    ends = [
        part_along(part_along(x, axis + 1, BLOCK - 1, 1, 1), axis, 0, rest_count, 1) for x in within
    ]
    totals = _reshaped(ends, (*lead, rest_count, *rest))
    before = running_together(combine, totals, axis, identities, levels - 1)
    before = _reshaped(_padded(before, axis, 1, 0, identities), (*lead, count, 1, *rest))
    combined = _reshaped(combine(before, within), (*lead, dim(count * BLOCK), *rest))
    return tuple(part_along(x, axis, 0, size, 1) for x in combined)


def _doubled(combine: Combine, xs: Values, axis: int, size: int) -> Values:
    step = 1
    while step < size:
        head, left, right = (
            tuple(part_along(x, axis, start, count, 1) for x in xs)
            for start, count in ((0, step), (0, size - step), (step, size - step))
        )
        pairs = zip(head, combine(left, right), strict=True)
        xs = tuple(concatenate(pair, axis) for pair in pairs)
        step *= 2
    return xs


def _reshaped(xs: Iterable[Value], shape: Shape) -> Values:
    return tuple(reshape(x, shape) for x in xs)


def _padded(xs: Values, axis: int, before: Any, after: Any, numbers: Values) -> Values:
    first, last = (
        [width if i == axis else 0 for i in range(xs[0].rank)] for width in (before, after)
    )
    return tuple(padded(x, first, last, number) for x, number in zip(xs, numbers, strict=True))


@suggests_names
@in_single
def cumprod(
    x: Any, axis: int | None = None, exclusive: bool = False, reverse: bool = False
) -> Value:
    """Running products along `axis` (of all elements in one row if None), of integers and truth
    values in i64. `exclusive` leaves each element itself out, `reverse` runs from the end.

    The gradient is right where elements are zero.
    """
    row, axis = along("cumprod", x, axis)
    dtype = accumulator(row.dtype)
    size = row.shape[axis]
    # Of many factors the errors add up, in whatever order they are multiplied.
    is_long = not (isinstance(size, int) and size <= ACROSS)
    row = cast(row, f64 if is_long and dtype.is_float else dtype)
    row = flip(row, axis) if reverse else row
    if exclusive:
        (after,) = _padded((row,), axis, 1, 0, (1,))
        row = part_along(after, axis, 0, row.shape[axis], 1)
    y = cast(running(multiply, row, axis, 1), dtype)
    return flip(y, axis) if reverse else y


@suggests_names
@in_single
def logcumsumexp(x: Any, axis: int | None = None) -> Value:
    """log of the running sums of exp(x) along `axis` (of all elements in one row if None); never
    overflows, and loses nothing of small elements before large ones."""
    row, axis = along("logcumsumexp", x, axis)
    return running(logaddexp, real_value(row), axis, -np.inf)


@suggests_names
def cummax(x: Any, axis: int | None = None) -> tuple[Value, Value]:
    """The greatest elements so far along `axis` (of all elements in one row if None), and their
    places (i64): of equal ones the last, as torch's. After a NaN all are NaN.

    The gradient goes to the elements at these places.
    """
    return _running_extreme("cummax", x, axis, maximum, _lowest)


@suggests_names
def cummin(x: Any, axis: int | None = None) -> tuple[Value, Value]:
    """The least elements so far along `axis` (of all elements in one row if None), and their
    places (i64): of equal ones the last, as torch's. After a NaN all are NaN."""
    return _running_extreme("cummin", x, axis, minimum, _highest)


def _running_extreme(
    name: str, x: Any, axis: int | None, combine: Any, identity: Callable[[DType], Any]
) -> tuple[Value, Value]:
    row, axis = along(name, x, axis)
    extreme = running(combine, row, axis, identity(row.dtype))
    is_extreme = equal(row, extreme)
    if row.dtype.is_float:
        is_extreme = logical_or(is_extreme, row != row)
    size = row.shape[axis]
    # No axis has 2³¹ elements, and numbers of 32 bits are compared in half the time.
    column = reshape(iota(size, i32), [size if i == axis else 1 for i in range(row.rank)])
    indices = cast(running(maximum, where(is_extreme, column, const(0, i32)), axis, 0), i64)
    return take_along_axis(row, indices, axis), indices


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
