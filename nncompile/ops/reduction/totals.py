"""What adds up over batches: sums and averages that are marked as such, so that their value over
all examples can be had from several batches.

Within one batch they are plain numbers. An evaluation in batches adds up what is marked, or puts
it together, and then computes the rest; see `nncompile.totals`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value, cast, in_single
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.core.annotations import Annotation
from nncompile.ops.core.axes import row_by_row
from nncompile.ops.reduction.operands import real_value, require_real


@formula
def _share(total: Any, weight: Any) -> Any:
    return where(weight == 0, 0.0, total / where(weight == 0, 1.0, weight))


class Average(Op):
    """total / weight, elementwise; 0 where the weight is, with gradients of 0 there."""

    def infer(self, total: Type, weight: Type) -> Type:
        require_real(total)
        if weight.dtype is not total.dtype:
            raise DTypeError(f"element types differ, {total.dtype} ≠ {weight.dtype}")
        if same_shape(total.shape, weight.shape) is not True:
            raise ShapeError("the sum and the weight of a mean must have the same shape")
        return total

    def pullback(self, g: Value, y: Value, total: Value, weight: Value) -> Sequence[Value | None]:
        gradient = _share(g, weight)
        return gradient, -gradient * _share(total, weight)

    rowwise = row_by_row

    def numpy(self, total: Array, weight: Array) -> Array:
        return np.divide(total, weight, out=np.zeros_like(total), where=weight != 0)

    def onnx(self, o: OnnxEmitter, total: str, weight: str) -> str:
        zero = o.scalar(0, o.type.dtype)
        return o.Where(o.Equal(weight, zero), zero, o.Div(total, weight))

    def torch(self, t: TorchEmitter, total: str, weight: str) -> str:
        zeros = t.call("torch.zeros_like", total)
        empty = t.call("torch.eq", weight, 0)
        return t.call("torch.where", empty, zeros, t.call("torch.div", total, weight))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32[()], f32[()]), floats=(0.5, 2.0))
        yield Sample(cls(), (f32["n", 3], f32["n", 3]), floats=(-2.0, -0.5))
        yield Sample(cls(), (f64[4], f64[4]), floats=(0.5, 2.0))


class SumState(Annotation):
    """x itself, a sum over the examples: that of several batches is their sum."""


class ConcatenatedState(SumState):
    """x itself, of which the first axis is that of the examples: that of several batches is all
    of them, one after the other."""

    def infer(self, x: Type) -> Type:
        if not x.rank:
            raise ShapeError(f"{x} has no example axis")
        return x


@suggests_names
@in_single
def ratio(total: Any, weight: Any) -> Value:
    """total / weight, elementwise, and 0 where the weight is 0. Over several batches both are
    added up first, so that a small batch, or one with few examples that count, weighs as little as
    it should.

    `total` and `weight` are sums over the examples of a batch; integers become real.

    >>> from nncompile.ir.interpreter import evaluate
    >>> float(evaluate(ratio(3, 4), {})), float(evaluate(ratio(0, 0), {}))
    (0.75, 0.0)
    """
    total = real_value(total)
    weight = cast(as_value(weight, total), total.dtype)
    return Average()(total, broadcast_to(weight, total.shape))


@suggests_names
def total(x: Any) -> Value:
    """`x`, marked as a sum over the examples of a batch: over several batches it is added up.
    What is computed from totals alone is then that of all examples."""
    return SumState()(as_value(x))


@suggests_names
def pooled(x: Any) -> Value:
    """`x`, marked as holding a row for each example: an evaluation puts the rows of all batches
    together, and computes once what follows from them. Raises `ShapeError` for a number."""
    return ConcatenatedState()(as_value(x))
