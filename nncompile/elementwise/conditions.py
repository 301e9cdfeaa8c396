"""Conditions of scalars: comparisons, logic and bits, the choice by them, conversions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nncompile.diagnostics.errors import DTypeError
from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.tracer import (
    FUNCTIONS,
    Scalar,
    converted,
    enter,
    function,
    lift,
    refuse_bools,
    scalar_of,
    unified,
)
from nncompile.ir.types import DTYPES, DType, boolean


def _comparison(name: str, head: Any, doc: str, ordered: bool = True) -> Callable[..., Scalar]:
    def computed(x: Any, y: Any) -> Scalar:
        x, y = lift(x), lift(y)
        if ordered:
            refuse_bools(name, x, y)
        (a, b), _, weak = unified(x, y)
        return scalar_of(head(a, b), boolean, weak and head(a, b).is_Rational, x, y)

    return enter(computed, name, doc)


_comparison("less", h.less, "x < y")
_comparison("less_equal", h.less_equal, "x ≤ y")
greater = _comparison("greater", lambda a, b: h.less(b, a), "x > y")
_comparison("greater_equal", lambda a, b: h.less_equal(b, a), "x ≥ y")
equal = _comparison("equal", h.equal, "x = y", ordered=False)
not_equal = _comparison("not_equal", h.not_equal, "x ≠ y", ordered=False)


def _truth(x: Any) -> Scalar:
    x = lift(x)
    return x if x.dtype.is_bool else not_equal(x, 0)


def _logical(name: str, head: Any, doc: str) -> None:
    def computed(*given: Any) -> Scalar:
        operands = [_truth(x) for x in given]
        weak = all(x.weak for x in operands)
        return scalar_of(head(*(x.expr for x in operands)), boolean, weak, *operands)

    enter(computed, name, doc)


_logical("logical_and", h.logical_and, "Whether both hold; numbers hold where they are not 0.")
_logical("logical_or", h.logical_or, "Whether one holds at least.")
_logical("logical_xor", h.logical_xor, "Whether just one holds.")
_logical("logical_not", h.logical_not, "Whether it does not hold.")


def _bitwise(name: str, head: Any, of_bools: str | None, doc: str) -> None:
    def computed(*given: Any) -> Scalar:
        operands = [lift(x) for x in given]
        exprs, dtype, weak = unified(*operands)
        if dtype.is_bool and of_bools:
            return FUNCTIONS[of_bools](*operands)
        if not dtype.is_integer:
            raise DTypeError(f"{name} of {dtype}", hint="bits are those of integers")
        return scalar_of(head(*exprs), dtype, weak, *operands)

    enter(computed, name, doc)


_bitwise("bitwise_and", h.bitwise_and, "logical_and", "x & y of bools or of bits")
_bitwise("bitwise_or", h.bitwise_or, "logical_or", "x | y of bools or of bits")
_bitwise("bitwise_xor", h.bitwise_xor, "logical_xor", "x ^ y of bools or of bits")
_bitwise("invert", h.invert, "logical_not", "~x of bools or of bits")
_bitwise(
    "left_shift",
    h.left_shift,
    None,
    "x << y; 0 where y is negative, or the number of bits or more.",
)
_bitwise(
    "right_shift",
    h.right_shift,
    None,
    "x >> y, keeping the sign; 0 or −1 where y is negative, or the number of bits or more.",
)


@function()
def where(condition: Any, x: Any, y: Any) -> Scalar:
    """x where the condition holds, else y; what is not taken has no part in the gradient, as far
    as it is elementwise, moved or summed (see the page on formulas)."""
    condition, x, y = lift(condition), lift(x), lift(y)
    if not condition.dtype.is_bool:
        raise DTypeError(
            f"the condition of where must be boolean, got {condition.dtype}",
            hint="compare it: x != 0, x > 0",
        )
    (a, b), dtype, weak = unified(x, y)
    return scalar_of(h.where(condition.expr, a, b), dtype, weak, condition, x, y)


def _property(name: str, head: Any, of_integers: bool, doc: str) -> None:
    def computed(x: Any) -> Scalar:
        x = lift(x)
        if not x.dtype.is_float:
            return lift(of_integers)
        return scalar_of(head(x.expr), boolean, False, x)

    enter(computed, name, doc)


_property("isnan", h.isnan, False, "Whether x is not a number.")
_property("isinf", h.isinf, False, "Whether x is infinite.")
_property("isfinite", h.isfinite, True, "Whether x is neither infinite nor NaN.")


@function()
def step(x: Any) -> Scalar:
    """1 where x > 0, else 0; derivative 0."""
    x = lift(x)
    return where(greater(x, 0), *((1.0, 0.0) if x.weak else _as_dtype(x, 1, 0)))


def _as_dtype(x: Scalar, *numbers: float) -> tuple[Scalar, ...]:
    return tuple(converted(lift(n), x.dtype) for n in numbers)


@function()
def heaviside(x: Any, at_zero: Any) -> Scalar:
    """0 below 0, 1 above, `at_zero` at 0; NaN at NaN."""
    x = lift(x)
    result = where(equal(x, 0), at_zero, step(x))
    return where(FUNCTIONS["isnan"](x), x, result) if x.dtype.is_float else result


def _conversion(dtype: DType) -> None:
    def computed(x: Any) -> Scalar:
        return converted(lift(x), dtype)

    enter(computed, dtype.name, f"x as {dtype.name}; floats to integers towards zero.")


for _dtype in DTYPES:
    _conversion(_dtype)
