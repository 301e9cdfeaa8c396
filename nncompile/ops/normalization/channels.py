"""One factor and one addend for each channel, in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.dims import same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.core.axes import example_by_example
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape

CHANNELS = 1  # the axis of channels
_EPSILON = float(np.float32(1e-5))  # the least that cuDNN takes, as an attribute holds it


class ChannelAffine(Op):
    """x[N, C, *sizes]·scale[C] + shift[C]."""

    def infer(self, x: Type, scale: Type, shift: Type) -> Type:
        require_real(x)
        if x.rank < 2:
            raise ShapeError(f"x must be [batch, channels, …], got {x}")
        for name, type_ in (("scale", scale), ("shift", shift)):
            if type_.dtype is not x.dtype:
                raise DTypeError(f"element types differ: x is {x}, {name} is {type_}")
            if same_shape(type_.shape, x.shape[1:2]) is not True:
                raise ShapeError(f"{name} needs one number for each channel of {x}, got {type_}")
        return x

    def pullback(
        self, g: Value, y: Value, x: Value, scale: Value, shift: Value
    ) -> Sequence[Value | None]:
        axes = tuple(i for i in range(x.rank) if i != CHANNELS)
        return g * by_channel(scale, x), Sum(axes)(g * x), Sum(axes)(g)

    rowwise = example_by_example

    def numpy(self, x: Array, scale: Array, shift: Array) -> Array:
        shape = (-1, *(1,) * (x.ndim - 2))
        return x * scale.reshape(shape) + shift.reshape(shape)

    def onnx(self, o: OnnxEmitter, x: str, scale: str, shift: str) -> str:
        """A batch normalization by the mean 0 and the variance 1: one pass where a product and a
        sum are two."""
        dtype, channels = o.types[0].dtype, o.shape(o.types[1].shape)
        zeros = o.Expand(o.scalar(0, dtype), channels)
        ones = o.Expand(o.scalar(1 - _EPSILON, dtype), channels)
        return o.BatchNormalization(x, scale, shift, zeros, ones, epsilon=_EPSILON)

    def torch(self, t: TorchEmitter, x: str, scale: str, shift: str) -> str:
        shape = [-1, *(1,) * (t.types[0].rank - 2)]
        a, b = (t.emit(f"{v}.reshape({shape})", "channel") for v in (scale, shift))
        return t.emit(f"{x} * {a} + {b}", "affine")

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 3], f32[3], f32[3]))
        yield Sample(cls(), (f32["n", 2, "h", "w"], f32[2], f32[2]))
        yield Sample(cls(), (f64["n", "c", 3], f64["c"], f64["c"]))


def by_channel(v: Value, x: Value) -> Value:
    """v[C] in a shape that broadcasts with x[N, C, *sizes]."""
    return reshape(v, (v.shape[0], *(1,) * (x.rank - 2)))
