"""The functions of numbers, by numpy's names: operators, and what users call in formulas. Those of
conditions are in conditions.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import FormulaError
from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.conditions import where
from nncompile.elementwise.tracer import (
    FUNCTIONS,
    Scalar,
    compact,
    converted,
    enter,
    function,
    lift,
    refuse_bools,
    scalar_of,
    unified,
)

__all__ = ["FUNCTIONS"]


def _real(name: str, head: Any, doc: str) -> None:
    """A function of one real number."""
    # Naive spellings use eᵘ several times, and are looked for within one body.
    prepared = compact if head is h.exp else lift

    def computed(x: Any) -> Scalar:
        x = lift(prepared(x))
        (a,), dtype, weak = unified(x, real=True)
        return scalar_of(head(a), dtype, weak, x)

    enter(computed, name, doc)


for _name, _doc in {
    "exp": "eˣ",
    "expm1": "eˣ − 1, accurate near 0",
    "log": "The natural logarithm.",
    "log1p": "log(1 + x), accurate near 0",
    "sqrt": "The square root.",
    "sin": "The sine of radians.",
    "cos": "The cosine of radians.",
    "tan": "The tangent of radians.",
    "arcsin": "The inverse sine.",
    "arccos": "The inverse cosine.",
    "arctan": "The inverse tangent.",
    "sinh": "The hyperbolic sine.",
    "cosh": "The hyperbolic cosine.",
    "tanh": "The hyperbolic tangent.",
    "arcsinh": "The inverse hyperbolic sine.",
    "arccosh": "The inverse hyperbolic cosine.",
    "arctanh": "The inverse hyperbolic tangent.",
    "erf": "The error function.",
    "normal_cdf": "Φ, the distribution function of the standard normal distribution.",
    "sigmoid": "1 / (1 + e⁻ˣ), finite everywhere.",
    "gate": "`sigmoid` to within 10⁻⁷, as fast as runtimes have it: for what a gate multiplies.",
    "softplus": "log(1 + eˣ), finite everywhere.",
}.items():
    _real(_name, h.HEADS[_name], _doc)
_real("log2", lambda x: h.log(x) / h.LN2, "The logarithm to base 2.")
_real("log10", lambda x: h.log(x) / h.LN10, "The logarithm to base 10.")
_real("exp2", lambda x: h.exp(x * h.LN2), "2ˣ")
_real("cbrt", lambda x: h.sign(x) * h.power(h.absolute(x), sp.Rational(1, 3)), "The cube root.")


def _rounding(name: str, head: Any, doc: str) -> None:
    """A function of one number that leaves integers as they are."""

    def computed(x: Any) -> Scalar:
        x = lift(x)
        return scalar_of(head(x.expr), x.dtype, x.weak, x) if x.dtype.is_float else x

    enter(computed, name, doc)


_rounding("floor", h.floor, "The largest integer that is not above x; derivative 0.")
_rounding("ceil", h.ceil, "The smallest integer that is not below x; derivative 0.")
_rounding("trunc", h.trunc, "The integer part of x; derivative 0.")
_rounding("rint", h.rint, "The nearest integer, halves to the even one; derivative 0.")


@function()
def round(x: Any, decimals: int | None = 0) -> Scalar:
    """x to that many decimals, halves to the even one; derivative 0."""
    number = lift(x)
    if not decimals:
        return FUNCTIONS["rint"](number)
    if not number.dtype.is_float and decimals > 0:
        return number
    scale = 10.0 ** abs(decimals)
    up, down = (multiply, divide) if decimals > 0 else (divide, multiply)
    rounded = down(FUNCTIONS["rint"](up(number, scale)), scale)
    return rounded if number.dtype.is_float else converted(rounded, number.dtype)


@function()
def positive(x: Any) -> Scalar:
    """x itself."""
    return lift(x)


@function()
def negative(x: Any) -> Scalar:
    """−x"""
    x = lift(x)
    refuse_bools("negative", x)
    return scalar_of(-x.expr if x.dtype.is_float else h.int_negative(x.expr), x.dtype, x.weak, x)


@function("abs", "absolute")
def absolute(x: Any) -> Scalar:
    """|x|; derivative 0 at 0."""
    x = lift(x)
    refuse_bools("abs", x)
    return scalar_of(h.absolute(x.expr), x.dtype, x.weak, x)


@function()
def sign(x: Any) -> Scalar:
    """−1, 0 or 1; derivative 0."""
    x = lift(x)
    refuse_bools("sign", x)
    return scalar_of(h.sign(x.expr), x.dtype, x.weak, x)


@function()
def relu(x: Any) -> Scalar:
    """max(x, 0); derivative 0 at 0."""
    x = lift(x)
    refuse_bools("relu", x)
    head = h.relu(x.expr) if x.dtype.is_float else h.maximum(x.expr, 0)
    return scalar_of(head, x.dtype, x.weak, x)


@function()
def square(x: Any) -> Scalar:
    """x²"""
    return multiply(x, x)


@function()
def reciprocal(x: Any) -> Scalar:
    """1 / x"""
    return divide(1, x)


def _arithmetic(name: str, of_reals: Any, of_integers: Any, doc: str) -> Callable[..., Scalar]:
    def computed(x: Any, y: Any) -> Scalar:
        x, y = lift(x), lift(y)
        refuse_bools(name, x, y)
        (a, b), dtype, weak = unified(x, y)
        return scalar_of((of_reals if dtype.is_float else of_integers)(a, b), dtype, weak, x, y)

    return enter(computed, name, doc)


add = _arithmetic("add", lambda a, b: a + b, h.int_add, "x + y")
subtract = _arithmetic("subtract", lambda a, b: a - b, h.int_subtract, "x − y")
_product = _arithmetic("multiply", lambda a, b: a * b, h.int_multiply, "x·y")


def _quotient(head: Any) -> Callable[..., Any]:
    return lambda a, b: sp.zoo if b == 0 else head(a, b)  # which `scalar_of` refuses


_mod, _floor_divide = _quotient(h.mod), _quotient(h.floor_divide)
mod = _arithmetic("mod", _mod, _mod, "The remainder of x / y, of y's sign.")
floor_divide = _arithmetic(
    "floor_divide", _floor_divide, _floor_divide, "x / y rounded down; derivative 0."
)


@function()
def multiply(x: Any, y: Any) -> Scalar:
    """x·y; a bool times a number is that number where it holds, and 0 elsewhere."""
    x, y = lift(x), lift(y)
    for condition, other in ((x, y), (y, x)):
        if condition.dtype.is_bool and not condition.weak and not other.dtype.is_bool:
            return where(condition, other, 0)
    return _product(x, y)


@function()
def divide(x: Any, y: Any) -> Scalar:
    """x / y, real also for integers (float32)."""
    x, y = lift(x), lift(y)
    refuse_bools("divide", x, y)
    (a, b), dtype, weak = unified(x, y, real=True)
    return scalar_of(a / b, dtype, weak, x, y)


@function()
def power(x: Any, y: Any) -> Scalar:
    """x to the power y; at base 0 the derivatives are torch's. A negative power of an integer is
    1/xⁿ towards zero, and 0 for 0."""
    x, y = lift(x), lift(y)
    refuse_bools("power", x, y)
    (a, b), dtype, weak = unified(x, y)
    if dtype.is_float:
        return scalar_of(h.raised(a, b), dtype, weak, x, y)
    if b.is_negative:
        raise FormulaError(
            f"an integer to the power {b}", hint="float32(x) ** y, or 1 / x, is a real number"
        )
    return scalar_of(h.int_power(a, b), dtype, weak, x, y)


def _extreme(name: str, head: Any, of_bools: Any, doc: str) -> None:
    def computed(x: Any, y: Any) -> Scalar:
        x, y = lift(x), lift(y)
        (a, b), dtype, weak = unified(x, y)
        return scalar_of((of_bools if dtype.is_bool else head)(a, b), dtype, weak, x, y)

    enter(computed, name, doc)


_extreme("maximum", h.maximum, h.logical_or, "The larger; tied tensors share the derivative.")
_extreme("minimum", h.minimum, h.logical_and, "The smaller; tied tensors share the derivative.")


def _limited(name: str, head: Any, doc: str) -> None:
    def computed(x: Any, min: Any = None, max: Any = None) -> Scalar:
        x = lift(x)
        if not x.dtype.is_float:
            x = x if min is None else FUNCTIONS["maximum"](x, min)
            return x if max is None else FUNCTIONS["minimum"](x, max)
        lower = lift(-float("inf") if min is None else min)
        upper = lift(float("inf") if max is None else max)
        (a, b, c), dtype, weak = unified(x, lower, upper)
        return scalar_of(head(a, b, c), dtype, weak, x, lower, upper)

    enter(computed, name, doc)


_limited("clip", h.clip, "x limited to [min, max], None for no limit; derivative 1 at the limits.")
_limited("hard_clip", h.hard_clip, "`clip` with derivative 0 at the limits, as torch's hardtanh.")


def _of_point(name: str, head: Any, doc: str) -> None:
    """A function of two coordinates."""

    def computed(y: Any, x: Any) -> Scalar:
        y, x = lift(y), lift(x)
        (a, b), dtype, weak = unified(y, x, real=True)
        return scalar_of(head(a, b), dtype, weak, y, x)

    enter(computed, name, doc)


_of_point(
    "arctan2", h.arctan2, "The angle of the point (x, y), in (−π, π]; derivative 0 at (0, 0)."
)
_of_point("hypot", h.hypot, "√(x² + y²), finite where it can be; derivative 0 at (0, 0).")


def declared(value: Any, arguments: Sequence[Scalar], derivatives: Sequence[Any]) -> Scalar:
    """The value, with those derivatives at the arguments in place of its own."""
    result = stop_gradient(value)
    for x, derivative in zip(arguments, map(lift, derivatives), strict=True):
        if x.dtype.is_float and result.dtype.is_float:
            (a, b, c), dtype, weak = unified(result, x, derivative)
            result = scalar_of(h.declared(a, b, c), dtype, weak, result, x, derivative)
    return result


@function()
def stop_gradient(x: Any) -> Scalar:
    """x itself, with derivative 0."""
    x = lift(x)
    return scalar_of(h.stop_gradient(x.expr), x.dtype, x.weak, x)
