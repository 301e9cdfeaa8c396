"""What the axes of space, those of [batch, channels, *sizes] after the first two, are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncompile.ir.op import Op
from nncompile.ops.core.axes import same_axis

LEAD = 2  # axes before those of space: the batch and the channels

_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def form_of(rank: int) -> str:
    """How data with so many axes of space are written: `[batch, channels, height, width]`."""
    return f"[batch, channels, {', '.join(_NAMES.get(rank, ('*sizes',)))}]"


def axis_of(axis: int, rank: int) -> str:
    """One of so many axes of space, counted from its first one, by its name and its place among
    all axes: `the height (axis 2)`."""
    text = f"axis {LEAD + axis}"
    return f"the {_NAMES[rank][axis]} ({text})" if rank in _NAMES else text


def plane_by_plane(op: Op, row_axes: Sequence[int | None], *types: Any) -> int | None:
    """`Op.rowwise` of an op that computes something of each channel of each example."""
    axis = same_axis(row_axes)
    return axis if axis in range(LEAD) else None
