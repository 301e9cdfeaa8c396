"""Numbers as small integers, `x ≈ (q − zero point)·scale`, and back: what the pairs of
QuantizeLinear and DequantizeLinear in quantized files compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.elementwise import clip, isnan, logical_and, rint, stop_gradient, where
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.dims import same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Array, DType, Type, dtype_of, f32, i8, i32, u8
from nncompile.ops.core.annotations import custom_gradient
from nncompile.ops.core.composition import composed_torch
from nncompile.ops.core.modes import while_training
from nncompile.ops.shape.reshape import reshape


def limits(dtype: DType) -> tuple[int, int]:
    """The smallest and the largest number of an integer type."""
    info = np.iinfo(dtype.numpy)
    return int(info.min), int(info.max)


class _Linear:
    """What both ops say of x, a scale and a zero point: one number each, or with an `axis` one for
    each index along it."""

    axis: int | None

    def _check(self, x: Type, scale: Type, zero: Type) -> None:
        expected = () if self.axis is None else (x.shape[self.axis],)
        for name, type_ in (("scale", scale), ("zero point", zero)):
            if same_shape(type_.shape, expected) is not True:
                raise ShapeError(f"the {name} needs the shape {list(expected)}, got {type_}")

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        x, *others = row_axes
        if x is None or self.axis is None or x != self.axis:
            return x if others == [None, None] else None
        return x if others == [0, 0] else None

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return None, None, None

    def composed(self, x: Value, scale: Value, zero: Value) -> tuple[Value]:
        """The result in terms of other ops."""
        raise NotImplementedError

    def torch(self, t: TorchEmitter, *names: str) -> str:
        return composed_torch(t, self.composed, *names)[0]

    def _spread_array(self, x: Array, rank: int) -> Array:
        return x if self.axis is None else x.reshape(-1, *(1,) * (rank - self.axis - 1))

    def _spread(self, x: Value, like: Value) -> Value:
        if self.axis is None:
            return x
        ones = (1,) * (like.rank - self.axis - 1)
        return reshape(x, (*x.shape, *ones))

    @property
    def _attributes(self) -> dict[str, Any]:
        return {} if self.axis is None else {"axis": self.axis}


class Quantize(_Linear, Op):
    """round(x / scale) + zero point, of the type of that, with what is beyond its ends at them, and
    NaN at the lower one, as in onnxruntime."""

    axis: int | None

    def infer(self, x: Type, scale: Type, zero: Type) -> Type:
        self._check(x, scale, zero)
        if x.dtype is not scale.dtype or not x.dtype.is_float:
            raise DTypeError(f"x and the scale must be of one float type, got {x} and {scale}")
        if zero.dtype not in (i8, u8, i32):
            raise DTypeError(f"a zero point must be i8, u8 or i32, got {zero}")
        return Type(zero.dtype, x.shape)

    def numpy(self, x: Array, scale: Array, zero: Array) -> Array:
        low, high = limits(dtype_of(zero.dtype))
        scale, shift = (self._spread_array(v, x.ndim) for v in (scale, zero))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            y = np.rint(x / scale) + shift.astype(x.dtype)
            whole: Array = np.clip(np.nan_to_num(y, nan=low), low, high).astype(zero.dtype)
            return whole

    def onnx(self, o: OnnxEmitter, x: str, scale: str, zero: str) -> Any:
        return o.QuantizeLinear(x, scale, zero, **self._attributes)

    def composed(self, x: Value, scale: Value, zero: Value) -> tuple[Value]:
        low, high = limits(zero.dtype)
        y = rint(x / self._spread(scale, x)) + cast(self._spread(zero, x), x.dtype)
        within = where(isnan(y), float(low), clip(y, float(low), float(high)))
        return (cast(cast(within, i32), zero.dtype),)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        positive: dict[str, Any] = {"order": 0, "floats": (0.25, 2.0), "integers": (-3, 3)}
        yield Sample(cls(None), (f32["n", 3], f32[()], i8[()]), **positive)
        yield Sample(cls(1), (f32["n", 3, 2], f32[3], i8[3]), **positive)
        yield Sample(cls(None), (f32["n"], f32[()], u8[()]), **{**positive, "integers": (0, 9)})


class Dequantize(_Linear, Op):
    """(q − zero point)·scale, of the type of the scale."""

    axis: int | None

    def infer(self, q: Type, scale: Type, zero: Type) -> Type:
        self._check(q, scale, zero)
        if q.dtype is not zero.dtype or q.dtype not in (i8, u8, i32):
            raise DTypeError(f"q and the zero point must be i8, u8 or i32, got {q} and {zero}")
        if not scale.dtype.is_float:
            raise DTypeError(f"the scale must be of floats, got {scale}")
        return Type(scale.dtype, q.shape)

    def numpy(self, q: Array, scale: Array, zero: Array) -> Array:
        scale, zero = (self._spread_array(v, q.ndim) for v in (scale, zero))
        steps = q.astype(np.int64) - zero.astype(np.int64)
        return np.asarray(steps.astype(scale.dtype) * scale)

    def onnx(self, o: OnnxEmitter, q: str, scale: str, zero: str) -> Any:
        return o.DequantizeLinear(q, scale, zero, **self._attributes)

    def composed(self, q: Value, scale: Value, zero: Value) -> tuple[Value]:
        steps = cast(q, i32) - cast(self._spread(zero, q), i32)
        return (cast(steps, scale.dtype) * self._spread(scale, q),)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        options: dict[str, Any] = {"order": 0, "integers": (-9, 9)}
        yield Sample(cls(None), (i8["n", 3], f32[()], i8[()]), **options)
        yield Sample(cls(0), (i8[3, "n"], f32[3], i8[3]), **options)
        yield Sample(cls(None), (u8["n"], f32[()], u8[()]), **{**options, "integers": (0, 9)})


@dataclass(frozen=True)
class _StraightThrough:
    """The gradient of rounding, as if it were none: that of the result, where x is not cut off."""

    low: int
    high: int
    axis: int | None

    def __call__(self, g: Value, y: Value, x: Value, scale: Value, zero: Value) -> Any:
        spread = Quantize(self.axis)._spread
        step = rint(x / spread(scale, x)) + cast(spread(zero, x), x.dtype)
        is_within = logical_and(step >= float(self.low), step <= float(self.high))
        return where(is_within, g, zeros_like(g)), None, None


def fake_quantize(x: Value, scale: Value, zero: Value, axis: int | None = None) -> Value:
    """x as the integers that the type of `zero` has would hold it: rounded to multiples of the
    scale, and cut off at the ends. The gradient goes straight through where nothing is cut off
    (Jacob et al. 2018). A NaN stays one while training."""
    through = custom_gradient(_StraightThrough(*limits(zero.dtype), axis))

    def forward(x: Value, scale: Value, zero: Value) -> Value:
        y = stop_gradient(
            apply(Dequantize(axis), apply(Quantize(axis), x, scale, zero), scale, zero)
        )
        return while_training(where(isnan(x), x, y), y)

    result: Value = through(forward)(x, scale, zero)
    return result
