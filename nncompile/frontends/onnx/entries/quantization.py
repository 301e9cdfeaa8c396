"""Quantization. What is quantized and at once dequantized again is fake quantization: the same
numbers, and a gradient that goes straight through where nothing was cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.entries.convolution import convolved
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor, dtype_from
from nncompile.ir.basic import cast, const
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32, f64, i32, u8
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.annotations import custom_gradient
from nncompile.ops.core.modes import while_training
from nncompile.ops.reduction.extremes import max as largest
from nncompile.ops.reduction.extremes import min as least
from nncompile.ops.shape.reshape import expand_dims, repeat, reshape
from nncompile.ops.shape.slicing import along


def _limits(dtype: DType) -> tuple[int, int]:
    if not dtype.is_integer:
        raise Refused(f"a zero point of {dtype}")
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)


def _spread(v: Value, x: Value, n: Node) -> Value:
    """A scale or zero point as it broadcasts to x: one number, one for each index of the axis, or
    one for each block along it."""
    if v.rank == 0 or (v.rank == 1 and v.shape[0] == 1):
        return reshape(v, ())
    axis = axis_in(x, 1 if n["axis"] is None else n["axis"])
    if v.rank == 1:
        return reshape(v, (v.shape[0], *(1,) * (x.rank - axis - 1)))
    block = n["block_size"]
    if not block:
        raise Refused("scales of several axes without a block size")
    wide = repeat(v, block, axis)
    size = x.shape[axis]
    return wide if wide.shape[axis] == size else along(wide, axis, 0, size, 1)


@imports("QuantizeLinear", raw=True)
def _quantize(n: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Any:
    if zero is not None:
        dtype = zero.type.dtype
    else:
        dtype = dtype_from(n["output_dtype"]) if n["output_dtype"] else u8
    value = x.value
    quantized = Tensor.of(
        _quantized(n, value, scale.value, None if zero is None else zero.value, dtype)
    )
    quantized.quantized = (value, scale, zero, dtype)
    return quantized


def _quantized(n: Node, x: Value, scale: Value, zero: Value | None, dtype: DType) -> Value:
    wide = x if x.dtype.is_float else cast(x, f32)
    y = e.rint(wide / cast(_spread(scale, x, n), wide.dtype))
    low, high = _limits(dtype)
    if zero is not None:
        y = y + cast(_spread(zero, x, n), y.dtype)
    return cast(cast(e.clip(y, float(low), float(high)), i32), dtype)


@imports("DequantizeLinear", raw=True)
def _dequantize(n: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Any:
    if x.master is not None:
        if x.type.dtype is i32:  # a bias, of so many digits that nothing is cut off
            return x.master
        its_zero = None if zero is None else zero.value
        whole = _quantized(n, x.master, scale.value, its_zero, x.type.dtype)
        x.quantized = (x.master, scale, zero, x.type.dtype)
    value = x.value if x.master is None else whole
    y = _dequantized(n, value, scale.value, None if zero is None else zero.value)
    if x.quantized is None:
        return y
    original, first_scale, first_zero, dtype = x.quantized
    if not (_equal(scale, first_scale) and _equal(zero, first_zero)) or not original.dtype.is_float:
        return y
    low, high = _limits(dtype)
    spread = _spread(scale.value, original, n)
    shift = const(0, original.dtype)
    if zero is not None:
        shift = cast(_spread(zero.value, original, n), original.dtype)

    through = custom_gradient(_Through(low, high))

    def forward(source: Value, *_: Value) -> Value:
        rounded = e.stop_gradient(y)
        # An integer would hide a NaN, and what has come of a training with it.
        return while_training(e.where(e.isnan(source), source, rounded), rounded)

    result: Value = through(forward)(original, spread, shift)
    return result


@dataclass(frozen=True)
class _Through:
    """The gradient of fake quantization: that of the result, where what is rounded lies within the
    limits."""

    low: int
    high: int

    def __call__(self, g: Value, result: Value, x: Value, scale: Value, zero: Value) -> Any:
        place = e.rint(x / scale) + zero
        within = e.logical_and(place >= float(self.low), place <= float(self.high))
        return e.where(within, g, const(0, g.dtype)), None, None


def _equal(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.numbers is None or b.numbers is None:
        return a.value is b.value
    return bool(np.array_equal(a.numbers, b.numbers))


def _dequantized(n: Node, x: Value, scale: Value, zero: Value | None) -> Value:
    dtype = scale.dtype
    wide = cast(x, i32) if x.dtype.bits < 32 else x
    if zero is not None:
        wide = wide - cast(_spread(zero, x, n), wide.dtype)
    y: Value = cast(wide, dtype) * _spread(scale, x, n)
    return y


@imports("DynamicQuantizeLinear")
def _dynamic(n: Node, x: Value) -> Any:
    low, high = (e.minimum(least(x), 0), e.maximum(largest(x), 0))
    scale = (high - low) / 255.0
    zero = e.clip(e.rint(0 - low / scale), 0.0, 255.0)
    y = e.clip(e.rint(x / scale) + zero, 0.0, 255.0)
    return cast(cast(y, i32), u8), scale, cast(cast(zero, i32), u8)


@imports("QLinearMatMul")
def _qlinear_matmul(n: Node, a: Value, sa: Value, za: Value, b: Value, sb: Value, zb: Value,
                    sy: Value, zy: Value) -> Any:  # fmt: skip
    """Whole numbers are multiplied exactly; only the result is scaled, rounded and cut off."""
    rows = [expand_dims(v, -1) if v.rank else v for v in (sa, za)]
    left = cast(a, f64) - cast(rows[1], f64)
    right = cast(b, f64) - cast(zb, f64)
    scale = cast(rows[0], f64) * cast(sb, f64)
    return _requantized(matmul(left, right) * scale, sy, zy)


def _requantized(y: Value, scale: Value, zero: Value) -> Value:
    low, high = _limits(zero.dtype)
    rounded = e.rint(y / cast(reshape(scale, ()), f64)) + cast(reshape(zero, ()), f64)
    return cast(cast(e.clip(rounded, float(low), float(high)), i32), zero.dtype)


@imports("QLinearConv")
def _qlinear_conv(n: Node, x: Value, sx: Value, zx: Value, w: Value, sw: Value, zw: Value,
                  sy: Value, zy: Value, bias: Value | None = None) -> Any:  # fmt: skip
    channels = (-1, *(1,) * (w.rank - 1))
    shift = reshape(zw, channels) if zw.rank else zw
    y = convolved(n, cast(x, f64) - cast(reshape(zx, ()), f64), cast(w, f64) - cast(shift, f64))
    if bias is not None:
        y = y + cast(reshape(bias, (-1, *(1,) * (x.rank - 2))), f64)
    scale = reshape(sw, (-1, *(1,) * (x.rank - 2))) if sw.rank else sw
    return _requantized(y * cast(reshape(sx, ()), f64) * cast(scale, f64), sy, zy)
