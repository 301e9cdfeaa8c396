"""Rows that are added to those of a table, as calls of the native kernel `RowScatterAdd`."""

from __future__ import annotations

from collections.abc import Sequence

from nncompile.ir.basic import Constant
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import is_one, same_shape
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.types import f32, i64
from nncompile.ops.loops.outlined import outlined
from nncompile.ops.shape.gathering import ScatterAdd


def scatter_calls(graph: Graph) -> Graph:
    """The graph with calls of the kernel where whole rows are added."""
    if not any(isinstance(v.op, ScatterAdd) for v in graph.nodes):
        return graph
    return graph.mapped(_called)


def _called(outputs: Sequence[Value]) -> list[Value]:
    def make(v: Value, args: list[Value]) -> Value:
        new = rebuilt(v, args)
        arguments = _arguments(new) if isinstance(new.op, ScatterAdd) else ()
        if not arguments:
            return new
        options = {} if len(arguments) > 2 else {"rows": new.shape[0]}
        return outlined("RowScatterAdd", arguments, (new,), **options)[new]

    return transformed(outputs, make)


def _arguments(v: Value) -> tuple[Value, ...]:
    """The numbers of the rows, the rows, and what they are added to, unless that is 0; none where
    it is not rows that are added."""
    op, (x, indices, updates) = v.op, v.args
    assert isinstance(op, ScatterAdd)
    if op.axis != 0 or v.rank != 2 or v.dtype is not f32 or not isinstance(indices.op, Expand):
        return ()
    (column,) = indices.args
    is_column = column.dtype is i64 and column.rank == 2 and is_one(column.shape[1])
    if not is_column or same_shape(column.shape[:1], updates.shape[:1]) is not True:
        return ()
    if _is_zero(x) and isinstance(x.shape[0], int) and isinstance(x.shape[1], int):
        return column, updates
    return column, updates, x


def _is_zero(x: Value) -> bool:
    while isinstance(x.op, Expand):
        (x,) = x.args
    return isinstance(x.op, Constant) and not x.op.value.any()
