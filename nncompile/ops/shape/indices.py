"""Indices as operands, and what is put at them.

Indices are integers; negative ones count from the end, as numpy's do. An index beyond an axis is
an error of the runtime where that checks it (the CPU provider of onnxruntime does), otherwise
undefined.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, product, same_shape, with_axis
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, i32, i64
from nncompile.ops.shape.reshape import reshape


def check_integer(indices: Type) -> None:
    """Raises `DTypeError` where `indices` are not integers."""
    if not indices.dtype.is_integer:
        raise DTypeError(f"indices must be integers, got {indices}", hint="use x.astype(i64)")


def check_others(x: Type, indices: Type, axis: int) -> None:
    """That two types have the same sizes but along the axis."""
    pair = [with_axis(t.shape, axis) for t in (x, indices)]
    if x.rank != indices.rank or same_shape(*pair) is not True:
        raise ShapeError(f"{x} and {indices} may differ along axis {axis} only")


def check_ranks(x: Value, indices: Value) -> None:
    """Raises `ShapeError` where `x` and `indices` have different numbers of axes."""
    if x.rank != indices.rank:
        raise ShapeError(f"ranks differ, {x.type} and indices {indices.type}")


def scattered_type(x: Type, indices: Type, updates: Type, axis: int) -> Type:
    """The type of `x` after updates were combined with its elements at indices along the axis."""
    check_integer(indices)
    check_others(x, indices, axis)
    if updates.dtype is not x.dtype or x.dtype.is_bool:
        raise DTypeError(f"cannot combine {updates} with {x}")
    if same_shape(updates.shape, indices.shape) is not True:
        raise ShapeError(f"{indices} and {updates} must have one shape")
    return x


def numpy_scattered(
    combine: np.ufunc, x: Array, indices: Array, updates: Array, axis: int
) -> Array:
    """`x` with updates combined with its elements at indices along the axis."""
    result = np.array(x)
    grid: list[Any] = list(np.ogrid[tuple(map(slice, indices.shape))])
    grid[axis] = indices.astype(np.int64)
    combine.at(result, tuple(grid), updates)
    return result


def places_of(o: OnnxEmitter, indices: str) -> str:
    """Indices in a type that ONNX has them in."""
    return indices if o.types[1].dtype in (i32, i64) else o.cast(indices, i64)


def torch_places(t: TorchEmitter, indices: str, size: Dim) -> str:
    """Indices as torch's index functions want them: i64, counted from the start. Those that are
    out of range stay so, and torch refuses them."""
    dtype = t.types[1].dtype
    positions: str = t.cast(indices, dtype, i64)
    if not dtype.is_signed:
        return positions
    return t.where(t.lt(positions, 0), t.add(positions, t.dim(size)), positions)


def elements_at(x: Value, indices: Value, values: Value, axis: int) -> tuple[Value, Value]:
    """Indices and values in the shape of `x` but along the axis, as the scatters take them."""
    check_ranks(x, indices)
    shape = with_axis(x.shape, axis, indices.shape[axis])
    return broadcast_to(indices, shape), broadcast_to(values, shape)


def slices_at(x: Value, indices: Value, updates: Value, axis: int) -> tuple[Value, Value]:
    """The indices as a vector, and beside each its slice of `x` across the axis: `updates` as one
    slice after the other."""
    count = product(indices.shape)
    updates = broadcast_to(updates, with_axis(x.shape, axis, *indices.shape))
    return reshape(indices, (count,)), reshape(updates, with_axis(x.shape, axis, count))


def as_column(row: Value, like: Value, axis: int) -> Value:
    """A vector as it broadcasts along the axis of `like`."""
    return reshape(row, (row.shape[0], *(1 for _ in like.shape[axis + 1 :])))
