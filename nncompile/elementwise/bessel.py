"""Modified Bessel functions of the first kind, of any integer order."""

from __future__ import annotations

import math
from typing import Any

import sympy as sp

from nncompile.elementwise.expressions import Infinity

_TWO_PI = sp.Rational("6.28318530717958647692528676655900577")
_LAST_PLACE = 1e-17
_OVERFLOW = sp.Integer(2000)  # eˣ/xⁿ is beyond all numbers, of orders that anybody asks for


def over_power(n: int, x: sp.Expr, heads: Any, scaled: bool) -> sp.Expr:
    """Iₙ(x)/xⁿ of float64, times e^−|x| where `scaled`, as an expression.

    The power series (Abramowitz & Stegun, 9.6.10), all terms of which are positive, and beyond a
    bound the asymptotic series (9.7.1).
    """
    size = heads.absolute(x)
    bound, orders = _bound(n)
    square = x**2 / 4
    near: sp.Expr = sp.Integer(0)
    for k in reversed(range(_length(n, bound))):
        near = near * square + sp.Rational(1, 2**n * math.factorial(k) * math.factorial(n + k))
    far: sp.Expr = sp.Integer(0)
    for k in reversed(range(orders)):
        far = far / size + _coefficient(n, k)
    far = far / (heads.sqrt(_TWO_PI * size) * size**n)
    is_near = heads.less(size, bound)
    if scaled:
        return heads.where(is_near, near * heads.exp(-size), far)
    half = heads.exp(size / 2)  # its square may overflow where the result does not
    far = half * heads.where(is_near, 0, half * far)
    return heads.where(is_near, near, heads.where(heads.less(_OVERFLOW, size), Infinity(), far))


def _coefficient(n: int, k: int) -> sp.Rational:
    """(−1)ᵏ·(4n² − 1)(4n² − 9)…(4n² − (2k − 1)²)/(k!·8ᵏ)."""
    factors = (4 * n**2 - (2 * j - 1) ** 2 for j in range(1, k + 1))
    return sp.Rational((-1) ** k * math.prod(factors), math.factorial(k) * 8**k)


def _bound(n: int) -> tuple[int, int]:
    """From where on the asymptotic series is right to the last place, and its terms there."""
    bound = 30
    while True:
        for k in range(n, 2 * bound + n):
            if abs(float(_coefficient(n, k))) < _LAST_PLACE * bound**k:
                return bound, k
        bound += 10


def _length(n: int, bound: int) -> int:
    """The number of terms of the power series that are not below the last place at the bound."""
    square, term, total, k = bound**2 / 4, 1.0, 0.0, 0
    while term > _LAST_PLACE * total:
        total += term
        k += 1
        term *= square / (k * (n + k))
    return k
