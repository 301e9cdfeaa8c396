"""Softmax and its logarithm along one axis; their gradients come from the result alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import exp, where
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Backward, Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.core.axes import axis_of
from nncompile.ops.core.long_sums import EXPONENTIALS, total
from nncompile.ops.reduction.operands import real_value, require_real
from nncompile.ops.reduction.sums import Sum


class _Softmaxes:
    """What a softmax and its logarithm say alike."""

    axis: int
    varies: ClassVar[str] = "axis"
    label: str

    def infer(self, x: Type) -> Type:
        require_real(x)
        return x

    def seen(self, backward: Backward, g: Value, shares: Value) -> Value:
        """The softmax, but 0 in rows that a `where` leaves out as a whole, as those of an attention
        that sees nothing: all of such a row is NaN, and its gradient is 0."""
        mask = backward.mask_of(g)
        rows = None if mask is None else mask.same_along(self.axis - shares.rank)
        return shares if rows is None else where(rows, shares, 0)

    def normalized(
        self,
        o: OnnxEmitter,
        kernel: Callable[[OnnxEmitter], str],
        renormalize: Callable[[OnnxEmitter, str], str],
    ) -> str:
        """What the runtime's kernel gives; normalized once more where its sum has too many
        terms."""
        if o.type.dtype is not f32:
            return kernel(o)
        size = o.type.shape[self.axis]
        return o.by_size(size, EXPONENTIALS, kernel, lambda o: renormalize(o, kernel(o)), o.type)

    def torch(self, t: TorchEmitter, x: str) -> str:
        limit = EXPONENTIALS if t.type.dtype is f32 else None
        size = t.type.shape[self.axis]
        return t.in_double(size, limit, f"torch.{self.label}", [x], self.axis)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        make: Any = cls
        yield Sample(make(1), (f32["n", 5],))
        yield Sample(make(0), (f32["n", "m"],))
        yield Sample(make(1), (f32[2, "n", 3],))
        yield Sample(make(0), (f64["n"],))
        yield Sample(make(0), (f32[1],))
        yield Sample(make(1), (f32["n", 4],), floats=(-200.0, 200.0), order=1)


class Softmax(_Softmaxes, Op):
    """exp(x) / Σ exp(x) along one axis; never overflows."""

    axis: int

    def pullback_by(self, backward: Backward, g: Value, y: Value) -> Sequence[Value | None]:
        shares = self.seen(backward, g, y)
        return [shares * (g - Sum((self.axis,), True)(shares * g))]

    def numpy(self, x: Array) -> Array:
        powers = np.exp(x - _top(x, self.axis))
        result: Array = powers / powers.sum(self.axis, keepdims=True)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        def again(o: OnnxEmitter, y: str) -> str:
            return o.Div(y, total(o, y, o.type, (self.axis,), True))

        return self.normalized(o, lambda o: o.Softmax(x, axis=self.axis), again)


class LogSoftmax(_Softmaxes, Op):
    """x − log Σ exp(x) along one axis; never overflows."""

    axis: int

    def pullback_by(self, backward: Backward, g: Value, y: Value) -> Sequence[Value | None]:
        shares = self.seen(backward, g, exp(y))
        return [g - shares * Sum((self.axis,), True)(g)]

    def numpy(self, x: Array) -> Array:
        x = x - _top(x, self.axis)
        result: Array = x - np.log(np.exp(x).sum(self.axis, keepdims=True))
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        def again(o: OnnxEmitter, y: str) -> str:
            return o.Sub(y, o.Log(total(o, o.Exp(y), o.type, (self.axis,), True)))

        if o.type.dtype is f64:  # that kernel takes the logarithm of 10⁻²⁰ for that of NaN
            return again(o, o.Sub(x, o.ReduceMax(x, o.ints([self.axis]), keepdims=1)))
        return self.normalized(o, lambda o: o.LogSoftmax(x, axis=self.axis), again)


def _top(x: Array, axis: int) -> Array:
    result: Array = x.max(axis, keepdims=True, initial=-np.inf)
    return result


def _operand(name: str, x: Any, axis: int) -> tuple[Value, int]:
    x = real_value(x)
    return x, axis_of(axis, x.rank, f"{name}: axis")


@suggests_names
def softmax(x: Any, axis: int = -1) -> Value:
    """exp(x) / Σ exp(x) along one axis: positive, with sum 1. Integers become f32.

    Raises `ShapeError` for an axis that `x` does not have.
    """
    x, axis = _operand("softmax", x, axis)
    return Softmax(axis)(x)


@suggests_names
def log_softmax(x: Any, axis: int = -1) -> Value:
    """log softmax(x) = x − log Σ exp(x) along one axis. Integers become f32.

    Raises `ShapeError` for an axis that `x` does not have.
    """
    x, axis = _operand("log_softmax", x, axis)
    return LogSoftmax(axis)(x)
