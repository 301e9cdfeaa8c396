"""What an op does in every iteration of a loop, done for all iterations at once.

An argument that differs between iterations comes stacked along a first axis, the others as they
are. The result is stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nncompile.elementwise.map import Map, mapped
from nncompile.ir.broadcasting import Expand, broadcast_to
from nncompile.ir.dims import Dim, product
from nncompile.ir.op import Op, Value, apply
from nncompile.ops.contraction.gemm import Gemm, gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.shape.reshape import reshape, swapaxes


@dataclass(frozen=True)
class Rows:
    """An argument in one iteration (`row`), and what it is outside: stacked, or as it is."""

    row: Value
    stack: Value
    stacked: bool


def can_batch(value: Value) -> bool:
    """Whether the op can be done for all iterations at once."""
    return type(value.op) in _RULES or value.op.batched(1) is not None


def batched(value: Value, args: Sequence[Rows], length: Dim) -> Value:
    """The value for all `length` iterations, from its arguments, of which some are stacked."""
    if type(value.op) in _RULES:
        return _RULES[type(value.op)](value, args, length)
    op = value.op.batched(length)
    assert op is not None
    return apply(op, *(_stacked(a, length) for a in args))


def _elementwise(value: Value, args: Sequence[Rows], length: Dim) -> Value:
    op: Any = value.op
    operands = [_aligned(a, value.rank) for a in args]
    return broadcast_to(mapped(op.body, operands, op.derivatives), (length, *value.shape))


def _aligned(a: Rows, rank: int) -> Value:
    """A stacked argument with ones behind its first axis, so that rows broadcast as they did."""
    if not a.stacked or a.row.rank == rank:
        return a.stack
    ones = (1,) * (rank - a.row.rank)
    return reshape(a.stack, (a.stack.shape[0], *ones, *a.row.shape))


def _stacked(a: Rows, length: Dim) -> Value:
    return a.stack if a.stacked else broadcast_to(a.stack, (length, *a.row.shape))


def _expand(value: Value, args: Sequence[Rows], length: Dim) -> Value:
    return broadcast_to(_aligned(args[0], value.rank), (length, *value.shape))


def _matmul(value: Value, args: Sequence[Rows], length: Dim) -> Value:
    a, b = args
    if a.stacked and not b.stacked and b.row.rank == 2:
        return _times_matrix(a, b.stack)
    rank = max(a.row.rank, b.row.rank, 2)
    left, right = _matrices(a, rank, row=True), _matrices(b, rank, row=False)
    return reshape(left @ right, (length, *value.shape))


def _matrices(a: Rows, rank: int, row: bool) -> Value:
    """The argument with two axes at least, a vector as a row or a column."""
    shape = a.row.shape
    if len(shape) == 1:
        shape = (1, *shape) if row else (*shape, 1)
    ones = (1,) * (rank - len(shape))
    return reshape(a.stack, (a.stack.shape[0], *ones, *shape) if a.stacked else shape)


def _times_matrix(a: Rows, matrix: Value, transposed: bool = False, alpha: float = 1.0) -> Value:
    """All rows of all iterations times one matrix: one product of two matrices."""
    rows = reshape(a.stack, (product(a.stack.shape[:-1]), a.stack.shape[-1]))
    products = gemm(rows, matrix, transpose_b=transposed, alpha=alpha)
    return reshape(products, (*a.stack.shape[:-1], products.shape[-1]))


def _gemm(value: Value, args: Sequence[Rows], length: Dim) -> Value:
    op: Any = value.op
    a, b, *c = args
    if a.stacked and not b.stacked and not op.transpose_a:
        y = _times_matrix(a, b.stack, op.transpose_b, op.alpha)
    else:
        left = swapaxes(a.stack, -1, -2) if op.transpose_a else a.stack
        right = swapaxes(b.stack, -1, -2) if op.transpose_b else b.stack
        y = _scaled(left @ right, op.alpha)
        y = broadcast_to(y, (length, *value.shape))
    for addend in c:
        y = y + _scaled(_aligned(addend, 2), op.beta)
    return y


def _scaled(x: Value, number: float) -> Value:
    return x if number == 1 else x * number


# Ops whose arguments broadcast, and need not all be stacked.
_RULES: Mapping[type[Op], Callable[[Value, Sequence[Rows], Dim], Value]] = {
    Map: _elementwise,
    Expand: _expand,
    MatMul: _matmul,
    Gemm: _gemm,
}
