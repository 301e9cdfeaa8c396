"""Shapes that meet: what is repeated to a shape, the sum over it again, and slices that take the
sizes of what they meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.barriers import tied
from nncompile.ir.basic import as_value, const
from nncompile.ir.dims import (
    Dim,
    Shape,
    broadcast,
    dim,
    is_clipped,
    is_one,
    is_one_of,
    same,
    same_shape,
    same_where_enough,
    symbol,
    with_axis,
)
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, DType, Type, boolean, f32, i64


class Expand(Op):
    """`x` repeated along new axes and axes of size one, to `shape`."""

    shape: Shape
    moves = True
    copies = 1

    def infer(self, x: Type) -> Type:
        if same_shape(broadcast(x.shape, self.shape), self.shape) is not True:
            raise ShapeError(f"{x} does not broadcast to [{', '.join(map(str, self.shape))}]")
        return Type(x.dtype, self.shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (unbroadcast(g, x),)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        (axis,) = row_axes
        return None if axis is None else axis + len(self.shape) - types[0].rank

    def numpy(self, x: Array) -> Array:
        return np.broadcast_to(x, self.shape)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        if 0 in self.shape:  # onnxruntime takes it for an expansion to the size one, which is none
            empty = o.constant(np.zeros(0, o.type.dtype.numpy))
            return o.Reshape(empty, o.shape(self.shape), allowzero=1)
        return o.Expand(x, o.shape(self.shape))

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.method(x, "expand", t.shape(self.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n, m = symbol("n"), symbol("m")
        yield Sample(cls((2, 3)), (f32[()],))
        yield Sample(cls((n, 3)), (f32[3],))
        yield Sample(cls((n, m, 4)), (f32["m", 1],))
        yield Sample(cls((2, n)), (boolean["n"],))
        yield Sample(cls((2, n)), (i64[1],))
        yield Sample(cls((0, n, 2)), (f32[1, 2],))


@suggests_names
def broadcast_to(x: Any, shape: Sequence[Any]) -> Value:
    """`x` repeated to `shape` by numpy's rule. Raises `ShapeError` where it does not fit."""
    x, target = as_value(x), tuple(dim(d) for d in shape)
    for axis in range(-min(x.rank, len(target)), 0):
        if is_one_of(x.shape[axis], target[axis]):  # x[:1], of which there may be none
            x = repeated(x, axis, target[axis])
    return x if same_shape(x.shape, target) is True else Expand(target)(tied(x, target))


def repeated(x: Value, axis: int, size: Dim) -> Value:
    """`x[:1]` along the axis, a negative number, as `size` times its element there; nothing where
    there is none."""
    indices = full((size,), 0, i64)
    return x[(..., indices, *[slice(None)] * (-1 - axis))]


@suggests_names
def full(shape: Sequence[Any], number: Any, dtype: DType = f32) -> Value:
    """A tensor filled with one number."""
    return broadcast_to(const(number, dtype), shape)


@suggests_names
def zeros_like(x: Any) -> Value:
    """Zeros in the shape and element type of `x`."""
    x = as_value(x)
    return full(x.shape, 0, x.dtype)


@suggests_names
def ones_like(x: Any) -> Value:
    """Ones in the shape and element type of `x`."""
    x = as_value(x)
    return full(x.shape, 1, x.dtype)


def unbroadcast(g: Value, x: Value) -> Value:
    """The sum of `g` over the axes along which `x` was repeated to its shape."""
    lead = g.rank - x.rank
    repeated = (
        i + lead for i in range(x.rank) if is_one(x.shape[i]) and not is_one(g.shape[i + lead])
    )
    axes = (*range(lead), *repeated)
    if not axes:
        return g
    total: Value = g.sum(axes)
    return total if total.rank == x.rank else total.reshape(x.shape)


def fitted(values: Sequence[Value], skipped: int | None = None) -> list[Value]:
    """The values, of which the slices that have a size of another where they find as much as they
    ask for, Min(3, n) for 3, are given that size; data of less are refused. Axes are counted from
    the last, and axis `skipped` is left as it is."""
    results = list(values)
    if not any(is_clipped(d) for v in values for d in v.shape):
        return results
    for axis in range(-max(v.rank for v in values), 0):
        sizes = [v.shape[axis] for v in values if v.rank >= -axis and not is_one(v.shape[axis])]
        if sizes and axis != skipped:
            target = min(sizes, key=lambda d: (is_clipped(d), not isinstance(d, int)))
            results = [fit(v, axis, target) if v.rank >= -axis else v for v in results]
    return results


def fit(x: Value, axis: int, size: Dim) -> Value:
    """`x`, given that size along the axis where it is a slice that may have it; see `fitted`."""
    old = x.shape[axis]
    if not is_clipped(old) or same(old, size) is not None or not same_where_enough(old, size):
        return x
    index = axis % x.rank
    result: Value = x.reshape(with_axis(x.shape, index, size))
    return result
