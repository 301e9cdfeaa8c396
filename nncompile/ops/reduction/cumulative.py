"""Running sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, boolean, dtype_of, f32, f64, i32, i64, u32
from nncompile.ops.core.long_sums import RUNNING
from nncompile.ops.reduction.operands import accumulator, along


class CumSum(Op):
    """Running sums along `axis`: each element with all before it (without itself if `exclusive`),
    or with all after it (`reverse`); of integers and truth values in i64."""

    label = "cumsum"

    axis: int
    exclusive: bool = False
    reverse: bool = False
    varies: ClassVar[str] = "axis"

    def infer(self, x: Type) -> Type:
        return Type(accumulator(x.dtype), x.shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return (None,)
        return (CumSum(self.axis, self.exclusive, not self.reverse)(g),)

    def numpy(self, x: Array) -> Array:
        dtype = accumulator(dtype_of(x)).numpy
        size = x.shape[self.axis]
        x = np.flip(x, self.axis) if self.reverse else x
        if self.exclusive:
            before = np.zeros((*x.shape[: self.axis], 1, *x.shape[self.axis + 1 :]), dtype)
            x = np.concatenate([before, x], self.axis)
        sums = x.cumsum(self.axis, dtype=dtype).take(range(size), self.axis)
        return np.flip(sums, self.axis) if self.reverse else sums

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        source: Type = o.types[0]
        x = x if source.dtype is o.type.dtype else o.cast(x, o.type.dtype)
        if o.type.dtype is not f32:
            return self._running(o, x)

        def in_double(o: OnnxEmitter) -> str:  # which is as fast in onnxruntime
            return o.cast(self._running(o, o.cast(x, f64)), f32)

        size = source.shape[self.axis]
        return o.by_size(size, RUNNING, lambda o: self._running(o, x), in_double, o.type)

    def _running(self, o: OnnxEmitter, x: str) -> str:
        axis = o.scalar(self.axis, i64)
        return o.CumSum(x, axis, exclusive=int(self.exclusive), reverse=int(self.reverse))

    def torch(self, t: TorchEmitter, x: str) -> str:
        sums = t.call("torch.flip", x, [self.axis]) if self.reverse else x
        if self.exclusive:
            padding = [0, 0] * (t.type.rank - 1 - self.axis) + [1, 0]
            sums = t.call("torch.constant_pad_nd", sums, padding, 0)
        sums = t.call("torch.cumsum", sums, self.axis)
        if self.exclusive:
            sums = t.call("torch.narrow", sums, self.axis, 0, t.dim(t.type.shape[self.axis]))
        return t.call("torch.flip", sums, [self.axis]) if self.reverse else sums

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for exclusive in (False, True):
            for reverse in (False, True):
                yield Sample(cls(0, exclusive, reverse), (f32["n", 3],))
                yield Sample(cls(1, exclusive, reverse), (i64[2, "n"],), integers=(-9, 9))
        yield Sample(cls(1), (f64[2, "n", "m"],))
        yield Sample(cls(0, True), (f32[301, "n"],), order=1)
        yield Sample(cls(0, True), (boolean["n"],))
        yield Sample(cls(0), (u32["n"],), integers=(2**32 - 9, 2**32))
        yield Sample(cls(0), (i32["n"],), integers=(2**31 - 9, 2**31))


@suggests_names
def cumsum(
    x: Any, axis: int | None = None, exclusive: bool = False, reverse: bool = False
) -> Value:
    """Running sums along `axis` (of all elements in one row if None); `exclusive` leaves each
    element itself out, `reverse` runs from the end. Of integers and truth values in i64."""
    row, axis = along("cumsum", x, axis)
    return CumSum(axis, exclusive, reverse)(row)


register("cumsum", cumsum)
