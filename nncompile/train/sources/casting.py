"""Arrays of other element types than declared, converted batch by batch where nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError
from nncompile.diagnostics.printable import element
from nncompile.ir.types import Array, dtype_of, holds, is_numeric, is_real, numpy_name
from nncompile.runtime.feeds import Port, as_array, describe
from nncompile.train.sources.arrays import Rows
from nncompile.train.sources.notes import Notes

Cast = Callable[[Array, int], Array]
"""Converts an array, whose first row has that number in the data."""


def cast_to(port: Port, rows: Rows, notes: Notes, literal: bool = False) -> Cast | None:
    """What converts arrays of the type of these rows to that of the port; None where it is that.

    Numbers keep their values: integers become other integers or truth values where these have
    them, and reals where those do, which a `FeedError` names otherwise. Reals are rounded to
    narrower ones, which is noted unless the numbers are `literal`ly written, and refused where a
    number is beyond the largest. Raises `FeedError` for other types.
    """
    dtype = rows.dtype
    if dtype == port.dtype:
        return None
    if not is_numeric(dtype) or (is_real(dtype) and not is_real(port.dtype)):
        as_array(port, rows[:] if isinstance(rows, np.ndarray) else rows[:1])  # which raises it
    if holds(dtype_of(port.dtype), dtype_of(dtype)):
        return lambda array, _: array.astype(port.dtype)
    if is_real(dtype):
        if not literal:
            notes.tell(
                f"input {port.name!r} is {dtype.name}, and is rounded to {port.dtype.name}, batch "
                f"by batch; {port.name}.astype({numpy_name(port.dtype)}) does it once"
            )
        return lambda array, first: _rounded(port, array, first)
    return lambda array, first: _exact(port, array, first, notes)


def _rounded(port: Port, array: Array, first: int) -> Array:
    """Reals as narrower ones."""
    with np.errstate(over="ignore"):
        result = array.astype(port.dtype)
    if not np.isfinite(_extremes(result)).all():
        beyond = np.isinf(result) & np.isfinite(array)
        if beyond.any():
            raise _refused(port, array, first, beyond, "which ends before it")
    return result


def _exact(port: Port, array: Array, first: int, notes: Notes) -> Array:
    """Integers as numbers of another type, which must be the same numbers. Digits that reals lose
    of large ones are noted."""
    if array.size == 0:
        return array.astype(port.dtype)
    if is_real(port.dtype):
        result = array.astype(port.dtype)
        limit = 2 ** (np.finfo(port.dtype).nmant + 1) if port.dtype.kind == "f" else 2**8
        low, high = int(array.min()), int(array.max())
        if low < -limit or high > limit:
            beyond = ~np.isfinite(result)
            if beyond.any():
                raise _refused(port, array, first, beyond, "which ends before it")
            if (result.astype(np.float64) != array).any():
                notes.tell(
                    f"input {port.name!r} holds integers beyond {limit:,}, which {port.dtype.name} "
                    "rounds"
                )
        return result
    smallest, largest = (0, 1) if port.dtype.kind == "b" else _limits(port.dtype)
    wrong = (array < smallest) | (array > largest)
    if wrong.any():
        raise _refused(port, array, first, wrong, f"which ranges from {smallest:,} to {largest:,}")
    return array.astype(port.dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _extremes(array: Array) -> list[float]:
    """The least and the greatest number; NaN where there is one."""
    if array.size == 0:
        return [0.0]
    with np.errstate(invalid="ignore"):
        return [float(array.min()), float(array.max())]


def _refused(port: Port, array: Array, first: int, wrong: Array, reason: str) -> FeedError:
    position = tuple(np.argwhere(wrong)[0])
    place = (first + position[0], *position[1:]) if position else ()
    declared = describe(array.dtype, port.shape)
    return FeedError(
        f"input {port.name!r} holds {array[position]}, but is declared {port.dtype.name}, {reason}",
        rows=[
            ("expected", port.type),
            ("got", describe(array.dtype, array.shape)),
            ("first at", element(port.name, place)),
            ("in all", f"{wrong.sum():,} of {array.size:,}"),
        ],
        hint=f"declare the input {declared}",
    )
