"""Scattered gradients: added where the rest already stands, sums that do not need the scatter, and
small tables, to which a matrix product adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nncompile.elementwise import exp, where
from nncompile.elementwise.map import Map, mapped, over
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import Expand, broadcast_to, zeros_like
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32, i64, u32
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.core.counting import iota
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.gathering import ScatterAdd
from nncompile.passes.maps import is_zero, terms
from nncompile.passes.rewriter import Changes, Steps, on, rule, rules, uses


@rules
def scatters() -> Changes:
    """Makes a scatter that is added to a tensor one into that tensor (the gradient of a
    cross-entropy is one into the probabilities), and one into a small table a product."""
    return [sum_of_scatter, scatter_into_sum, scatter_into_small_table]


@rule(f32[2, 3], i64[2, 1], f32[2, 1], 1, (1,), False)
def sum_of_scatter(
    x: Value, indices: Value, updates: Value, axis: int, axes: tuple[int, ...], keepdims: bool
) -> Steps:
    """The sum over the axis that is scattered along does not ask where the updates went."""
    yield Sum(axes, keepdims)(ScatterAdd(axis)(x, indices, updates))
    if axis not in axes:
        return "the sum is over other axes"
    if not is_zero(x):
        return "the updates are not added to zeros"
    yield Sum(axes, keepdims)(updates)


@sum_of_scatter.refuses(f32[2, 3], i64[2, 1], f32[2, 1])
def _(x: Value, indices: Value, updates: Value) -> Iterator[Any]:
    yield Sum((0,))(ScatterAdd(1)(zeros_like(x), indices, updates))
    yield Sum((1,))(ScatterAdd(1)(x, indices, updates))


@on(Map)
def scatter_into_sum(value: Value) -> Value | None:
    """`p·scatter(0, i, u) + q` is `scatter(q, i, p·u)`, for a scalar `p`."""
    if not isinstance(value.op, Map) or not value.dtype.is_float:
        return None
    for i, inner in enumerate(value.args):
        if not isinstance(inner.op, ScatterAdd) or uses(inner) != 1 or not is_zero(inner.args[0]):
            continue
        split = terms(value.op.body, i)
        if split is None or inner.type != value.type:
            continue
        factor, rest = split
        zeros, indices, updates = inner.args
        if any(a.rank for j, a in enumerate(value.args) if factor.has(placeholder(j))):
            continue
        base = over(rest, value.args, value) if rest != 0 else zeros
        scaled = mapped(factor * placeholder(len(value.args)), (*value.args, updates))
        if base is not None and base.type == value.type and scaled.type == updates.type:
            return apply(inner.op, base, indices, scaled)
    return None


@scatter_into_sum.refuses(f32[2, 3], i64[2, 1], f32[2, 1], f32[5, 2, 3], i64[2, 3])
def _(x: Value, indices: Value, updates: Value, stack: Value, n: Value) -> Iterator[Any]:
    scattered = ScatterAdd(1)(zeros_like(x), indices, updates)
    yield n + n
    yield exp(x)
    yield ScatterAdd(1)(x, indices, updates) + x
    yield scattered + x, scattered
    yield exp(scattered)
    yield scattered + stack
    yield scattered * x
    yield scattered + 1


@on(ScatterAdd)
def scatter_into_small_table(value: Value) -> Value | None:
    """Whole rows added to a table of few, the gradient of a small embedding: one-hot numbers times
    the rows.

    The product takes time in proportion to the rows of the table; measured on onnxruntime, it is
    the faster one up to 128 rows of 32 numbers, 256 of 128 and 512 of 512: rows² = 512·numbers.
    """
    table, indices, updates = value.args
    if value.op != ScatterAdd(0) or value.rank != 2 or not value.dtype.is_float:
        return None
    rows, numbers = value.shape
    small = isinstance(rows, int) and isinstance(numbers, int) and rows**2 <= 512 * numbers
    if not small or not isinstance(indices.op, Expand) or indices.args[0].shape[1:] != (1,):
        return None
    (column,) = indices.args
    if column.dtype is not u32:
        column = where(column < 0, column + cast(const(rows), column.dtype), column)
    one_hot = cast(column == iota(rows, column.dtype), value.dtype)
    if is_zero(table):
        return gemm(one_hot, updates, transpose_a=True)
    return gemm(one_hot, updates, table, transpose_a=True)


@scatter_into_small_table.refuses(
    f32[4, 2],
    f32[100, 2],
    i64[3, 1],
    f32[3, 2],
    i64[3, 2],
    i64[4, 2],
    f32["n", 2],
    i64[4, 1],
    f32[4, 2],
)
def _(
    table: Value,
    large: Value,
    column: Value,
    rows: Value,
    matrix: Value,
    n: Value,
    symbolic: Value,
    two: Value,
    square: Value,
) -> Iterator[Any]:
    indices = broadcast_to(column, (3, 2))
    yield ScatterAdd(1)(table, broadcast_to(two, (4, 2)), square)
    yield ScatterAdd(0)(n, indices, cast(rows, i64))
    yield ScatterAdd(0)(large, indices, rows)
    yield ScatterAdd(0)(symbolic, indices, rows)
    yield ScatterAdd(0)(table, matrix, rows)
    yield ScatterAdd(0)(table, broadcast_to(matrix[:1], (3, 2)), rows)
