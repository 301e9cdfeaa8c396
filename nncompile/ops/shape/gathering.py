"""Elements by their places: take and along-axis take, their inverses that add, and one-hot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value, cast
from nncompile.ir.broadcasting import broadcast_to, zeros_like
from nncompile.ir.dims import broadcast, dim, with_axis
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, boolean, dtype_of, f32, f64, i32, i64, u32
from nncompile.ops.core.axes import axis_of, beside_axis
from nncompile.ops.core.counting import iota
from nncompile.ops.core.long_sums import SCATTERED
from nncompile.ops.shape.indices import (
    as_column,
    check_integer,
    check_others,
    check_ranks,
    elements_at,
    numpy_scattered,
    places_of,
    scattered_type,
    slices_at,
    torch_places,
)
from nncompile.ops.shape.reshape import expand_dims, ravel, reshape


class Gather(Op):
    """The slices of `x` across `axis` at `indices`, whose axes take that axis's place."""

    axis: int
    moves = True
    copies = 1
    indexes = True

    def infer(self, x: Type, indices: Type) -> Type:
        check_integer(indices)
        return Type(x.dtype, with_axis(x.shape, self.axis, *indices.shape))

    def pullback(self, g: Value, y: Value, x: Value, indices: Value) -> Sequence[Value | None]:
        return scatter_add(zeros_like(x), indices, g, self.axis), None

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        table, index = row_axes
        if table is None:
            return None if index is None else self.axis + index
        if index is not None or table == self.axis:
            return None
        return table if table < self.axis else table + types[1].rank - 1

    def numpy(self, x: Array, indices: Array) -> Array:
        return np.take(x, indices.astype(np.int64), self.axis)

    def onnx(self, o: OnnxEmitter, x: str, indices: str) -> str:
        return o.Gather(x, places_of(o, indices), axis=self.axis)

    def torch(self, t: TorchEmitter, x: str, indices: str) -> str:
        source = t.types[0].shape[self.axis]
        positions = torch_places(t, indices, source)
        if t.types[1].rank == 1:
            return t.call("torch.index_select", x, self.axis, positions)
        rows = t.call("torch.index_select", x, self.axis, t.method(positions, "reshape", [-1]))
        return t.method(rows, "reshape", t.shape(t.type.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0), (f32[5, "n"], i64["m"]), integers=(0, 5))
        yield Sample(cls(1), (f32["n", 4, 2], i64["n", 3]), integers=(-4, 4))
        yield Sample(cls(0), (f32[4], i32[()]), integers=(0, 4))
        yield Sample(cls(1), (f32["n", 3], u32[2]), integers=(0, 3))
        yield Sample(cls(0), (boolean[2, "n"], i64["m"]), integers=(0, 2))
        yield Sample(cls(0), (u32[3], i64[2, 2]), integers=(0, 3))


class TakeAlongAxis(Op):
    """`y[…, i, …] = x[…, indices[…, i, …], …]`; the other axes of both are the same."""

    axis: int
    moves = True
    copies = 1
    indexes = True

    def infer(self, x: Type, indices: Type) -> Type:
        check_integer(indices)
        check_others(x, indices, self.axis)
        return Type(x.dtype, indices.shape)

    def pullback(self, g: Value, y: Value, x: Value, indices: Value) -> Sequence[Value | None]:
        return ScatterAdd(self.axis)(zeros_like(x), indices, g), None

    rowwise = beside_axis

    def numpy(self, x: Array, indices: Array) -> Array:
        return np.take_along_axis(x, indices.astype(np.int64), self.axis)

    def onnx(self, o: OnnxEmitter, x: str, indices: str) -> str:
        return o.GatherElements(x, places_of(o, indices), axis=self.axis)

    def torch(self, t: TorchEmitter, x: str, indices: str) -> str:
        positions = torch_places(t, indices, t.types[0].shape[self.axis])
        return t.call("torch.gather", x, self.axis, positions)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(1), (f32["n", 4], i64["n", 1]), integers=(-4, 4))
        yield Sample(cls(0), (f32[3, "n"], i32["m", "n"]), integers=(0, 3))
        yield Sample(cls(0), (f32[5], u32["n"]), integers=(0, 5))
        yield Sample(cls(1), (boolean[2, 3, "n"], i64[2, 2, "n"]), integers=(0, 3))


