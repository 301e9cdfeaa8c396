"""The largest elements along an axis in order, and their places: top-k, sort and argsort."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.dims import Dim, dim, same, symbol, with_axis
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import items
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, TupleType, Type, boolean, f32, f64, i32, i64, u32
from nncompile.ops.core.axes import axis_of, beside_axis
from nncompile.ops.shape.gathering import ScatterAdd


class TopK(Op):
    """The `size` largest (or smallest) elements along an axis in order, and their places; of equal
    ones the first come first."""

    size: Dim
    axis: int
    largest: bool = True
    orders = True

    def infer(self, x: Type) -> TupleType:
        total = x.shape[self.axis]
        if isinstance(self.size, int) and self.size < 0:
            raise ShapeError(f"k must not be negative, got {self.size}")
        if isinstance(self.size, int) and isinstance(total, int) and self.size > total:
            raise ShapeError(
                f"k = {self.size} is more than the {total} elements of axis {self.axis} of {x}"
            )
        shape = with_axis(x.shape, self.axis, self.size)
        return TupleType((Type(x.dtype, shape), Type(i64, shape)))

    def pullback(self, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        gradient = g[0]
        if gradient is None:
            return (None,)
        _, indices = items(y)
        return (ScatterAdd(self.axis)(zeros_like(x), indices, gradient),)

    rowwise = beside_axis

    def numpy(self, x: Array) -> tuple[Array, Array]:
        if self.largest:  # stable in the falling order too: sort the reverse, read it backwards
            last = x.shape[self.axis] - 1
            rising = np.argsort(np.flip(x, self.axis), self.axis, kind="stable")
            indices = last - np.flip(rising, self.axis)
        else:
            indices = np.argsort(x, self.axis, kind="stable")
        selection = (slice(None),) * self.axis + (slice(0, self.size),)
        indices = indices[selection].astype(np.int64)
        return np.take_along_axis(x, indices, self.axis), indices

    def onnx(self, o: OnnxEmitter, x: str) -> tuple[str, ...]:
        rows = o.types[0].shape[: self.axis]
        if all(sp.sympify(size).is_positive is True for size in rows):
            return self._rows(o, x)
        # onnxruntime before 1.24 divides by the number of rows.
        return o.If(
            o.Greater(o.Size(x), o.scalar(0, i64)),
            then_branch=o.branch("rows", lambda o: self._rows(o, x), o.type.items),
            else_branch=o.branch("nothing", self._empty_results, o.type.items),
            outputs=2,
        )

    def _empty_results(self, o: OnnxEmitter) -> tuple[str, ...]:
        return tuple(o.Expand(o.scalar(0, t.dtype), o.shape(t.shape)) for t in o.type.items)

    def _rows(self, o: OnnxEmitter, x: str) -> tuple[str, ...]:
        dtype = o.types[0].dtype
        if dtype.is_float:
            # onnxruntime before 1.32 puts NaN anywhere, and what is beside it too.
            unknown = o.ReduceSum(o.cast(o.IsNaN(x), i32), keepdims=0)
            return o.If(
                o.Greater(unknown, o.scalar(0, i32)),
                then_branch=o.branch("unknown", lambda o: self._with_nan(o, x), o.type.items),
                else_branch=o.branch("known", lambda o: self._sorted(o, x), o.type.items),
                outputs=2,
            )
        return self._sorted(o, x)

    def _sorted(self, o: OnnxEmitter, x: str, size: Dim | None = None) -> tuple[str, ...]:
        count = o.shape((self.size if size is None else size,))
        return o.TopK(x, count, axis=self.axis, largest=int(self.largest), outputs=2)

    def _with_nan(self, o: OnnxEmitter, x: str) -> tuple[str, ...]:
        """With NaN as greater than all: first all by their numbers, and then those that are NaN
        and those that are not apart, in the order that they have."""
        unknown = o.IsNaN(x)
        known = o.Where(unknown, o.scalar(np.inf, o.types[0].dtype), x)
        _, order = self._sorted(o, known, o.types[0].shape[self.axis])
        kind = o.cast(o.GatherElements(unknown, order, axis=self.axis), i32)
        _, by_kind = self._sorted(o, kind)
        indices = o.GatherElements(order, by_kind, axis=self.axis)
        return o.GatherElements(x, indices, axis=self.axis), indices

    def torch(self, t: TorchEmitter, x: str) -> tuple[str, str]:
        # torch.topk does not say which of equal elements it takes.
        results = t.call("torch.sort", x, stable=True, dim=self.axis, descending=bool(self.largest))
        if same(self.size, t.types[0].shape[self.axis]) is True:
            return t.item(results, 0), t.item(results, 1)
        size = t.dim(self.size)
        values, indices = (
            t.method(t.item(results, i), "narrow", self.axis, 0, size) for i in (0, 1)
        )
        return values, indices

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n = symbol("n")
        yield Sample(cls(2, 1), (f32["n", 5],), distinct=True)
        yield Sample(cls(n, 0, False), (f32["n", 3],), distinct=True)
        yield Sample(cls(n, 1), (f32[2, "n + 1"],), distinct=True)
        yield Sample(cls(3, 0), (i64[4, "n"],), integers=(-9, 9))
        yield Sample(cls(3, 0, False), (u32[4],), integers=(0, 2**32))
        yield Sample(cls(2, 1), (boolean["n", 4],))
        yield Sample(cls(0, 0), (f64[3],), distinct=True)


@suggests_names
def top_k(x: Any, k: Any, axis: int = -1, largest: bool = True) -> tuple[Value, Value]:
    """The `k` largest (or smallest) elements along the axis in order, and their places (i64); of
    equal ones the first come first. NaN is greater than all others, as torch's."""
    x = as_value(x)
    values, indices = items(TopK(dim(k), axis_of(axis, x.rank), largest)(x))
    return values, indices


@suggests_names
def sort(x: Any, axis: int = -1, descending: bool = False) -> Value:
    """The elements along the axis in rising order, NaN last; or in falling order."""
    x = as_value(x)
    return top_k(x, x.shape[axis_of(axis, x.rank)], axis, largest=descending)[0]


@suggests_names
def argsort(x: Any, axis: int = -1, descending: bool = False) -> Value:
    """The places of the elements along the axis in rising (or falling) order; of equal ones the
    first come first."""
    x = as_value(x)
    return top_k(x, x.shape[axis_of(axis, x.rank)], axis, largest=descending)[1]
