"""Tensors joined along an axis and cut apart: concatenate, stack, split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value, cast, const, size_value
from nncompile.ir.broadcasting import fitted, full
from nncompile.ir.dims import (
    Dim,
    Shape,
    dim,
    floordiv,
    product,
    same,
    same_shape,
    symbol,
    with_axis,
)
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import items
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Array, TupleType, Type, boolean, f32, i64, promote, u32
from nncompile.ops.core.axes import axis_of, beside_axis
from nncompile.ops.shape.reshape import expand_dims, reshape


class Concat(Op):
    """The tensors one after the other along an axis."""

    axis: int
    varies: ClassVar[str] = "axis"
    moves = True
    copies = None

    def infer(self, *parts: Type) -> Type:
        first = parts[0]
        total: Dim = 0
        for part in parts:
            if part.dtype is not first.dtype:
                raise DTypeError(f"element types differ, {first} and {part}")
            if part.rank != first.rank:
                raise ShapeError(f"ranks differ, {first} and {part}")
            shapes = [with_axis(t.shape, self.axis) for t in (first, part)]
            if same_shape(*shapes) is not True:
                error = ShapeError(
                    f"{first} and {part} may differ along axis {self.axis} only",
                    hint="give axes of the same size the same name",
                )
                pairs = zip(*shapes, strict=True)
                error.undecided = next(((a, b) for a, b in pairs if same(a, b) is None), None)
                raise error
            total = total + part.shape[self.axis]
        shape = with_axis(first.shape, self.axis, dim(total))
        return Type(first.dtype, shape)

    def pullback(self, g: Value, y: Value, *parts: Value) -> Sequence[Value | None]:
        return sections(g, [part.shape[self.axis] for part in parts], self.axis)

    def numpy(self, *parts: Array) -> Array:
        return np.concatenate(parts, self.axis)

    def onnx(self, o: OnnxEmitter, *parts: str) -> str:
        return o.Concat(*parts, axis=self.axis)

    def torch(self, t: TorchEmitter, *parts: str) -> str:
        return t.call("torch.cat", list(parts), self.axis)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0), (f32["n", 2], f32["m", 2], f32[1, 2]))
        yield Sample(cls(1), (f32["n", 2], f32["n", "2*n"]))
        yield Sample(cls(0), (f32[2], f32[0]))
        yield Sample(cls(1), (boolean[2, "n"], boolean[2, 1]))
        yield Sample(cls(0), (u32["n"], u32[2]), integers=(0, 2**32))
        yield Sample(cls(0), (i64[3],))


# onnxruntime 1.23.0 cannot read a longer list of sizes once its optimizer has changed the graph.
_MOST_PIECES = 15


def _pieces(o: OnnxEmitter, x: str, axis: int, sizes: Sequence[Dim]) -> tuple[str, ...]:
    """`x` in pieces of these sizes, in several steps where there are many."""
    if len(sizes) <= _MOST_PIECES or not all(isinstance(size, int) for size in sizes):
        return o.Split(x, o.shape(sizes), axis=axis, outputs=len(sizes))
    count = -(-len(sizes) // _MOST_PIECES)
    groups = [sizes[i : i + count] for i in range(0, len(sizes), count)]
    parts = _pieces(o, x, axis, [sum(map(int, group)) for group in groups])
    pairs = zip(parts, groups, strict=True)
    return tuple(piece for part, group in pairs for piece in _pieces(o, part, axis, group))


class Split(Op):
    """`x` cut along an axis into parts of the given sizes."""

    axis: int
    sizes: Shape
    moves = True
    copies = 1

    def infer(self, x: Type) -> TupleType:
        total = dim(sum(self.sizes))
        if same(total, x.shape[self.axis]) is not True:
            raise ShapeError(
                f"parts of {' + '.join(map(str, self.sizes))} are not known to be all "
                f"{x.shape[self.axis]} of axis {self.axis} of {x}"
            )
        lead, rest = x.shape[: self.axis], x.shape[self.axis + 1 :]
        return TupleType(tuple(Type(x.dtype, (*lead, size, *rest)) for size in self.sizes))

    def pullback(self, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        types = y.type.items
        parts = [
            full(t.shape, 0, t.dtype) if part is None else part
            for part, t in zip(g, types, strict=True)
        ]
        return (concatenate(parts, self.axis),)

    rowwise = beside_axis

    def batched(self, length: Dim) -> Split:
        return Split(self.axis + 1, self.sizes)

    def numpy(self, x: Array) -> tuple[Array, ...]:
        points = np.cumsum(np.asarray(self.sizes, np.int64))[:-1]
        return tuple(np.split(x, points, self.axis))

    def onnx(self, o: OnnxEmitter, x: str) -> Any:
        return _pieces(o, x, self.axis, self.sizes)

    def torch(self, t: TorchEmitter, x: str) -> tuple[str, ...]:
        parts = t.call("torch.split", x, t.shape(self.sizes), self.axis)
        return tuple(t.item(parts, i) for i in range(len(self.sizes)))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n = symbol("n")
        yield Sample(cls(0, (2, 3)), (f32[5],))
        yield Sample(cls(1, (1, n, dim(2 * n))), (f32["m", "3*n + 1"],))
        yield Sample(cls(0, (n, 0)), (f32["n", 2],))
        yield Sample(cls(1, (1, 1)), (boolean["n", 2],))
        yield Sample(cls(0, (1, 3)), (u32[4, "n"],), integers=(0, 2**32))
        yield Sample(cls(0, (n,)), (i64["n"],))


def sections(x: Value, sizes: Sequence[Dim], axis: int) -> tuple[Value, ...]:
    """`x` cut into parts of the given sizes."""
    return (x,) if len(sizes) == 1 else items(Split(axis, tuple(sizes))(x))


@suggests_names
def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Value:
    """The tensors one after the other along an axis, as vectors for None.

    Element types are promoted to the common one. Raises `ShapeError` where other axes differ.
    """
    values = [as_value(a) for a in arrays]
    if not values:
        raise ShapeError("concatenate needs at least one tensor")
    if axis is None:
        values, axis = [reshape(v, (product(v.shape),)) for v in values], 0
    if values[0].rank == 0:
        raise ShapeError("concatenate: scalars have no axis", hint="use stack")
    axis = axis_of(axis, values[0].rank)
    common = reduce(promote, (v.dtype for v in values))
    values = [cast(v, common) for v in values]
    if all(v.rank == values[0].rank for v in values):
        values = fitted(values, skipped=axis - values[0].rank)
    joined = values[0] if len(values) == 1 else apply(Concat(axis), *values)
    # Onnxruntime 1.23 ends the process where it transposes a constant without elements.
    some = [v for v in values if v.shape[axis] != 0]
    if len(some) == len(values) or not some:
        return joined
    return some[0] if len(some) == 1 else apply(Concat(axis), *some)


@suggests_names
def shape_value(shape: Sequence[Any]) -> Value:
    """A shape as a vector of i64."""
    sizes = [reshape(size_value(d), (1,)) for d in shape]
    return concatenate(sizes, axis=0) if sizes else const(np.zeros(0, np.int64))


@suggests_names
def stack(arrays: Sequence[Any], axis: int = 0) -> Value:
    """The tensors, all of one shape, along a new axis."""
    return concatenate([expand_dims(a, axis) for a in arrays], axis)


@suggests_names
def split(x: Any, indices_or_sections: Any, axis: int = 0) -> tuple[Value, ...]:
    """`x` cut along an axis: into a number of equal parts, or at the given places.

    Raises `ShapeError` where the size is not known to be a multiple of the number of parts.
    """
    x = as_value(x)
    axis = axis_of(axis, x.rank)
    total = x.shape[axis]
    if isinstance(indices_or_sections, tuple | list):
        points = [dim(p) for p in indices_or_sections]
        bounds = list(zip([0, *points], [*points, total], strict=True))
        sizes = [dim(b - a) for a, b in bounds]
        if any(isinstance(size, int) and size < 0 for size in sizes):
            raise ShapeError(f"split: points must increase from 0 to {total}, got {points}")
        return sections(x, sizes, axis)
    count = dim(indices_or_sections)
    if not isinstance(count, int) or count < 1:
        raise ShapeError(f"split: the number of parts must be 1 or more, got {count}")
    size = floordiv(total, count)
    if same(product((size, count)), total) is not True:
        raise ShapeError(
            f"split: {total} of axis {axis} of {x.type} is not known to be {count} equal parts",
            hint=f'name the size as a multiple, such as "{count}*n", or give the split points',
        )
    return sections(x, [size] * count, axis)


register("concatenate", concatenate)