class ScatterAdd(Op):
    """`x` with `updates[…, i, …]` added at `indices[…, i, …]` along the axis; the updates of
    equal indices are all added."""

    axis: int
    indexes = True

    def infer(self, x: Type, indices: Type, updates: Type) -> Type:
        return scattered_type(x, indices, updates, self.axis)

    def pullback(
        self, g: Value, y: Value, x: Value, indices: Value, updates: Value
    ) -> Sequence[Value | None]:
        return g, None, TakeAlongAxis(self.axis)(g, indices)

    rowwise = beside_axis

    def numpy(self, x: Array, indices: Array, updates: Array) -> Array:
        return numpy_scattered(np.add, x, indices, updates, self.axis)

    def onnx(self, o: OnnxEmitter, x: str, indices: str, updates: str) -> str:
        # ScatterND adds wrongly where several threads meet at one index; this does not.
        def added(o: OnnxEmitter, x: str, updates: str) -> str:
            positions = places_of(o, indices)
            return o.ScatterElements(x, positions, updates, axis=self.axis, reduction="add")

        if o.type.dtype is not f32:
            return added(o, x, updates)

        def in_double(o: OnnxEmitter) -> str:
            return o.cast(added(o, o.cast(x, f64), o.cast(updates, f64)), f32)

        size = o.types[1].shape[self.axis]
        return o.by_size(size, SCATTERED, lambda o: added(o, x, updates), in_double, o.type)

    def torch(self, t: TorchEmitter, x: str, indices: str, updates: str) -> str:
        positions = torch_places(t, indices, t.types[0].shape[self.axis])
        if t.type.dtype is not f32:
            total = t.call("torch.scatter_add", x, self.axis, positions, updates)
            return t.wrapped(total, t.type.dtype)
        single, double = (
            f"torch.scatter_add({x}{wide}, {self.axis}, {positions}, {updates}{wide})"
            for wide in ("", ".double()")
        )
        size = t.types[1].shape[self.axis]
        return t.by_size(size, SCATTERED, single, f"{double}.float()", "scatter_add")

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(1), (f32["n", 4], i64["n", 3], f32["n", 3]), integers=(-4, 4))
        yield Sample(cls(0), (f32[3, "n"], i32["m", "n"], f32["m", "n"]), integers=(0, 3))
        yield Sample(cls(0), (i64[5], u32["n"], i64["n"]), integers=(0, 5))
        yield Sample(cls(0), (u32[2], i64["n"], u32["n"]), integers=(0, 2))


@suggests_names
def take(x: Any, indices: Any, axis: int | None = None) -> Value:
    """The slices of `x` across the axis at `indices`: result shape is that of `x` with the shape
    of `indices` in place of the axis. Without an axis, elements of `x` as a vector.

    With `axis=0` it looks up the rows of a table (embedding).
    """
    x, indices = as_value(x), as_value(indices)
    if axis is None:
        x, axis = ravel(x), 0
    return Gather(axis_of(axis, x.rank))(x, indices)


@suggests_names
def scatter_add(x: Any, indices: Any, updates: Any, axis: int = 0) -> Value:
    """`x` with `updates` added to its slices across the axis at `indices`, the inverse of `take`:
    shape of `updates` is that of `take(x, indices, axis)`."""
    x, indices = as_value(x), as_value(indices)
    updates = as_value(updates, x)
    axis = axis_of(axis, x.rank)
    row, slices = slices_at(x, indices, updates, axis)
    column = broadcast_to(as_column(row, slices, axis), slices.shape)
    return ScatterAdd(axis)(x, column, slices)


@suggests_names
def take_along_axis(x: Any, indices: Any, axis: int) -> Value:
    """`y[…, i, …] = x[…, indices[…, i, …], …]` along the axis; other axes broadcast."""
    x, indices = as_value(x), as_value(indices)
    axis = axis_of(axis, x.rank)
    x, indices = _matched(x, indices, axis)
    return TakeAlongAxis(axis)(x, indices)


def add_along_axis(x: Any, indices: Any, values: Any, axis: int) -> Value:
    """`x` with `values[…, i, …]` added at `indices[…, i, …]` along the axis, the inverse of
    `take_along_axis`; other axes of `indices`, and all of `values`, broadcast."""
    x, indices = as_value(x), as_value(indices)
    axis = axis_of(axis, x.rank)
    return ScatterAdd(axis)(x, *elements_at(x, indices, as_value(values, x), axis))


def _matched(x: Value, indices: Value, axis: int) -> tuple[Value, Value]:
    """Both broadcast to common sizes but along the axis."""
    check_ranks(x, indices)
    common = broadcast(*(with_axis(v.shape, axis, 1) for v in (x, indices)))
    x, indices = (broadcast_to(v, with_axis(common, axis, v.shape[axis])) for v in (x, indices))
    return x, indices


@suggests_names
def one_hot(indices: Any, num_classes: Any, dtype: Any = f32, axis: int = -1) -> Value:
    """1 where the place along a new axis of size `num_classes` is the index, 0 elsewhere; all 0 for
    an index that is negative or not below `num_classes`."""
    indices = as_value(indices)
    check_integer(indices.type)
    axis = axis_of(axis, indices.rank + 1)
    size = dim(num_classes)
    shape = [size if i == axis else 1 for i in range(indices.rank + 1)]
    classes = reshape(iota(size, indices.dtype), shape)
    return cast(expand_dims(indices, axis) == classes, dtype_of(dtype))


for _function in (take, scatter_add, take_along_axis, add_along_axis, one_hot):
    register(_function.__name__, _function)
