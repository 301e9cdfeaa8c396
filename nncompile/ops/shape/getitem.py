"""`x[...]`: numbers, slices, None, Ellipsis and integer tensors, by numpy's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.locations import message_name
from nncompile.elementwise import where
from nncompile.ir.basic import as_value, cast, size_value
from nncompile.ir.dims import Dim, dim, floordiv, product, same_shape
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ir.types import i64
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.selecting import nonzero
from nncompile.ops.shape.slicing import part


@message_name("indexing")
def getitem(x: Any, key: Any) -> Value:
    """`x[key]` as in numpy: numbers, slices, None, Ellipsis, integer tensors or arrays, and masks:
    `x[mask]` is the elements where the mask is true, as many as there are when the graph runs.

    A slice takes what there is, on an axis of symbolic size, too: `x[:8]` of `n` elements has
    `Min(8, n)`, `x[8:]` the other `n - Min(8, n)`; of an axis written "n + 8" these are 8 and `n`.
    Beside a size of 8 it is taken to be 8, and data of less are refused. A symbolic bound, `x[:m]`,
    must lie within the axis: other data are refused.

    Several tensors pick single elements together, and must stand next to each other. Raises
    `ShapeError` for too many or foreign keys, and for a mask of another shape than the axes that it
    stands for; `DTypeError` for a key of real numbers.
    """
    x = as_value(x)
    keys = _full_key(key, x)
    tensors = [i for i, k in enumerate(keys) if isinstance(k, Value)]
    if tensors:
        # Numbers beside tensors are indices like them.
        tensors = [i for i, k in enumerate(keys) if isinstance(k, Value) or _is_number(k)]
        if tensors[-1] - tensors[0] >= len(tensors):
            raise ShapeError(
                "index tensors that are used together must be on adjacent axes",
                hint="transpose so that their axes are adjacent, or index one after the other",
            )
    starts: list[Dim] = []
    sizes: list[Dim] = []
    steps: list[int] = []
    shape: list[Dim] = []  # of the result, without the axes of numbers and with those of None
    lead = 0  # axes of the result before the tensors
    axis = 0
    for i, k in enumerate(keys):
        if tensors and i == tensors[0]:
            lead = len(shape)
        if k is None:
            shape.append(1)
            continue
        total = x.shape[axis]
        start, size, step = (0, total, 1) if i in tensors else _bounds(k, total, axis, x)
        axis += 1
        starts.append(start)
        sizes.append(size)
        steps.append(step)
        if isinstance(k, slice) or i in tensors:
            shape.append(size)
    cut = reshape(part(x, starts, sizes, steps), shape)
    return _gathered(cut, lead, [keys[i] for i in tensors]) if tensors else cut


def _full_key(key: Any, x: Value) -> list[Any]:
    """The parts of the key, one for each axis of `x` and None for each new one."""
    parts = list(key) if isinstance(key, tuple) else [key]
    keys = [k if _is_plain(k) else _tensor(k) for k in parts]
    used = sum(_axes_of(k) for k in keys)
    ellipses = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(ellipses) > 1:
        raise ShapeError("an index can have only one ellipsis")
    if used > x.rank:
        raise ShapeError(f"{used} indices for the {x.rank} axes of {x.type}")
    index = ellipses[0] if ellipses else len(keys)
    keys[index : index + 1] = [slice(None)] * (x.rank - used)
    expanded: list[Any] = []
    axis = 0
    for k in keys:
        if isinstance(k, Value) and k.dtype.is_bool:
            _check_mask(k, x, axis)
            expanded += nonzero(k)
        else:
            expanded.append(k)
        axis += _axes_of(k)
    return expanded


def _axes_of(k: Any) -> int:
    """How many axes a part of a key stands for."""
    if k is None or k is Ellipsis:
        return 0
    return k.rank if isinstance(k, Value) and k.dtype.is_bool else 1


def _check_mask(mask: Value, x: Value, axis: int) -> None:
    """That a mask has the shape of the axes that it stands for."""
    shape = x.shape[axis : axis + mask.rank]
    if not mask.rank or same_shape(mask.shape, shape) is not True:
        raise ShapeError(
            f"a mask of {mask.type} does not fit the axes {tuple(range(axis, axis + mask.rank))} "
            f"of {x.type}",
            hint="give axes of the same size the same name",
        )


def _is_number(k: Any) -> bool:
    return isinstance(k, int | np.integer | sp.Expr) and not isinstance(k, bool)


def _is_plain(k: Any) -> bool:
    return k is None or k is Ellipsis or isinstance(k, slice) or _is_number(k)


def _tensor(k: Any) -> Value:
    value = as_value(np.asarray(k) if isinstance(k, list) else k)
    if value.dtype.is_float:
        raise DTypeError(
            f"an index must be an integer, got {value.type}", hint="x.astype(i64) converts"
        )
    return value


def _bounds(k: Any, total: Dim, axis: int, x: Value) -> tuple[Dim, Dim, int]:
    """Start, number and step of the elements that a number or a slice chooses."""
    if isinstance(k, slice):
        return _slice_bounds(k, total)
    index = _from_front(k, total)
    if isinstance(index, int) and isinstance(total, int) and not 0 <= index < total:
        raise ShapeError(f"index {k} is out of range for axis {axis} of {x.type}")
    return index, 1, 1


def _slice_bounds(k: slice, total: Dim) -> tuple[Dim, Dim, int]:
    step = 1 if k.step is None else dim(k.step)
    if not isinstance(step, int) or step == 0:
        raise ShapeError(f"the step of a slice must be a nonzero number, got {k.step}")
    limits: list[Any] = [None if bound is None else dim(bound) for bound in (k.start, k.stop)]
    if isinstance(total, int) and not any(isinstance(bound, sp.Expr) for bound in limits):
        indices = range(*slice(limits[0], limits[1], step).indices(total))
        return (indices.start if len(indices) else 0), len(indices), step
    # The elements from `low` up to `high`, of which a negative step begins with the last.
    shift, bounds = (0, limits) if step > 0 else (1, limits[::-1])
    low = _Position.of(bounds[0], total, shift) or _Position(0, 0)
    high = _Position.of(bounds[1], total, shift) or _Position(total, 0, from_end=True)
    begin, end = _between(low, high, total)
    size = floordiv(dim(end - begin + abs(step) - 1), abs(step))
    if isinstance(size, int) and size <= 0:
        return 0, 0, step
    return (begin if step > 0 else dim(end - 1)), size, step


@dataclass(frozen=True)
class _Position:
    """A bound of a slice on an axis of symbolic size: where it is, and where that is a number, how
    many elements are before it, or after it where it is counted `from_end`."""

    position: Dim
    count: int | None = None
    from_end: bool = False

    @classmethod
    def of(cls, bound: Any, total: Dim, shift: int) -> _Position | None:
        """That of a bound, `shift` further on; None where there is none."""
        if bound is None:
            return None
        position = dim(_from_front(bound, total) + shift)
        if not isinstance(bound, int):
            return cls(position)
        from_end = bound < 0
        return cls(position, -bound - shift if from_end else bound + shift, from_end)

    def within(self, total: Dim) -> Dim:
        """Where it is on the axis: as far as there are elements."""
        count = _at_most(self.count, total)
        return dim(total - count if self.from_end else count)


def _at_most(count: Any, total: Dim) -> Any:
    """Min(count, total). Of what a slice left, n − Min(k, n), it is Min(count + k, n) − Min(k, n):
    a slice of a slice is as short as one slice, where each would double what the one before was.
    """
    for term in getattr(total, "args", ()) if isinstance(total, sp.Add) else ():
        cut, whole = -term, total - term
        if isinstance(cut, sp.Min) and whole in cut.args and len(cut.args) == 2:
            (before,) = (x for x in cut.args if x != whole)
            if before.is_Integer:
                return sp.Min(count + before, whole) - cut
    return sp.Min(count, total)


def _between(low: _Position, high: _Position, total: Dim) -> tuple[Dim, Dim]:
    """Where the elements between two places begin and end, as far as there are any; symbolic
    bounds are taken for granted."""
    if low.count is None or high.count is None:
        return low.position, high.position
    begin, end = low.within(total), high.within(total)
    if low.from_end is high.from_end:
        is_empty = low.count <= high.count if low.from_end else low.count >= high.count
        return (0, 0) if is_empty else (begin, end)
    if low.from_end:
        return begin, dim(sp.Max(begin, end))
    left = total - _at_most(low.count + high.count, total)  # all but so many
    return begin, dim(begin + left)


def _from_front(bound: Any, total: Dim) -> Dim:
    """A bound that may count from the end, counted from the front."""
    bound = dim(bound)
    negative = bound < 0 if isinstance(bound, int) else bound.is_nonpositive
    return dim(total + bound) if negative else bound


def _gathered(x: Value, axis: int, indices: Sequence[Any]) -> Value:
    """The elements at the indices, one for each axis from `axis` on."""
    if len(indices) == 1:
        return take(x, indices[0], axis)
    sizes = x.shape[axis : axis + len(indices)]
    flat = reduce(
        lambda position, pair: position * size_value(pair[1]) + _from_start(*pair),
        zip(indices, sizes, strict=True),
        as_value(np.int64(0)),
    )
    shape = (*x.shape[:axis], product(sizes), *x.shape[axis + len(indices) :])
    return take(reshape(x, shape), flat, axis)


def _from_start(index: Any, size: Dim) -> Value:
    """An index as i64, counted from the front."""
    if not isinstance(index, Value):
        return size_value(_from_front(index, size))
    index = cast(index, i64)
    result: Value = where(index < 0, index + size_value(size), index)
    return result


register("getitem", getitem)
