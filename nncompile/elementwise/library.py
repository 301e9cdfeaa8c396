"""The functions of numpy that are made of others, and its second names for some."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.conditions import where
from nncompile.elementwise.functions import FUNCTIONS
from nncompile.elementwise.tracer import (
    Scalar,
    converted,
    function,
    lift,
    refuse_bools,
    scalar_of,
    unified,
)
from nncompile.ir.types import boolean, f64

__all__ = ["FUNCTIONS"]

_F = FUNCTIONS
_DEGREE = h.PI / 180


def _real(x: Any) -> Scalar:
    """`x` as a real number; integers become float32, as in a division."""
    x = lift(x)
    (expr,), dtype, weak = unified(x, real=True)
    return Scalar(expr, dtype, weak, x.size)


@function("deg2rad", "radians")
def radians(x: Any) -> Scalar:
    """Degrees as radians."""
    return _F["multiply"](_real(x), _DEGREE)


@function("rad2deg", "degrees")
def degrees(x: Any) -> Scalar:
    """Radians as degrees."""
    return _F["multiply"](_real(x), 1 / _DEGREE)


@function()
def sinc(x: Any) -> Scalar:
    """sin(πx)/(πx), 1 at 0."""
    u = _F["multiply"](_real(x), h.PI)
    square = u * u
    # Near 0 by its series: the quotient has no derivative at 0, and loses digits beside it.
    series: Any = 0.0
    for k in range(7, 0, -1):
        series = (series + 1) * square * sp.Rational(-1, 2 * k * (2 * k + 1))
    return where(square < 0.25, series + 1, _F["sin"](u) / u)


@function()
def signbit(x: Any) -> Scalar:
    """Whether x is negative, −0 included."""
    x = lift(x)
    refuse_bools("signbit", x)
    negative = _F["less"](x, 0)
    if not x.dtype.is_float:
        return negative
    (expr,), _, weak = unified(x)
    if expr == 0:
        return negative
    below = scalar_of(h.less(1 / expr, 0), boolean, weak, x)
    return _F["logical_or"](negative, below)


@function()
def copysign(x: Any, y: Any) -> Scalar:
    """|x| with the sign of y, that of a zero too; derivative 0 where x is 0."""
    # A product, as a choice between 0 and −0 may not be one in runtimes.
    return _F["multiply"](_F["abs"](_real(x)), where(signbit(y), -1, 1))


@function()
def fabs(x: Any) -> Scalar:
    """|x| as a real number; derivative 0 at 0."""
    return _F["abs"](_real(x))


@function()
def fmod(x: Any, y: Any) -> Scalar:
    """The remainder of x / y, of x's sign."""
    x, y = lift(x), lift(y)
    remainder = _F["mod"](x, y)  # of y's sign
    if not remainder.dtype.is_float:
        differs = _F["logical_xor"](_F["less"](x, 0), _F["less"](remainder, 0))
        differs = _F["logical_and"](differs, _F["not_equal"](remainder, 0))
        return where(differs, remainder - y, remainder)
    size = _F["mod"](_F["abs"](x), _F["abs"](y))
    return _F["multiply"](size, where(signbit(x), -1, 1))


@function()
def fmax(x: Any, y: Any) -> Scalar:
    """The larger, the other where one is NaN; at ties the derivative is x's."""
    return where(_F["logical_or"](_F["greater_equal"](x, y), _F["isnan"](y)), x, y)


@function()
def fmin(x: Any, y: Any) -> Scalar:
    """The smaller, the other where one is NaN; at ties the derivative is x's."""
    return where(_F["logical_or"](_F["less_equal"](x, y), _F["isnan"](y)), x, y)


@function()
def float_power(x: Any, y: Any) -> Scalar:
    """x to the power y in float64."""
    return _F["power"](converted(lift(x), f64), converted(lift(y), f64))


@function()
def logaddexp(x: Any, y: Any) -> Scalar:
    """log(eˣ + eʸ), finite where x and y are."""
    return _log_sum(x, y, sp.Integer(1))


@function()
def logaddexp2(x: Any, y: Any) -> Scalar:
    """log₂(2ˣ + 2ʸ), finite where x and y are."""
    return _log_sum(x, y, h.LN2)


def _log_sum(x: Any, y: Any, base: sp.Expr) -> Scalar:
    """The logarithm of bˣ + bʸ to a base b of that logarithm."""
    x, y = _real(x), _real(y)
    is_first = _F["greater"](x, y)
    larger, smaller = where(is_first, x, y), where(is_first, y, x)
    total = larger + _F["softplus"]((smaller - larger) * base) / base
    both_infinite = _F["logical_and"](_F["isinf"](x), _F["equal"](x, y))
    return where(both_infinite, x, total)


@function()
def nan_to_num(
    x: Any,
    copy: bool = True,
    nan: Any = 0.0,
    posinf: Any = None,
    neginf: Any = None,
) -> Scalar:
    """x with numbers in place of NaN and infinities, by default 0 and the largest numbers;
    derivative 0 there. `copy` is numpy's, and means nothing here."""
    number = lift(x)
    if not number.dtype.is_float:
        return number
    largest = float(np.finfo(number.dtype.numpy).max)
    high = largest if posinf is None else posinf
    low = -largest if neginf is None else neginf
    finite = where(_F["isinf"](number), where(_F["less"](0, number), high, low), number)
    return where(_F["isnan"](number), nan, finite)


@function()
def isclose(x: Any, y: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Scalar:
    """Whether |x − y| ≤ atol + rtol·|y|, or both are the same infinity (or NaN, if that counts)."""
    x, y = _real(x), _real(y)
    near = _F["less_equal"](_F["abs"](x - y), atol + rtol * _F["abs"](y))
    close = _F["logical_or"](_F["equal"](x, y), _F["logical_and"](_F["isfinite"](y), near))
    if equal_nan:
        both_nan = _F["logical_and"](_F["isnan"](x), _F["isnan"](y))
        close = _F["logical_or"](close, both_nan)
    return close


@function()
def isposinf(x: Any) -> Scalar:
    """Whether x is +∞."""
    return _F["logical_and"](_F["isinf"](x), _F["less"](0, x))


@function()
def isneginf(x: Any) -> Scalar:
    """Whether x is −∞."""
    return _F["logical_and"](_F["isinf"](x), _F["less"](x, 0))


# numpy's other names. Those of the array API came with numpy 2.
SAME = {
    "true_divide": "divide",
    "remainder": "mod",
    "pow": "power",
    "fix": "trunc",
    "around": "round",
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "bitwise_invert": "invert",
    "bitwise_not": "invert",
    "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift",
}
for _name, _other in SAME.items():
    FUNCTIONS[_name] = FUNCTIONS[_other]
