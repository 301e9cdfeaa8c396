"""Arithmetic, comparisons, logic and activations: element by element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import dtype_from
from nncompile.ir.basic import Constant, cast, const
from nncompile.ir.broadcasting import broadcast_to, zeros_like
from nncompile.ir.op import Value
from nncompile.ir.types import f64, i32, i64
from nncompile.ops.shape.reshape import reshape

_PLAIN: dict[str, Callable[..., Any]] = {
    **{"Abs": e.abs, "Acos": e.acos, "Acosh": e.acosh, "Asin": e.asin, "Asinh": e.asinh},
    **{"Atan": e.atan, "Atanh": e.atanh, "Ceil": e.ceil, "Cos": e.cos, "Cosh": e.cosh},
    **{"Erf": e.erf, "Exp": e.exp, "Floor": e.floor, "IsNaN": e.isnan, "Log": e.log},
    **{"Neg": e.negative, "Not": e.logical_not, "Reciprocal": e.reciprocal, "Relu": e.relu},
    **{"Round": e.rint, "Sigmoid": e.sigmoid, "Sign": e.sign, "Sin": e.sin, "Sinh": e.sinh},
    **{"Softplus": e.softplus, "Sqrt": e.sqrt, "Tan": e.tan, "Tanh": e.tanh},
    "Softsign": lambda x: x / (1 + e.abs(x)),
    "Mish": lambda x: x * e.tanh(e.softplus(x)),
    "BitwiseNot": e.bitwise_not,
    **{"BitwiseAnd": e.bitwise_and, "BitwiseOr": e.bitwise_or, "BitwiseXor": e.bitwise_xor},
    **{"Where": e.where},
}
_BINARY: dict[str, Callable[..., Any]] = {
    **{"Add": e.add, "Sub": e.subtract, "Mul": e.multiply, "Pow": e.power},
    **{"And": e.logical_and, "Or": e.logical_or, "Xor": e.logical_xor},
    **{"Equal": e.equal, "Greater": e.greater, "Less": e.less},
    **{"GreaterOrEqual": e.greater_equal, "LessOrEqual": e.less_equal},
}


@imports(*_PLAIN)
def _plain(n: Node, *xs: Value) -> Any:
    return _PLAIN[n.op](*xs)


@imports(*_BINARY)
def _binary(n: Node, a: Value, b: Value) -> Any:
    a, b = _aligned(n, a, b)
    if n.op == "Pow" and b.dtype is not a.dtype:
        return cast(_power(a, b), a.dtype)
    return _BINARY[n.op](a, b)


def _power(a: Value, b: Value) -> Value:
    """x to a power of another element type, which ONNX rounds to that of x."""
    if a.dtype.is_float:
        result: Value = e.power(a, cast(b, a.dtype) if b.dtype.is_integer else b)
        return result
    if b.dtype.is_float:
        result = e.trunc(e.power(cast(a, f64), cast(b, f64)))
        return result
    return e.power(cast(a, i64), cast(b, i64))


def _aligned(n: Node, a: Value, b: Value) -> tuple[Value, Value]:
    """The second operand, where it is broadcast along an axis, as before opset 7."""
    if n.version < 7 and n["broadcast"] and n["axis"] is not None:
        axis = axis_in(a, n["axis"])
        shape = (*b.shape, *(1,) * (a.rank - axis - b.rank))
        return a, reshape(b, shape)
    return a, b


@imports("Div")
def _div(n: Node, a: Value, b: Value) -> Any:
    a, b = _aligned(n, a, b)
    if a.dtype.is_float:
        return e.divide(a, b)
    quotient = e.floor_divide(a, b)
    if not a.dtype.is_signed:
        return quotient
    # Towards zero: a negative quotient that is not whole is one more.
    rest = a - quotient * b
    return e.where(e.logical_and(rest != 0, quotient < 0), quotient + 1, quotient)


@imports("Mod")
def _mod(n: Node, a: Value, b: Value) -> Any:
    return (e.fmod if n["fmod"] else e.mod)(a, b)


@imports("BitShift")
def _shift(n: Node, a: Value, b: Value) -> Any:
    """Bits beyond the width are lost: a shift by all of it leaves 0, or the sign."""
    if n["direction"] == "RIGHT" and a.dtype.is_signed:
        return e.right_shift(a, e.minimum(b, a.dtype.bits - 1))
    shifted = (e.left_shift if n["direction"] == "LEFT" else e.right_shift)(a, b)
    bits = const(a.dtype.bits, b.dtype)
    return e.where(b >= bits, const(0, a.dtype), shifted)


@imports("Max", "Min", "Sum", "Mean")
def _variadic(n: Node, *xs: Value) -> Any:
    if n.op in ("Max", "Min"):
        return functools.reduce(e.maximum if n.op == "Max" else e.minimum, xs)
    total = functools.reduce(e.add, xs)
    return total if n.op == "Sum" else total / len(xs)


@imports("Clip", raw=True)
def _clip(n: Node, x: Any, low: Any = None, high: Any = None) -> Any:
    value = x.value
    if n.version < 11:
        low = None if n["min"] is None else const(n["min"], value.dtype)
        high = None if n["max"] is None else const(n["max"], value.dtype)
        widest = np.finfo(np.float32).max
        low = None if n["min"] is not None and n["min"] <= -widest else low
        high = None if n["max"] is not None and n["max"] >= widest else high
    else:
        low, high = (None if bound is None else bound.value for bound in (low, high))
    if _is_number(low, 0) and _is_number(high, 6):
        return e.hard_clip(value, low, high)  # ReLU6, which is level at both ends in all frameworks
    return e.clip(value, low, high)


def _is_number(bound: Value | None, number: float) -> bool:
    return (
        bound is not None
        and isinstance(bound.op, Constant)
        and bool((bound.op.value == number).all())
    )


@imports("IsInf")
def _isinf(n: Node, x: Value) -> Any:
    positive, negative = n["detect_positive"], n["detect_negative"]
    if positive and negative:
        return e.isinf(x)
    if positive or negative:
        return (e.isposinf if positive else e.isneginf)(x)
    return e.logical_and(e.isinf(x), const(False))


@imports("Cast", "CastLike")
def _cast(n: Node, x: Value, like: Value | None = None) -> Any:
    dtype = like.dtype if like is not None else dtype_from(n["to"])
    if dtype.is_integer and x.dtype.is_float and dtype.bits < 32:
        # Of a float that does not fit, every runtime makes another number; by way of i32, one.
        return cast(cast(x, i32), dtype)
    return cast(x, dtype)


@imports("Identity", "Dropout", raw=True)
def _identity(n: Node, x: Any, ratio: Any = None, training: Any = None) -> Any:
    if n.op == "Identity":
        return x
    is_training = training is not None and bool(n.number(2))
    rate = float(n.number(1, 0.5)) if n.version >= 12 else float(n["ratio"] or 0)
    value = x.value
    kept = [broadcast_to(const(n.version >= 12), value.shape)] if len(n.outputs) > 1 else []
    if not is_training or rate == 0:
        if len(n.outputs) > 1 and n.version < 10:
            kept = [zeros_like(value)]  # the versions before 12 say nothing; onnxruntime has zeros
        return (x, *kept)
    importer, _ = n.context
    mask = n.outputs[1] if len(n.outputs) > 1 else ""  # exporters name it though none takes it
    if importer.is_taken(mask):
        raise Refused("a dropout that drops, and whose mask is a result, has numbers of its own")
    if not importer.training:
        importer.draws = True  # in the file: here it is left out
        return (x, *kept)
    return importer.dropout(value, rate)
