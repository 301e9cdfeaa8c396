"""The logarithm of Γ and its derivatives."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp

from nncompile.elementwise.terms import Operand, Terms

# log Γ(2 + d)/d at −0.3 ≤ d ≤ 0.7, highest power first: the polynomial through its values at 18
# Chebyshev nodes, right to 3e-18.
_NEAR_TWO = (
    5.168106102113586613e-8,
    -2.9597600057164403657e-7,
    8.8866509643361390194e-7,
    -2.0495943636409471009e-6,
    4.397984970752708535e-6,
    -9.4459968316847902526e-6,
    2.0505422195136857979e-5,
    -4.4925059496847341473e-5,
    9.9457486364109377489e-5,
    -2.2315483975451663534e-4,
    5.0966953376503967743e-4,
    -1.1927539090217162236e-3,
    2.8905103303475894501e-3,
    -7.3855510287158120756e-3,
    2.0580808427790633514e-2,
    -6.7352301053197834808e-2,
    3.2246703342411319324e-1,
    4.2278433509846713909e-1,
)
# The asymptotic series (Abramowitz & Stegun, 6.1.41 and 6.3.18) are right to the last place where
# the argument is at least that large.
_LARGE = 10.0


def _bernoulli(k: int) -> sp.Rational:
    return sp.bernoulli(2 * k)


# B₂ₖ/(2k(2k − 1)) and B₂ₖ/(2k), Bernoulli's numbers, highest k first.
_STIRLING = (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12)
_DIGAMMA = (-3617 / 8160, 1 / 12, -691 / 32760, 1 / 132, -1 / 240, 1 / 252, -1 / 120, 1 / 12)


def _positive(t: Terms, x: Operand) -> tuple[Operand, Operand]:
    """Whether x is negative, and x or its reflection 1 − x: numbers that are not negative."""
    is_negative = t("less", x, 0.0)
    return is_negative, t.where(is_negative, t("subtract", 1.0, x), x)


def _half_turn(t: Terms, x: Operand) -> tuple[Operand, Operand]:
    """±sin(πx) and ±cos(πx), of one sign, without what rounding πx would lose."""
    fraction = t("subtract", x, t("round", x))
    rest = t("subtract", 0.5, t("abs", fraction))
    return t("sin", t.product(fraction, math.pi)), t("sin", t.product(rest, math.pi))


def lgamma(t: Terms, x: Operand) -> Operand:
    """log |Γ(x)|: a polynomial at 2 and its neighbours 1 and 0, Stirling's series elsewhere, of
    x + 8 where x is not large. ∞ at the poles and at both infinities."""
    is_negative, y = _positive(t, x)
    below = t("less", y, 0.7), t("less", y, 1.7), t("less", y, 2.7), t("less", y, _LARGE)
    pairs = t.product(y, t.sum(y, 7.0))  # (y + i)(y + 7 − i) is this and i(7 − i)
    eight = t.product(pairs, t.sum(pairs, 6.0), t.sum(pairs, 10.0), t.sum(pairs, 12.0))
    # Γ(y) is that of a moved argument divided by what lies between.
    divisor = t.where(below[2], 1.0, t.where(below[3], eight, 1.0))
    divisor = t.where(below[0], t.product(y, t.sum(y, 1.0)), t.where(below[1], y, divisor))
    d = t("subtract", y, t.where(below[0], 0.0, t.where(below[1], 1.0, 2.0)))
    near = t.product(d, t.polynomial(d, _NEAR_TWO))
    z = t.where(below[3], t.sum(y, 8.0), y)
    series = t("divide", t.polynomial(t("divide", 1.0, t.product(z, z)), _STIRLING), z)
    power = t.product(t("subtract", z, 0.5), t("subtract", t("log", z), 1.0))
    far = t.sum(power, (math.log(2 * math.pi) - 1) / 2, series)
    at_positive = t("subtract", t.where(below[2], near, far), t("log", divisor))
    sine, _ = _half_turn(t, x)
    reflected = t("subtract", math.log(math.pi), t("log", t("abs", sine)))
    # Where the sine is 0 there is a pole, and far from 0 both are infinite.
    is_pole = t("equal", sine, 0.0)
    at_negative = t.where(is_pole, math.inf, t("subtract", reflected, at_positive))
    size = t("abs", x)
    at_pole = t("negative", t("log", size))  # also of numbers with few digits
    finite = t.where(is_negative, at_negative, at_positive)
    finite = t.where(t("less", size, 1e-20), at_pole, finite)
    return t.where(t("isinf", x), size, finite)


def digamma(t: Terms, x: Operand) -> Operand:
    """The derivative of log Γ: the asymptotic series of x, or of x + 10 where x is not large.
    ∓∞ at ±0, NaN at the other poles and at −∞."""
    is_negative, y = _positive(t, x)
    is_small = t("less", y, _LARGE)
    # Σ 1/(y + i) of ten, in pairs: (y + i)(y + 9 − i) is y(y + 9) + i(9 − i).
    pairs = t.product(y, t.sum(y, 9.0))
    parts = [t("divide", 1.0, t.sum(pairs, i * (9.0 - i)) if i else pairs) for i in range(5)]
    before = t.product(t.sum(t.product(2.0, y), 9.0), t.sum(*parts[::-1]))
    z = t.where(is_small, t.sum(y, 10.0), y)
    square = t("divide", 1.0, t.product(z, z))
    series = t.sum(t.product(square, t.polynomial(square, _DIGAMMA)), t("divide", 0.5, z))
    far = t("subtract", t("log", z), series)
    at_positive = t("subtract", far, t.where(is_small, before, 0.0))
    sine, cosine = _half_turn(t, x)
    reflection = t("divide", t.product(math.pi, cosine), sine)
    at_negative = t.where(t("equal", sine, 0.0), math.nan, t("subtract", at_positive, reflection))
    return t.where(is_negative, at_negative, at_positive)


def polygamma(n: int, x: sp.Expr, heads: Any) -> sp.Expr:
    """The derivative number n ≥ 1 of the digamma function, of float64, as an expression.

    (−1)ⁿ⁺¹·n!·ζ(n + 1, x) by the sum of Euler and Maclaurin (Abramowitz & Stegun, 6.4.10, 23.1.30);
    at negative x by reflection (6.4.7). At all poles that of +0.
    """
    power = n + 1
    is_negative = heads.less(x, 0)
    y = heads.where(is_negative, 1 - x, heads.absolute(x))
    terms, orders = _lengths(power)
    z = y + terms
    series: sp.Expr = sp.Integer(0)
    for k in range(orders, 0, -1):
        series = (series + _coefficient(power, k)) / z**2
    tail = (sp.Rational(1, n) + sp.Rational(1, 2) / z + series) / z**n
    total = sp.Add(*(1 / (y + i) ** power for i in range(terms)), tail)
    fraction = x - heads.rint(x)
    half = sp.Rational(1, 2)
    cotangent = heads.sin(_PI * (half - heads.absolute(fraction))) / heads.sin(_PI * fraction)
    reflection = _PI**power * _cotangent_derivative(n, cotangent)
    factor = (-1) ** power * sp.factorial(n)
    sign = heads.where(is_negative, (-1) ** n * factor, factor)
    return sign * total - heads.where(is_negative, reflection, 0)


_PI = sp.Rational("3.14159265358979323846264338327950288")


def _coefficient(power: int, k: int) -> sp.Rational:
    """B₂ₖ/(2k)!·s(s + 1)…(s + 2k − 2)."""
    return _bernoulli(k) / sp.factorial(2 * k) * sp.rf(power, 2 * k - 1)


def _lengths(power: int) -> tuple[int, int]:
    """How many terms are added one by one, and how many orders follow, so that what is left out is
    below the last place of the first one left out."""
    orders = 10
    error = abs(_coefficient(power, orders + 1)) * (power - 1)
    return max(9, math.ceil(float(error * 10**17) ** (1 / (2 * orders + 2)))), orders


def _cotangent_derivative(n: int, c: sp.Expr) -> sp.Expr:
    """The derivative number n of the cotangent as a polynomial in the cotangent, by Horner's rule
    in its square: all coefficients have one sign, so that nothing cancels."""
    symbol = sp.Dummy()
    polynomial = sp.Poly(symbol, symbol)
    for _ in range(n):
        polynomial = -polynomial.diff(symbol) * sp.Poly(1 + symbol**2, symbol)
    coefficients = polynomial.all_coeffs()[::2]  # of one parity
    total: sp.Expr = sp.Integer(0)
    for coefficient in coefficients:
        total = total * c**2 + coefficient
    return total if polynomial.degree() % 2 == 0 else total * c
