"""Functions that onnxruntime has no float64 kernel for, from those that it has.

Each takes the target and the name of its argument. They are right to a few units in the last
place: differences that would cancel are written by expm1 and log1p.
"""

from __future__ import annotations

import math

from nncompile.elementwise.error_functions import erf
from nncompile.elementwise.terms import Function, Operand, Terms

# π/2 less its nearest float64.
_HALF_PI_REST = 6.123233995736766036e-17


def cos(t: Terms, x: Operand) -> Operand:
    """sin(π/2 − |x|), right near the first zeros, and beyond them 1 − 2·sin²(x/2), whose argument
    is exact. onnxruntime has no kernel before 1.24."""
    size = t("abs", x)
    near = t("sin", t.sum(t("subtract", math.pi / 2, size), _HALF_PI_REST))
    half = t("sin", t.product(0.5, size))
    far = t("subtract", 1.0, t.product(2.0, half, half))
    return t.where(t("less", size, 4.0), near, far)


def tan(t: Terms, x: Operand) -> Operand:
    """sin(x) / cos(x)."""
    return t("divide", t("sin", x), t("cos", x))


# Beyond that e^(x/2) is squared, which overflows where the result does and not before.
_LARGE = 20.0


def _half_exponential(t: Terms, size: Operand) -> Operand:
    """e^|x|/2."""
    root = t("exp", t("divide", size, 2.0))
    return t.product(t.product(0.5, root), root)


def sinh(t: Terms, x: Operand) -> Operand:
    """(expm1(|x|) − expm1(−|x|))/2 of x's sign."""
    size = t("abs", x)
    difference = t("subtract", t("expm1", size), t("expm1", t("negative", size)))
    near = t("divide", difference, 2.0)
    return t.signed(x, t.where(t("less", size, _LARGE), near, _half_exponential(t, size)))


def cosh(t: Terms, x: Operand) -> Operand:
    """(eˣ + e⁻ˣ) / 2, which overflows only where the result does."""
    half = _half_exponential(t, t("abs", x))
    return t.sum(half, t("divide", 0.25, half))


def arcsinh(t: Terms, x: Operand) -> Operand:
    """log1p(|x| + x²/(1 + √(1 + x²))) of x's sign."""
    size = t("abs", x)
    square = t.product(x, x)
    root = t("sqrt", t.sum(square, 1.0))
    near = t("log1p", t.sum(size, t("divide", square, t.sum(root, 1.0))))
    return t.signed(x, t.where(t("less", size, 1e8), near, _log_of_double(t, size)))


def arccosh(t: Terms, x: Operand) -> Operand:
    """log1p(u + √u·√(u + 2)), u = x − 1."""
    u = t("subtract", x, 1.0)
    root = t.product(t("sqrt", u), t("sqrt", t.sum(u, 2.0)))
    near = t("log1p", t.sum(u, root))
    return t.where(t("less", x, 1e8), near, _log_of_double(t, x))


def _log_of_double(t: Terms, x: Operand) -> Operand:
    return t.sum(t("log", x), math.log(2))


def arctanh(t: Terms, x: Operand) -> Operand:
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


def arctan(t: Terms, x: Operand) -> Operand:
    """The arctangent, reduced to small arguments (Cephes)."""
    size = t("abs", x)
    is_large = t("less", _TAN_3_PI_OVER_8, size)
    is_middle = t("less", 0.66, size)
    inverse = t("divide", -1.0, size)
    middle = t("divide", t("subtract", size, 1.0), t.sum(size, 1.0))
    u = t.where(is_large, inverse, t.where(is_middle, middle, size))
    base = t.where(is_large, math.pi / 2, t.where(is_middle, math.pi / 4, 0.0))
    z = t.product(u, u)
    ratio = t("divide", t.polynomial(z, _ATAN_P), t.polynomial(z, _ATAN_Q))
    return t.signed(x, t.sum(base, t.sum(t.product(u, z, ratio), u)))


def arcsin(t: Terms, x: Operand) -> Operand:
    """arctan(x/√((1 − x)(1 + x)))."""
    square = t.product(t("subtract", 1.0, x), t.sum(x, 1.0))
    return arctan(t, t("divide", x, t("sqrt", square)))


def arccos(t: Terms, x: Operand) -> Operand:
    """2·arctan(√((1 − x)/(1 + x)))."""
    ratio = t("divide", t("subtract", 1.0, x), t.sum(x, 1.0))
    return t.product(2.0, arctan(t, t("sqrt", ratio)))


FUNCTIONS: dict[str, Function] = {
    "cos": cos,
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
