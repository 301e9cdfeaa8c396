"""Losses that compare everything with everything, by an axis of size one that nobody meant."""

from __future__ import annotations

from collections.abc import Iterable

from nncompile.diagnostics.errors import warn
from nncompile.elementwise.map import Map
from nncompile.ir.dims import is_one, same
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import dependent
from nncompile.ir.types import Type
from nncompile.ops.shape.reshape import Reshape


def warn_of_tables(graph: Graph, losses: Iterable[Value]) -> None:
    """Warns of [n, 1] beside [n] on the way to `losses`: by the rule of broadcasting they make
    [n, n]. An axis that was put there on purpose, `x[:, None] - x`, is not reported."""
    order = toposort(losses)
    inputs = [v for v in order if isinstance(v.op, Input) and v.op.kind == "input"]
    data = dependent(order, inputs)
    for v in order:
        pair = _table(v, data) if isinstance(v.op, Map) else None
        if pair is not None:
            column, row = pair
            warn(
                f"{column.type} beside {row.type} broadcasts to {v.type}, every row with every "
                "other: give both the same shape, y[:, 0] or expand_dims(t, 1)",
                location=graph.locations.location(v),
            )


def _table(v: Value, data: set[Value]) -> tuple[Value, Value] | None:
    for column in v.args:
        for row in v.args:
            if column not in data or row not in data or not _is_column(column, row):
                continue
            if not isinstance(column.op, Reshape) or column.args[0].rank > 1:
                return column, row
    return None


def _is_column(column: Value, row: Value) -> bool:
    if not isinstance(column.type, Type) or row.rank != 1 or column.rank < 2:
        return False
    size = row.shape[0]
    rows, last = column.shape[-2:]
    return not isinstance(size, int) and same(rows, size) is True and is_one(last)
