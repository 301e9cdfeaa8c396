"""Functions that onnxruntime has no float64 kernel for, from those that it has.

Each takes the target and the name of its argument. They are right to a few units in the last
place: differences that would cancel are written by expm1 and log1p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nncompile.types import f64

if TYPE_CHECKING:
    from nncompile.backends.onnx.formulas import OnnxFormulas

Function = Callable[["Terms", str], str]
Operand = str | float


class Terms:
    """Arithmetic on names of float64 values and numbers."""

    def __init__(self, target: OnnxFormulas) -> None:
        self.target = target

    def __call__(self, name: str, *args: Operand) -> str:
        """The result of a primitive call."""
        operands = [x if isinstance(x, str) else self.target.literal(x, f64) for x in args]
        return self.target.call(name, f64, *operands)

    def where(self, condition: str, a: Operand, b: Operand) -> str:
        operands = [x if isinstance(x, str) else self.target.literal(x, f64) for x in (a, b)]
        return self.target.call("where", f64, condition, *operands)

    def sum(self, *terms: Operand) -> str:
        total, *rest = terms
        for term in rest:
            total = self("add", total, term)
        return str(total)

    def product(self, *factors: Operand) -> str:
        total, *rest = factors
        for factor in rest:
            total = self("multiply", total, factor)
        return str(total)

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """By Horner's rule, highest power first."""
        total: Operand = coefficients[0]
        for coefficient in coefficients[1:]:
            total = self("add", self("multiply", total, x), coefficient)
        return str(total)

    def signed(self, x: str, size: str) -> str:
        """An odd function from its value at |x|; keeps NaN."""
        return self.where(self("less", x, 0.0), self("negative", size), size)


def tan(t: Terms, x: str) -> str:
    return t("divide", t("sin", x), t("cos", x))


# Beyond that e^(x/2) is squared, which overflows where the result does and not before.
_LARGE = 20.0


def _half_exponential(t: Terms, size: str) -> str:
    """e^|x|/2."""
    root = t("exp", t("divide", size, 2.0))
    return t.product(t.product(0.5, root), root)


def sinh(t: Terms, x: str) -> str:
    """(expm1(|x|) − expm1(−|x|))/2 of x's sign."""
    size = t("abs", x)
    difference = t("subtract", t("expm1", size), t("expm1", t("negative", size)))
    near = t("divide", difference, 2.0)
    return t.signed(x, t.where(t("less", size, _LARGE), near, _half_exponential(t, size)))


def cosh(t: Terms, x: str) -> str:
    half = _half_exponential(t, t("abs", x))
    return t.sum(half, t("divide", 0.25, half))


def arcsinh(t: Terms, x: str) -> str:
    """log1p(|x| + x²/(1 + √(1 + x²))) of x's sign."""
    size = t("abs", x)
    square = t.product(x, x)
    root = t("sqrt", t.sum(square, 1.0))
    near = t("log1p", t.sum(size, t("divide", square, t.sum(root, 1.0))))
    return t.signed(x, t.where(t("less", size, 1e8), near, _log_of_double(t, size)))


def arccosh(t: Terms, x: str) -> str:
    """log1p(u + √u·√(u + 2)), u = x − 1."""
    u = t("subtract", x, 1.0)
    root = t.product(t("sqrt", u), t("sqrt", t.sum(u, 2.0)))
    near = t("log1p", t.sum(u, root))
    return t.where(t("less", x, 1e8), near, _log_of_double(t, x))


def _log_of_double(t: Terms, x: str) -> str:
    return t.sum(t("log", x), math.log(2))


def arctanh(t: Terms, x: str) -> str:
    """log1p(2|x|/(1 − |x|))/2 of x's sign."""
    size = t("abs", x)
    ratio = t("divide", t.product(2.0, size), t("subtract", 1.0, size))
    return t.signed(x, t("divide", t("log1p", ratio), 2.0))


# S. L. Moshier, "Methods and Programs for Mathematical Functions" (1989): atan of the Cephes
# library, x + x·z·P(z)/Q(z) with z = x², |x| ≤ 0.66.
_ATAN_P = (
    -8.750608600031904122785e-1,
    -1.615753718733365076637e1,
    -7.500855792314704667340e1,
    -1.228866684490136173410e2,
    -6.485021904942025371773e1,
)
_ATAN_Q = (
    1.0,
    2.485846490142306297962e1,
    1.650270098316988542046e2,
    4.328810604912902668951e2,
    4.853903996359136964868e2,
    1.945506571482613964425e2,
)
_TAN_3_PI_OVER_8 = 2.41421356237309504880


def arctan(t: Terms, x: str) -> str:
    size = t("abs", x)
    is_large = t("less", _TAN_3_PI_OVER_8, size)
    is_middle = t("less", 0.66, size)
    beyond = t("divide", -1.0, size)
    middle = t("divide", t("subtract", size, 1.0), t.sum(size, 1.0))
    u = t.where(is_large, beyond, t.where(is_middle, middle, size))
    base = t.where(is_large, math.pi / 2, t.where(is_middle, math.pi / 4, 0.0))
    z = t.product(u, u)
    ratio = t("divide", t.polynomial(z, _ATAN_P), t.polynomial(z, _ATAN_Q))
    return t.signed(x, t.sum(base, t.sum(t.product(u, z, ratio), u)))


def arcsin(t: Terms, x: str) -> str:
    """arctan(x/√((1 − x)(1 + x)))."""
    square = t.product(t("subtract", 1.0, x), t.sum(x, 1.0))
    return arctan(t, t("divide", x, t("sqrt", square)))


def arccos(t: Terms, x: str) -> str:
    """2·arctan(√((1 − x)/(1 + x)))."""
    ratio = t("divide", t("subtract", 1.0, x), t.sum(x, 1.0))
    return t.product(2.0, arctan(t, t("sqrt", ratio)))


# W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of
# Computation 23 (1969): erf(x) = x·P(x²)/Q(x²) up to 0.46875, erfc(x) = e^(−x²)·P(x)/Q(x) up to 4.
# From 6 on erf is 1 in double precision; between 4 and 6 the second form is right to what is left.
_ERF_P = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_ERF_Q = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
_ERFC_P = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_ERFC_Q = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
_ERF_IS_ONE = 6.0


def erf(t: Terms, x: str) -> str:
    size = t("minimum", t("abs", x), _ERF_IS_ONE)
    z = t.product(size, size)
    ratio = t("divide", t.polynomial(z, _ERF_P), t.polynomial(z, _ERF_Q))
    near = t.product(size, ratio)
    tail = t("divide", t.polynomial(size, _ERFC_P), t.polynomial(size, _ERFC_Q))
    far = t("subtract", 1.0, t.product(t("exp", t("negative", z)), tail))
    return t.signed(x, t.where(t("less", size, 0.46875), near, far))


FUNCTIONS: dict[str, Function] = {
    "tan": tan,
    "sinh": sinh,
    "cosh": cosh,
    "arcsinh": arcsinh,
    "arccosh": arccosh,
    "arctanh": arctanh,
    "arctan": arctan,
    "arcsin": arcsin,
    "arccos": arccos,
    "erf": erf,
}
