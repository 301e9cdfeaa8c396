"""Tables by the names of their columns: of pandas, polars, arrow, or what else has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError, did_you_mean
from nncompile.ir.types import Array, is_numeric
from nncompile.runtime.feeds import Port
from nncompile.train.sources.arrays import rows_of
from nncompile.train.sources.notes import Notes

_SHOWN = 8  # columns that a message lists


def is_table(x: Any) -> bool:
    """Whether `x` has named columns: `x.columns` (or `x.column_names`, of arrow) and `x[name]`."""
    names = getattr(x, "column_names", None)
    names = getattr(x, "columns", None) if names is None else names
    return names is not None and not callable(names) and hasattr(x, "__getitem__")


def column_names(table: Any) -> list[str]:
    """The names of the columns, in order. Raises `FeedError` for a table that is not computed
    yet, and where one name stands twice."""
    if type(table).__name__ == "LazyFrame":
        raise FeedError("a LazyFrame has no rows yet", hint="data.collect() computes them")
    names = list(map(str, _labels(table)))
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise FeedError(f"the table has several columns {twice!r}", hint="rename one of them")
    return names


class Columns:
    """Which columns of a table each input takes. Another table gives the same ones, by their
    names: a prediction does not depend on the order of the columns."""

    def __init__(self, names: Sequence[str], notes: Notes) -> None:
        self._inputs = frozenset(names)  # all inputs of the model, by name
        self._notes = notes
        self._chosen: dict[str, list[str]] = {}

    def feeds(self, table: Any, ports: Sequence[Port]) -> dict[str, Array]:
        """The arrays of the ports. One that a column has the name of takes that column; another
        one, of a row of numbers for each example, all columns of numbers that remain, in their
        order. It is said which they are, and which others are left out.

        Raises `FeedError` for a port without a column, for several that would take all others, and
        for columns that are not numbers.
        """
        names = column_names(table)
        labels = dict(zip(names, _labels(table), strict=True))
        feeds: dict[str, Array] = {}
        matrices = []
        for port in ports:
            if port.name in labels:
                feeds[port.name] = _column(port.name, table[labels[port.name]])
            elif len(port.shape) == 2:
                matrices.append(port)
            else:
                raise FeedError(
                    f"the table has no column {port.name!r}",
                    rows=[("input", port.name, port.type), ("columns", _listed(names))],
                    hint=did_you_mean(port.name, names),
                )
        if len(matrices) > 1:
            raise FeedError(
                "several inputs would take the columns that have no input of their name",
                rows=[("input", port.name, port.type) for port in matrices],
                hint=f"say which: {{{matrices[0].name!r}: table[[…]], …}}",
            )
        for port in matrices:
            columns = self._columns_of(port, labels, table)
            feeds[port.name] = matrix(table, [labels[name] for name in columns], port.name)
        return feeds

    def _columns_of(self, port: Port, labels: Mapping[str, Any], table: Any) -> list[str]:
        """The names of the columns that the port takes, of all, which the table calls `labels`."""
        width = port.shape[1]
        chosen = self._chosen.get(port.name)
        if chosen is not None:
            missing = [name for name in chosen if name not in labels]
            if missing:
                raise FeedError(
                    f"the table lacks {len(missing)} of the {len(chosen)} columns of input "
                    f"{port.name!r}: {_listed(missing)}",
                    rows=[("trained on", _listed(chosen)), ("got", _listed([*labels]))],
                    hint=did_you_mean(missing[0], labels),
                )
            return chosen
        others = {n: _column(n, table[x]) for n, x in labels.items() if n not in self._inputs}
        remaining = [name for name, x in others.items() if is_numeric(x.dtype) and x.ndim == 1]
        left_out = {name: _kind(x) for name, x in others.items() if name not in remaining}
        if isinstance(width, int) and len(remaining) != width:
            raise FeedError(
                f"input {port.name!r} takes {width} columns, {len(remaining)} of numbers have no "
                "input of their name",
                rows=[
                    ("expected", port.type),
                    ("columns", _listed(remaining)),
                    *(("no numbers", name, kind) for name, kind in left_out.items()),
                ],
                hint=f"choose them: {{{port.name!r}: table[[…]], …}}, or declare "
                f"{port.name}=f32[{port.shape[0]!r}, {len(remaining)}]",
            )
        self._chosen[port.name] = remaining
        rest = f"; left out: {_listed(list(left_out))}" if left_out else ""
        self._notes.tell(f"input {port.name!r} takes the columns {_listed(remaining)}{rest}")
        return remaining


def matrix(table: Any, columns: Sequence[Any] | None = None, name: str = "x") -> Array:
    """Columns of numbers (all of them by default), one beside the other, in the type that holds
    all. Raises `FeedError` for columns of other things."""
    chosen = _labels(table) if columns is None else columns
    arrays = [_column(name, table[column]) for column in chosen]
    for column, array in zip(chosen, arrays, strict=True):
        if not is_numeric(array.dtype) or array.ndim != 1:
            raise FeedError(
                f"column {str(column)!r} of the table holds no numbers, but {_kind(array)}",
                rows=[("input", name), ("first", f"{array[0]!r:.60}")] if len(array) else [],
                hint="codes of categories are numbers: "
                f"table[{str(column)!r}].astype('category').cat.codes in pandas; or leave it out",
            )
    if not arrays:
        raise FeedError(f"input {name!r} gets no column of the table")
    return np.column_stack(arrays)


def _column(name: str, column: Any) -> Array:
    rows = rows_of(name, column)
    return rows if isinstance(rows, np.ndarray) else rows[:]


def _labels(table: Any) -> list[Any]:
    """The columns as the table calls them, which need not be text."""
    names = getattr(table, "column_names", None)
    return list(table.columns if names is None else names)


def _kind(array: Array) -> str:
    if array.dtype.kind in "OUST":
        return "text or other objects"
    return {"M": "dates", "m": "spans of time"}.get(array.dtype.kind, str(array.dtype))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:_SHOWN]))
    return f"{shown}, … ({len(names)})" if len(names) > _SHOWN else shown or "none"
