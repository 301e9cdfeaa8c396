"""Elementwise expressions as ONNX nodes: one method for each operation that formulas come to.

Forms are chosen for accuracy first (no overflow, no cancellation near zero), then by the measured
cost of onnxruntime's kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy as sp

from nncompile.backends.onnx import float64 as double
from nncompile.backends.onnx.branchless import branchless
from nncompile.backends.onnx.integers import Integers
from nncompile.elementwise.error_functions import erfc, erfinv
from nncompile.elementwise.gamma import digamma, lgamma
from nncompile.elementwise.lowering import walk
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.elementwise.terms import Function, Terms, in_double
from nncompile.ir.dims import product
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import DType, boolean, f32, f64, i64
from nncompile.ops.core.finite import masked

# What ONNX has under one name for every element type that the operation takes.
SAME = {
    "abs": "Abs",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "sin": "Sin",
    "tanh": "Tanh",
    "gate": "Sigmoid",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "isnan": "IsNaN",
    "isinf": "IsInf",
    "equal": "Equal",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
    "logical_not": "Not",
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
    "invert": "BitwiseNot",
}

# What ONNX has not: computed in double precision.
SPECIAL: dict[str, Function] = {
    "erfc": erfc,
    "erfinv": erfinv,
    "lgamma": lgamma,
    "digamma": digamma,
}

# The same, but onnxruntime has no float64 kernel for them (see double.py).
SINGLE_PRECISION = {
    "cos": "Cos",
    "tan": "Tan",
    "arcsin": "Asin",
    "arccos": "Acos",
    "arctan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "arcsinh": "Asinh",
    "arccosh": "Acosh",
    "arctanh": "Atanh",
    "erf": "Erf",
}


class OnnxFormulas:
    """The target of `walk` whose results are names of ONNX values."""

    def __init__(self, o: OnnxEmitter) -> None:
        self.o = o
        self.args: Sequence[str] = ()

    def lower(self, body: sp.Expr, args: Sequence[str], types: Sequence[Any]) -> str:
        """The name of the result of `body` over the arguments."""
        self.args = args
        leaves = {placeholder(i): name for i, name in enumerate(args)}
        dtypes = {placeholder(i): type_.dtype for i, type_ in enumerate(types)}
        computed = f64 if f64 in dtypes.values() else f32
        result: str = walk(branchless(body, computed), leaves, dtypes, self)
        return result

    def literal(self, number: Any, dtype: DType) -> str:
        """The name of a scalar constant."""
        return self.o.scalar(number, dtype)

    def cast(self, x: str, source: DType, dtype: DType) -> str:
        """The name of `x` in the element type `dtype`."""
        return self.o.cast(x, dtype)

    def call(self, name: str, dtype: DType, *args: str) -> str:
        """The output name of the nodes that compute this primitive."""
        result: str
        method = getattr(self, f"_{name}", None)
        if method is not None:
            result = method(dtype, *args)
        elif name in SPECIAL:
            result = in_double(self, SPECIAL[name], dtype, *args)
        elif name in SINGLE_PRECISION and dtype is f64:
            result = double.FUNCTIONS[name](Terms(self), *args)
        else:
            operator = SINGLE_PRECISION[name] if name in SINGLE_PRECISION else SAME[name]
            result = getattr(self.o, operator)(*args)
        return result

    def _number(self, number: float, dtype: DType) -> str:
        return self.o.scalar(number, dtype)

    # Arithmetic that ONNX lacks or has for some element types only.

    def _add(self, dtype: DType, x: str, y: str) -> str:
        return self.o.Add(self.o.addend(x), self.o.addend(y))

    def _subtract(self, dtype: DType, x: str, y: str) -> str:
        return self.o.Sub(x, self.o.addend(y))

    def _multiply(self, dtype: DType, x: str, y: str) -> str:
        return self.o.Mul(self.o.factor(x), self.o.factor(y))

    def _divide(self, dtype: DType, x: str, y: str) -> str:
        return self.o.Div(x, self.o.factor(y, divides=True))

    def _negative(self, dtype: DType, x: str) -> str:
        if not dtype.is_signed:
            return self.o.Sub(self._number(0, dtype), x)
        return self.o.Neg(x)

    def _power(self, dtype: DType, x: str, y: str) -> str:
        if dtype.is_integer:
            return Integers(self.o, dtype).power(x, y)
        return self.o.Pow(x, y)

    def _mod(self, dtype: DType, x: str, y: str) -> str:
        if dtype.is_integer:
            return Integers(self.o, dtype).mod(x, y)
        remainder, differs = self._remainder(dtype, x, y)
        return self.o.Where(differs, self.o.Add(remainder, y), remainder)

    def _floor_divide(self, dtype: DType, x: str, y: str) -> str:
        if dtype.is_integer:
            return Integers(self.o, dtype).floor_divide(x, y)
        remainder, differs = self._remainder(dtype, x, y)
        rounded = self.o.Round(self.o.Div(self.o.Sub(x, remainder), y))
        below = self.o.Sub(rounded, self.o.cast(differs, dtype))
        by_zero = self.o.Equal(y, self._number(0, dtype))
        return self.o.Where(by_zero, self.o.Div(x, y), below)

    def _remainder(self, dtype: DType, x: str, y: str) -> tuple[str, str]:
        """C's remainder of reals, which has the sign of x, and whether that of y is another one. (A
        product of the two would tell it, too, but for numbers that are small.)"""
        zero = self._number(0, dtype)
        remainder = self.o.Mod(x, y, fmod=1)
        differs = self.o.Or(
            self.o.And(self.o.Less(remainder, zero), self.o.Less(zero, y)),
            self.o.And(self.o.Less(zero, remainder), self.o.Less(y, zero)),
        )
        return remainder, differs

    def _relu(self, dtype: DType, x: str) -> str:
        if dtype.is_float:
            return self.o.Relu(x)
        return self._maximum(dtype, x, self._number(0, dtype))

    def _maximum(self, dtype: DType, x: str, y: str) -> str:
        if dtype is i64:  # the kernel compares the lower halves as signed (onnxruntime 1.31)
            return self.o.Where(self.o.Greater(x, y), x, y)
        return self.o.Max(x, y)

    def _minimum(self, dtype: DType, x: str, y: str) -> str:
        if dtype is i64:
            return self.o.Where(self.o.Less(x, y), x, y)
        return self.o.Min(x, y)

    def _trunc(self, dtype: DType, x: str) -> str:
        negative = self.o.Less(x, self._number(0, dtype))
        return self.o.Where(negative, self.o.Ceil(x), self.o.Floor(x))

    # Accurate near zero and finite far from it.

    def _sigmoid(self, dtype: DType, x: str) -> str:
        """1/(1 + e⁻ˣ): the operator of that name is off by 10⁻⁷, and so by a multiple of itself
        below −16; in float64 as well."""
        one = self._number(1, dtype)
        return self.o.Div(one, self.o.Add(one, self.o.Exp(self.o.Neg(x))))

    def _expm1(self, dtype: DType, x: str) -> str:
        """2t/(1 − t), t = tanh(x/2), near zero; e^x − 1 elsewhere."""
        one, two = self._number(1, dtype), self._number(2, dtype)
        t = self.o.Tanh(self.o.Div(x, two))
        near = self.o.Div(self.o.Mul(two, t), self.o.Sub(one, t))
        is_near = self.o.Less(self.o.Abs(x), one)
        return self.o.Where(is_near, near, self.o.Sub(self.o.Exp(x), one))

    def _log1p(self, dtype: DType, x: str) -> str:
        """log(u) + (x − (u − 1))/u with u = 1 + x: the second term is what rounding u lost, which
        matters near zero."""
        one = self._number(1, dtype)
        u = self.o.Add(one, x)
        error = self.o.Div(self.o.Sub(x, self.o.Sub(u, one)), u)
        log = self.o.Log(u)
        is_near = self.o.Less(self.o.Abs(x), self._number(0.5, dtype))
        return self.o.Where(is_near, self.o.Add(log, error), log)

    def _softplus(self, dtype: DType, x: str) -> str:
        """max(x, 0) + log(1 + e^−|x|), the logarithm as in `_log1p`: as right as the operator of
        that name, and several times as fast."""
        one = self._number(1, dtype)
        below = self.o.Exp(self.o.Neg(self.o.Abs(x)))
        u = self.o.Add(one, below)
        error = self.o.Div(self.o.Sub(below, self.o.Sub(u, one)), u)
        return self.o.Add(self.o.Relu(x), self.o.Add(self.o.Log(u), error))

    def _arctan2(self, dtype: DType, y: str, x: str) -> str:
        """atan(|y|/|x|), or π less that where x is negative, with the sign of y; π/4 where the
        sizes are equal, infinite ones too, and 0 where they are 0. Zeros have signs."""
        zero, one = self._number(0, dtype), self._number(1, dtype)
        high, wide = self.o.Abs(y), self.o.Abs(x)
        quarter = self.o.Where(self.o.Equal(high, zero), zero, self._number(math.pi / 4, dtype))
        angle = self.call("arctan", dtype, self.o.Div(high, wide))
        angle = self.o.Where(self.o.Equal(high, wide), quarter, angle)
        obtuse = self.o.Sub(self._number(math.pi, dtype), angle)
        angle = self.o.Where(self._is_negative(dtype, x), obtuse, angle)
        sign = self.o.Where(self._is_negative(dtype, y), self._number(-1, dtype), one)
        return self.o.Mul(sign, angle)

    def _is_negative(self, dtype: DType, x: str) -> str:
        """Whether x has a minus sign; that of −0 is seen in its inverse."""
        zero, one = self._number(0, dtype), self._number(1, dtype)
        return self.o.Or(self.o.Less(x, zero), self.o.Less(self.o.Div(one, x), zero))

    # Comparisons and choices; ONNX has no Where of bools and no order of them.

    def _less(self, dtype: DType, x: str, y: str) -> str:
        if dtype is boolean:
            return self.o.And(self.o.Not(x), y)
        return self.o.Less(x, y)

    def _less_equal(self, dtype: DType, x: str, y: str) -> str:
        if dtype is boolean:
            return self.o.Or(self.o.Not(x), y)
        return self.o.LessOrEqual(x, y)

    def _not_equal(self, dtype: DType, x: str, y: str) -> str:
        return self.o.Xor(x, y) if dtype is boolean else self.o.Not(self.o.Equal(x, y))

    def _where(self, dtype: DType, condition: str, x: str, y: str) -> str:
        if dtype is boolean:
            both = self.o.And(condition, x)
            return self.o.Or(both, self.o.And(self.o.Not(condition), y))
        if not dtype.is_float:  # such as of a count that follows from gradients
            return self.o.Where(condition, x, y)
        if self._is_gradient(x) and self._is_zero(y):
            return masked(self.o, condition, x, dtype, size=product(self.o.type.shape))
        if self._is_gradient(y) and self._is_zero(x):
            negated = self.o.Not(condition)
            return masked(self.o, negated, y, dtype, size=product(self.o.type.shape))
        return self.o.Where(condition, x, y)

    def _is_gradient(self, x: str) -> bool:
        """Whether it is an argument of a gradient's formula, as it is or times numbers."""
        operator, inputs = self.o.producer(x)
        if operator in ("Mul", "Div") and any(map(self._is_number, inputs)):
            x = next((name for name in inputs if not self._is_number(name)), x)
        return x in self.args and self.o.is_backward

    def _is_number(self, x: str) -> bool:
        """Whether it is a number, or a choice between two."""
        operator, inputs = self.o.producer(x)
        if operator == "Where":
            return all(map(self._is_number, inputs[1:]))
        return x in self.o.constants and self.o.constants[x].size == 1

    def _is_zero(self, x: str) -> bool:
        number = self.o.constants.get(x)
        return number is not None and number.size == 1 and not number.any()

    def _left_shift(self, dtype: DType, x: str, y: str) -> str:
        return Integers(self.o, dtype).left_shift(x, y)

    def _right_shift(self, dtype: DType, x: str, y: str) -> str:
        return Integers(self.o, dtype).right_shift(x, y)

    def _stop_gradient(self, dtype: DType, x: str) -> str:
        return x
