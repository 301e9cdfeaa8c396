"""Triangular forms of matrices in loops over their columns, for runtimes that have no kernel.

All are of the last two axes; leading ones are batches. Sizes may be symbolic. The result
for a matrix that is singular or not positive definite is meaningless; `pivots` show that.
"""

from __future__ import annotations

from typing import Any

from nncompile.elementwise import abs as absolute
from nncompile.elementwise import equal, logical_and, logical_not, not_equal, sqrt, where
from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import broadcast_to, full
from nncompile.ir.op import Value
from nncompile.ir.types import DType, boolean, i64
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.scan import scan
from nncompile.ops.reduction.extremes import argmax
from nncompile.ops.reduction.products import prod
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.gathering import take, take_along_axis
from nncompile.ops.shape.reshape import expand_dims, moveaxis, reshape, squeeze

# Carl Friedrich Gauss's elimination with partial pivoting and Cholesky's factorization: G. Golub,
# C. Van Loan, "Matrix Computations" (4th ed. 2013), algorithms 3.4.1 and 4.2.1. Rows are not
# exchanged: those that have been pivots are known by a mask.


def eliminated(a: Value, b: Value | None = None) -> tuple[Value, ...]:
    """The pivots, [n, …], and the rows that they are in, [n, …]; and with `b` the rows of both
    a[…, n, n] and b[…, n, m] that belong to each pivot, [n, …, n] and [n, …, m], from which all
    earlier unknowns are eliminated."""
    n = a.shape[-1]
    indices = iota(n)
    parts = (a,) if b is None else (a, b)

    def body(unused: Value, *state: Value) -> Any:
        *left, k = state  # what is left of a and b
        column = take(left[0], k, axis=-1)
        pivot_row = argmax(where(unused, absolute(column), -1.0), -1, keepdims=True)
        rows = [_row(x, pivot_row) for x in left]
        pivot = take(rows[0], k, axis=-1)  # […, 1]
        later = logical_and(unused, not_equal(indices, pivot_row))
        # Where the pivot is zero, so is what it would eliminate.
        factor = where(logical_and(later, not_equal(pivot, 0)), column / pivot, 0.0)
        left = [x - expand_dims(factor, -1) * row for x, row in zip(left, rows, strict=True)]
        pivot_rows = [] if b is None else [squeeze(row, -2) for row in rows]
        return later, *left, squeeze(pivot, -1), squeeze(pivot_row, -1), *pivot_rows

    all_unused = full((*a.shape[:-2], n), True, boolean)
    results = scan(body, (all_unused, *parts), indices)
    return tuple(results[1 + len(parts) :])


def permutation_sign(permutation: Value, dtype: DType) -> Value:
    """1 or −1 for the permutations [n, …]: whether they have an even number of inversions."""
    order = iota(permutation.shape[0])
    first, second = expand_dims(permutation, 1), expand_dims(permutation, 0)
    pairs = reshape(expand_dims(order, 1) < order, (*first.shape[:1], -1, *[1] * (first.rank - 2)))
    return prod(
        where(logical_and(pairs, first > second), const(-1, dtype), const(1, dtype)), (0, 1)
    )


def _row(x: Value, index: Value) -> Value:
    """The row x[…, place, :] of each matrix, as one row."""
    shape = (*x.shape[:-2], 1, x.shape[-1])
    return take_along_axis(x, broadcast_to(expand_dims(index, -1), shape), -2)


def substituted(columns: Value, pivots: Value, right: Value, reverse: bool) -> Value:
    """The solution […, n, m] for `right` […, n, m] and a triangular matrix: its columns are
    [n, …, n], its diagonal [n, …]. It is lower, or upper if `reverse`; the other triangle may have
    anything."""
    indices = iota(right.shape[-2])

    def body(left: Value, column: Value, pivot: Value, k: Value) -> Any:
        unknown = take(left, k, axis=-2) / expand_dims(pivot, -1)
        later = indices < k if reverse else indices > k
        known = expand_dims(where(later, column, 0.0), -1) * expand_dims(unknown, -2)
        return left - known, unknown

    _, unknowns = scan(body, right, (columns, pivots, indices), reverse=reverse)
    return moveaxis(unknowns, 0, -2)


def factored(a: Value) -> tuple[Value, Value]:
    """The lower triangular L with a = L·Lᵀ, column by column, from the lower triangle of a; and
    the squares of its diagonal, [n, …], which are positive if there is one."""
    indices = iota(a.shape[-1])

    def body(left: Value, k: Value) -> Any:
        column = take(left, k, axis=-1)
        square = take(column, expand_dims(k, 0), axis=-1)
        entries = where(indices >= k, column / sqrt(square), 0.0)
        return (
            left - expand_dims(entries, -1) * expand_dims(entries, -2),
            entries,
            squeeze(square, -1),
        )

    _, columns, squares = scan(body, a, indices)
    return moveaxis(columns, 0, -1), squares


def all_hold(conditions: Value, axes: Any) -> Value:
    """Whether all hold along the axes; they do where there are none."""
    failures = cast(logical_not(conditions), i64)
    return equal(sum(failures, axes), const(0, i64))
