"""Axes as people write them (negative, one or several, None for all) as non-negative numbers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.op import Op


def axis_of(axis: Any, rank: int, name: str = "axis") -> int:
    """One axis of a tensor of that rank, counted from the front.

    Raises `ShapeError` for an axis that the tensor does not have.
    """
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise ShapeError(f"{name} must be an integer, got {axis!r}")
    number = operator.index(axis)
    if not -rank <= number < rank:
        hint = f"write one of -{rank} … {rank - 1}" if rank else None
        raise ShapeError(f"{name} {number} does not exist in a tensor of rank {rank}", hint=hint)
    return number % rank


def axes_of(axis: int | Sequence[int] | None, rank: int, name: str = "axis") -> tuple[int, ...]:
    """One axis, several, or all (None), in ascending order.

    Raises `ShapeError` for an axis that the tensor does not have, and for one given twice.
    """
    if axis is None:
        return tuple(range(rank))
    requested = axis if isinstance(axis, tuple | list) else (axis,)
    axes = [axis_of(a, rank, name) for a in requested]
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{name} {tuple(requested)} names one axis twice")
    return tuple(sorted(axes))


def same_axis(row_axes: Sequence[int | None]) -> int | None:
    """The axis that all arguments of an op have their rows along; None where these differ."""
    return row_axes[0] if len(set(row_axes)) == 1 else None


def example_by_example(op: Op, row_axes: Sequence[int | None], *types: Any) -> int | None:
    """`Op.rowwise` of an op that computes something of each example of its first argument, and has
    all of the others for each."""
    first, *rest = row_axes
    return first if first == 0 and set(rest) <= {None} else None


def row_by_row(op: Op, row_axes: Sequence[int | None], *types: Any) -> int | None:
    """`Op.rowwise` of an op of arguments of one shape, element by element."""
    return same_axis(row_axes)


def beside_axis(op: Any, row_axes: Sequence[int | None], *types: Any) -> int | None:
    """`Op.rowwise` of an op along its `axis` of its arguments, which agree in all others."""
    return None if op.axis in row_axes else same_axis(row_axes)
