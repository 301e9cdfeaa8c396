"""Elements in other places: rolled, turned, laid out as grids, and their differences.

All have numpy's names, arguments and results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import mod, not_equal
from nncompile.ir.basic import as_value, cast, size_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, dim, product, with_axis
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ops.core.axes import axis_of
from nncompile.ops.core.counting import iota
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import ravel, reshape, swapaxes
from nncompile.ops.shape.slicing import along, flip


@suggests_names
def roll(x: Any, shift: Any, axis: int | Sequence[int] | None = None) -> Value:
    """`x` moved by `shift` places along the axis, around its end; along several axes by a number
    each, or one for all. Without an axis all elements are moved in one row.

    A shift is a number, a dimension, or an integer value that is known when the graph runs. Raises
    `ShapeError` where there are not as many shifts as axes.
    """
    x = as_value(x)
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    axes = list(axis) if isinstance(axis, tuple | list) else [axis]
    shifts = list(shift) if isinstance(shift, tuple | list) else [shift]
    count = max(len(axes), len(shifts))
    axes, shifts = (v * count if len(v) == 1 else v for v in (axes, shifts))
    if len(axes) != len(shifts):
        raise ShapeError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    rolled: Value = x
    for index, step in zip(axes, shifts, strict=True):
        rolled = _rolled(rolled, step, axis_of(index, x.rank, "roll: axis"))
    return rolled


def _rolled(x: Value, shift: Any, axis: int) -> Value:
    size: Any = x.shape[axis]
    if isinstance(shift, Value):
        if shift.rank:
            raise ShapeError(f"roll: a shift must be one number, got {shift.type}")
        indices = mod(iota(size) - cast(shift, iota(size).dtype), size_value(size))
        return take(x, indices, axis)
    shift = dim(shift)
    if isinstance(shift, int) and isinstance(size, int):
        offset: Dim = shift % size if size else 0
    else:  # of nothing, nothing is moved
        offset = dim(sp.Mod(shift, sp.Max(size, 1))) if shift != 0 else 0
    if offset == 0:
        return x
    rest = dim(size - offset)
    return concatenate([along(x, axis, rest, offset, 1), along(x, axis, 0, rest, 1)], axis)


@suggests_names
def rot90(x: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Value:
    """`x` turned by `k` right angles in the plane of two axes, from the first towards the second.
    Raises `ShapeError` where these are not two different axes."""
    x = as_value(x)
    if len(axes) != 2:
        raise ShapeError(f"rot90: a plane needs two axes, got {tuple(axes)}")
    first, second = (axis_of(a, x.rank, "rot90: axis") for a in axes)
    if first == second:
        raise ShapeError(f"rot90: a plane needs two different axes, got {tuple(axes)}")
    match k % 4:
        case 1:
            return swapaxes(flip(x, second), first, second)
        case 2:
            return flip(x, (first, second))
        case 3:
            return flip(swapaxes(x, first, second), second)
    result: Value = x
    return result


@suggests_names
def diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Value:
    """The differences of neighbours along the axis, `n` times: the size is `n` less. Of truth
    values, whether neighbours differ. `prepend` and `append`, a number or a value, are joined to
    `x` before.

    Raises `ShapeError` for a negative `n`, and for an axis that `x` does not have.
    """
    x = as_value(x)
    axis = axis_of(axis, x.rank, "diff: axis")
    if n < 0:
        raise ShapeError(f"diff: n must not be negative, got {n}")
    parts = [_joined_part(x, prepend, axis), x, _joined_part(x, append, axis)]
    y = concatenate([p for p in parts if p is not None], axis)
    for _ in range(n):
        before = (slice(None),) * axis
        after, first = y[(*before, slice(1, None))], y[(*before, slice(None, -1))]
        y = not_equal(after, first) if y.dtype.is_bool else after - first
    return y


def _joined_part(x: Value, other: Any, axis: int) -> Value | None:
    """The part to join to `x` along the axis; a number is one element."""
    if other is None:
        return None
    part = as_value(other, x)
    if part.rank:
        return part
    return broadcast_to(part, with_axis(x.shape, axis, 1))


@suggests_names
def meshgrid(*xs: Any, indexing: str = "xy", sparse: bool = False) -> tuple[Value, ...]:
    """Vectors as the coordinates of a grid: a value for each, which changes along its own axis
    alone. The axes are in the order of the vectors with `indexing="ij"`; with "xy" the first two
    are exchanged. `sparse` leaves the axes of the others at size one.

    Raises `ShapeError` for tensors of two axes or more, and for another `indexing`.
    """
    if indexing not in ("xy", "ij"):
        raise ShapeError(f'meshgrid: indexing must be "xy" or "ij", got {indexing!r}')
    vectors = [as_value(x) for x in xs]
    for v in vectors:
        if v.rank > 1:
            raise ShapeError(
                f"meshgrid: coordinates must be vectors, got {v.type}", hint="ravel(x)"
            )
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = [1, 0]
    columns = [
        reshape(v, [product(v.shape) if order[axis] == i else 1 for axis in range(len(order))])
        for i, v in enumerate(vectors)
    ]
    if sparse:
        return tuple(columns)
    shape = [product(vectors[i].shape) for i in order]
    return tuple(broadcast_to(c, shape) for c in columns)


register("roll", roll)
register("rot90", rot90)
register("diff", diff)
