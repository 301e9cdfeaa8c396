"""Sums over one or several axes, and logarithms of sums of exponentials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, exp, where
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import product
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Axes, Type, boolean, dtype_of, f32, f64, i32, i64, u32
from nncompile.ops.core.long_sums import runs, total, whole_total
from nncompile.ops.reduction.operands import (
    Reduction,
    accumulator,
    kept,
    over,
    real_value,
    reduced_type,
    require_real,
)

# So many integers of 32 bits have a sum below 2⁵³, up to where onnxruntime's is exact.
_EXACT_COUNT = 2**21


class Sum(Reduction, Op):
    """Σ x over `axes`; of integers and truth values in i64."""

    axes: tuple[int, ...]
    keepdims: bool = False
    varies: ClassVar[str] = "axes"

    def infer(self, x: Type) -> Type:
        return reduced_type(x, self.axes, self.keepdims, accumulator(x.dtype))

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return (None,)
        return (broadcast_to(kept(g, x, self.axes), x.shape),)

    def numpy(self, x: Array) -> Array:
        dtype = accumulator(dtype_of(x)).numpy
        result: Array = x.sum(self.axes, dtype=dtype, keepdims=self.keepdims)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        source, dtype = o.types[0], o.type.dtype
        if dtype.is_float:
            return total(o, x, source, self.axes, self.keepdims)
        counts = product(source.shape[i] for i in self.axes)
        if source.dtype.is_bool or (
            source.dtype is not dtype and isinstance(counts, int) and counts < _EXACT_COUNT
        ):
            x = o.cast(x, dtype)
            return o.ReduceSum(x, o.ints(self.axes), keepdims=int(self.keepdims))
        x = x if source.dtype is dtype else o.cast(x, dtype)
        wide = Type(dtype, source.shape)
        return whole_total(o, x, wide, self.axes, self.keepdims)

    def torch(self, t: TorchEmitter, x: str) -> str:
        # Over axes that do not stand side by side, torch adds one number after the other.
        for start, stop in reversed(runs(self.axes)):
            x = t.call("torch.sum", x, [*range(start, stop)], keepdim=self.keepdims)
        return x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield from _samples(cls)
        yield Sample(cls((0, 2)), (boolean[2, "n", 3],))
        yield Sample(cls((0,)), (u32["n"],), integers=(2**32 - 9, 2**32))
        yield Sample(cls((1,)), (i32[2, "n"],), integers=(2**31 - 9, 2**31))
        yield Sample(cls((0, 2)), (i64["n", 2, 3],), integers=(-(2**63), 2**63))
        yield Sample(cls((1,), True), (i64["n", "m", 2],), integers=(-(2**63), 2**63))
        yield Sample(cls((1, 2)), (i64["n", "m", 3],), integers=(-(2**63), 2**63))
        # Beyond what one accumulator may add.
        yield Sample(cls((0,)), (f32[700, "n"],))
        yield Sample(cls((0, 1), True), (f32[1031, 2],))
        yield Sample(cls((1,)), (f32[2, 263, "n"],), order=1)
        yield Sample(cls((0,)), (f32["150*n", 2],))
        yield Sample(cls((0, 1)), (f32["n", 600],))


class LogSumExp(Reduction, Op):
    """log Σ exp(x) over `axes`; never overflows."""

    label = "logsumexp"

    axes: tuple[int, ...]
    keepdims: bool = False
    varies: ClassVar[str] = "axes"

    def infer(self, x: Type) -> Type:
        require_real(x)
        return reduced_type(x, self.axes, self.keepdims, x.dtype)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        above, total = (kept(v, x, self.axes) for v in (g, y))
        # Where all of x is −∞, x − y would be NaN; no element matters there.
        total = where(equal(total, -np.inf), 0, total)
        return (above * exp(x - total),)

    def numpy(self, x: Array) -> Array:
        top = x.max(self.axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(top), top, 0)
        with np.errstate(divide="ignore"):  # log 0 = −∞ is meant
            total = np.log(np.exp(x - shift).sum(self.axes, keepdims=True)) + shift
        result: Array = total if self.keepdims else total.squeeze(self.axes)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        # onnxruntime 1.31's ReduceLogSumExp takes five times as long, and overlooks what is small
        # beside a first element of −∞.
        dtype, axes = o.type.dtype, o.ints(self.axes)
        greatest = np.finfo(dtype.numpy).max
        top = o.ReduceMax(x, axes, keepdims=1)
        top = o.Min(o.Max(top, o.scalar(-greatest, dtype)), o.scalar(greatest, dtype))
        powers = total(o, o.Exp(o.Sub(x, top)), o.types[0], self.axes, True)
        y = o.Add(o.Log(powers), top)
        return y if self.keepdims else o.Squeeze(y, axes)

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.call("torch.logsumexp", x, list(self.axes), keepdim=self.keepdims)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for sample in _samples(cls):
            if sample.types[0].dtype.is_float:
                yield sample
        yield Sample(cls((1,)), (f32["n", 4],), floats=(-200.0, 200.0), order=1)


def _samples(op_type: type[Sum] | type[LogSumExp]) -> Iterator[Sample]:
    """What a reduction over several axes is tested on."""
    yield Sample(op_type((0,)), (f32["n"],))
    yield Sample(op_type((1,), True), (f32["n", "m"],))
    yield Sample(op_type((0, 2)), (f32[2, "n", 3],))
    yield Sample(op_type((0, 1, 2, 3)), (f32[2, "n", 1, 2],))
    yield Sample(op_type((1,)), (f64[3, "2*n", 2],))
    yield Sample(op_type((0,)), (i64["n", 2],), integers=(-9, 9))


@suggests_names
def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """Σ x over one axis, several or all; of integers and truth values in i64.

    Raises `ShapeError` for an axis that `x` does not have.
    """
    x, axes = over("sum", x, axis)
    return Sum(axes, keepdims)(x) if axes else cast(x, accumulator(x.dtype))


@suggests_names
def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """log Σ exp(x) over one axis, several or all; never overflows."""
    x, axes = over("logsumexp", x, axis)
    x = real_value(x)
    return LogSumExp(axes, keepdims)(x) if axes else x


register("sum", sum)
