"""Parts and products of matrices: triangles, diagonals, Kronecker and vector products.

All have numpy's names, arguments and results; matrices are the last two axes where they are not
named.
"""

from __future__ import annotations

from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import where
from nncompile.ir.basic import as_value, const, size_value
from nncompile.ir.dims import Dim, dim, product, same
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ops.core.axes import axis_of
from nncompile.ops.core.counting import iota
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.joining import concatenate, split
from nncompile.ops.shape.reshape import expand_dims, moveaxis, reshape
from nncompile.ops.shape.slicing import padded


def _lower_mask(x: Value, k: Any) -> Value:
    """Whether an element of the last two axes is on or below the k-th diagonal; those of a vector
    are the columns of as many rows."""
    if not x.rank:
        raise ShapeError("a triangle needs a matrix, got a scalar")
    rows, columns = x.shape[-2:] if x.rank > 1 else (x.shape[0], x.shape[0])
    return iota(columns) - expand_dims(iota(rows), 1) <= size_value(k)


@suggests_names
def tril(x: Any, k: Any = 0) -> Value:
    """The lower triangle of the last two axes: zeros above the `k`-th diagonal. Diagonal 0 is the
    main one, higher ones are above it. Of a vector, the triangle of as many equal rows."""
    x = as_value(x)
    result: Value = where(_lower_mask(x, k), x, const(0, x.dtype))
    return result


@suggests_names
def triu(x: Any, k: Any = 0) -> Value:
    """The upper triangle of the last two axes: zeros below the `k`-th diagonal."""
    x = as_value(x)
    result: Value = where(_lower_mask(x, dim(dim(k) - 1)), const(0, x.dtype), x)
    return result


@suggests_names
def diagonal(x: Any, offset: Any = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The elements whose place along `axis2` is `offset` more than that along `axis1`, as a last
    axis in place of both.

    Raises `ShapeError` where these are not two different axes.
    """
    x = as_value(x)
    if x.rank < 2:
        raise ShapeError(f"diagonal needs two axes, got {x.type}")
    first, second = (axis_of(a, x.rank, "diagonal: axis") for a in (axis1, axis2))
    if first == second:
        raise ShapeError(f"diagonal: the two axes must differ, got {axis1} and {axis2}")
    planes = moveaxis(x, (first, second), (-2, -1))
    rows, columns = planes.shape[-2:]
    down, right = _shifts(dim(offset))
    count = _smaller_size(dim(rows - down), dim(columns - right))
    start = size_value(dim(down * columns + right))
    positions = iota(count) * size_value(dim(columns + 1)) + start
    return take(reshape(planes, (*planes.shape[:-2], product((rows, columns)))), positions, -1)


def _shifts(offset: Any) -> tuple[Any, Any]:
    """How far down and how far right a diagonal begins."""
    if isinstance(offset, int):
        return max(-offset, 0), max(offset, 0)
    return dim(sp.Max(-offset, 0)), dim(sp.Max(offset, 0))


def _smaller_size(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes, at least 0."""
    if isinstance(a, int) and isinstance(b, int):
        return max(min(a, b), 0)
    return dim(sp.Max(a if same(a, b) else sp.Min(a, b), 0))


@suggests_names
def diag(x: Any, k: Any = 0) -> Value:
    """The `k`-th diagonal of a matrix, or the matrix with a vector on its `k`-th diagonal and
    zeros elsewhere. Raises `ShapeError` for other ranks."""
    x = as_value(x)
    if x.rank == 2:
        return diagonal(x, k)
    if x.rank != 1:
        raise ShapeError(
            f"diag needs a vector or a matrix, got {x.type}",
            hint="diagonal(x, axis1=-2, axis2=-1) gives the diagonal of each matrix",
        )
    down, right = _shifts(dim(k))
    size = dim(x.shape[0] + down + right)
    columns = iota(size)
    offsets = columns - expand_dims(columns, 1)
    row = padded(x, [right], [down])
    return where(offsets == size_value(k), row, const(0, x.dtype))


@suggests_names
def trace(x: Any, offset: Any = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The sum of a diagonal; of integers and truth values in i64."""
    return sum(diagonal(x, offset, axis1, axis2), -1)


@suggests_names
def kron(a: Any, b: Any) -> Value:
    """The Kronecker product: each element of `a` times all of `b`, in its place. The shape is the
    product of both, with axes of size one before the shorter."""
    a = as_value(a)
    b = as_value(b, a)
    rank = max(a.rank, b.rank)
    a, b = (reshape(v, ((1,) * (rank - v.rank) + v.shape)) for v in (a, b))
    odd, even = range(1, 2 * rank, 2), range(0, 2 * rank, 2)
    pairs = expand_dims(a, tuple(odd)) * expand_dims(b, tuple(even))
    return reshape(pairs, [product(p) for p in zip(a.shape, b.shape, strict=True)])


@suggests_names
def cross(a: Any, b: Any, axis: int = -1) -> Value:
    """The vector product of vectors of three along the axis; the other axes broadcast.

    Raises `ShapeError` where the axis has not the size three.
    """
    a, b = as_value(a), as_value(b)
    parts = []
    for v in (a, b):
        position = axis_of(axis, v.rank, "cross: axis")
        if v.shape[position] != 3:
            raise ShapeError(f"cross needs three elements along axis {axis}, got {v.type}")
        parts.append([moveaxis(p, position, -1) for p in split(v, 3, position)])
    (a1, a2, a3), (b1, b2, b3) = parts
    y = concatenate([a2 * b3 - a3 * b2, a3 * b1 - a1 * b3, a1 * b2 - a2 * b1], -1)
    return moveaxis(y, -1, axis)


for _function in (tril, triu, diag, diagonal, trace):
    register(_function.__name__, _function)
