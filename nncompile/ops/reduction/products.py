"""Products along an axis, with gradients that are right where elements are zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, where
from nncompile.ir.basic import cast
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Axes, Type, boolean, dtype_of, f32, f64, i32, i64, u32
from nncompile.ops.core.counting import iota
from nncompile.ops.core.long_sums import ACROSS, reduced_shape
from nncompile.ops.reduction.operands import (
    Reduction,
    accumulator,
    kept,
    over,
    reduced_type,
    require_real,
)
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape


class Prod(Reduction, Op):
    """Π x over one axis; of integers and truth values in i64."""

    axis: int
    keepdims: bool = False
    varies: ClassVar[str] = "axis"

    def infer(self, x: Type) -> Type:
        return reduced_type(x, (self.axis,), self.keepdims, accumulator(x.dtype))

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return (None,)
        return (kept(g, x, (self.axis,)) * ProductOfOthers(self.axis)(x),)

    def numpy(self, x: Array) -> Array:
        dtype = accumulator(dtype_of(x)).numpy
        result: Array = x.prod(self.axis, dtype=dtype, keepdims=self.keepdims)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        source, dtype = o.types[0], o.type.dtype
        if not dtype.is_float:
            x = x if source.dtype is dtype else o.cast(x, dtype)
            return self._whole(o, x, source)
        return _product(o, x, source, self.axis, self.keepdims)

    def _whole(self, o: OnnxEmitter, x: str, source: Type) -> str:
        """onnxruntime's product of integers goes through float64; scattering does not."""
        ones = o.scalar(1, o.type.dtype)
        ones = o.Expand(ones, o.shape(reduced_shape(source.shape, (self.axis,), True)))
        first = o.Expand(o.scalar(0, i64), o.shape(source.shape))
        y = o.ScatterElements(ones, first, x, axis=self.axis, reduction="mul")
        return y if self.keepdims else o.Squeeze(y, o.ints([self.axis]))

    def torch(self, t: TorchEmitter, x: str) -> str:
        limit = ACROSS if t.type.dtype is f32 else None
        size = t.types[0].shape[self.axis]
        return t.in_double(size, limit, "torch.prod", [x], self.axis, keepdim=self.keepdims)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0), (f32["n"],))
        yield Sample(cls(1), (f32[2, "n", "m"],))
        yield Sample(cls(0, True), (f64[3, "n"],))
        yield Sample(cls(0), (f32[1],))
        yield Sample(cls(0), (i64["n"],), integers=(-3, 4))
        yield Sample(cls(1), (i32[2, "n"],), integers=(-3, 4))
        yield Sample(cls(1, True), (i64["n", "m", 2],), integers=(-(2**63), 2**63))
        yield Sample(cls(0), (u32["n"],), integers=(0, 9))
        yield Sample(cls(0), (boolean["n", 2],))


def _product(o: OnnxEmitter, x: str, source: Type, axis: int, keepdims: bool) -> str:
    """Π x of real numbers; in float64 where there are many, for the errors of factors add up."""

    def plain(o: OnnxEmitter, x: str = x) -> str:
        return o.ReduceProd(x, o.ints([axis]), keepdims=int(keepdims))

    if source.dtype is not f32:
        return plain(o)
    result = reduced_type(source, (axis,), keepdims, f32)

    def in_double(o: OnnxEmitter) -> str:
        return o.cast(plain(o, o.cast(x, f64)), f32)

    return o.by_size(source.shape[axis], ACROSS, plain, in_double, result)


class ProductOfOthers(Op):
    """For each element the product of all the others along `axis`, right where some are zero.

    It is the gradient of a product. Its own gradient needs the products without two elements: these
    of each row of the matrix x[k] (1 on the diagonal), so it costs the square of the size.
    """

    axis: int
    varies: ClassVar[str] = "axis"

    def infer(self, x: Type) -> Type:
        require_real(x)
        return x

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        size = x.shape[self.axis]
        rest = x.shape[self.axis + 1 :]
        lead = x.shape[: self.axis]
        row, column = iota(size), iota(size)
        ones = (1,) * len(rest)
        diagonal = equal(reshape(row, (size, 1, *ones)), reshape(column, (1, size, *ones)))
        rows = where(diagonal, 1, reshape(x, (*lead, 1, size, *rest)))  # [.., i, k, ..]
        without_two = ProductOfOthers(self.axis + 1)(rows)
        gradients = where(diagonal, 0, without_two * reshape(g, (*lead, size, 1, *rest)))
        return (Sum((self.axis,))(gradients),)

    def numpy(self, x: Array) -> Array:
        zero = x == 0
        nonzero = np.where(zero, 1, x).astype(x.dtype)
        product_ = nonzero.prod(self.axis, keepdims=True)
        count = zero.sum(self.axis, keepdims=True) - zero
        return np.where(count == 0, product_ / nonzero, 0).astype(x.dtype)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        dtype = o.type.dtype
        axes, zero, one = o.ints([self.axis]), o.scalar(0, dtype), o.scalar(1, dtype)
        is_zero = o.Equal(x, zero)
        nonzero = o.Where(is_zero, one, x)
        zeros = o.cast(is_zero, dtype)
        count = o.Sub(o.ReduceSum(zeros, axes, keepdims=1), zeros)
        product_ = o.Div(_product(o, nonzero, o.type, self.axis, True), nonzero)
        return o.Where(o.Equal(count, zero), product_, zero)

    def torch(self, t: TorchEmitter, x: str) -> str:
        dtype = t.dtype(t.type.dtype)
        zero = t.call("torch.eq", x, 0)
        nonzero = t.call("torch.masked_fill", x, zero, 1)
        zeros = t.method(zero, "to", dtype)
        count = t.call("torch.sub", t.call("torch.sum", zeros, [self.axis], keepdim=True), zeros)
        limit = ACROSS if t.type.dtype is f32 else None
        size = t.type.shape[self.axis]
        product_ = t.in_double(size, limit, "torch.prod", [nonzero], self.axis, keepdim=True)
        gradient = t.call("torch.div", product_, nonzero)
        return t.call("torch.masked_fill", gradient, t.call("torch.ne", count, 0), 0)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0), (f32["n"],))
        yield Sample(cls(1), (f32["n", 3, "m"],))
        yield Sample(cls(0), (f64[4],))


@suggests_names
def prod(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """Π x over one axis, several or all; of integers and truth values in i64. Its gradients are
    right where elements are zero."""
    x, axes = over("prod", x, axis)
    y = x
    for i in reversed(axes):
        y = Prod(i, keepdims)(y)
    return y if axes else cast(x, accumulator(x.dtype))


register("prod", prod)
