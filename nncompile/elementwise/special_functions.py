"""Special functions: their heads, and the functions of formulas under the names of torch and scipy.

Sources of the derivatives: Abramowitz & Stegun, Handbook of Mathematical Functions, ch. 6, 7, 9.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import FormulaError
from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.bessel import over_power
from nncompile.elementwise.gamma import polygamma as polygamma_series
from nncompile.elementwise.library import FUNCTIONS
from nncompile.elementwise.tracer import Scalar, enter, function, lift, scalar_of, unified
from nncompile.ir.types import f64

__all__ = ["FUNCTIONS"]

_define = partial(h.define, __name__)
_HALF_SQRT_PI = sp.Rational("0.886226925452758013649083741670572591")


def _at(point: int, value: int) -> Any:
    return lambda x: sp.Integer(value) if x == point else None


# Γ and its derivatives.
lgamma = _define("lgamma", 1, lambda y, x: digamma(x), fold=lambda x: 0 if x in (1, 2) else None)
digamma: Any = _define("digamma", 1, lambda y, x: polygamma(1, x))
polygamma: Any = _define(
    "polygamma",
    2,
    None,
    lambda y, n, x: polygamma(n + 1, x),
    expansion=lambda n, x: polygamma_series(int(n), h.cast(x, f64), h),
)

# Of the error function.
erfc = _define("erfc", 1, lambda y, x: -h.TWO_OVER_SQRT_PI * h.exp(-(x**2)), fold=_at(0, 1))
erfinv = _define("erfinv", 1, lambda y, x: _HALF_SQRT_PI * h.exp(y**2), fold=_at(0, 0))


# Iₙ(x)/xⁿ, an even function without a quotient at 0: its derivative is x times the next one.
bessel: Any = _define(
    "bessel",
    2,
    None,
    lambda y, n, x: x * bessel(n + 1, x),
    expansion=lambda n, x: over_power(int(n), h.cast(x, f64), h, scaled=False),
)
i0 = _define("i0", 1, lambda y, x: x * bessel(1, x), expansion=lambda x: bessel(0, x))
# The same times e^−|x|.
scaled_bessel: Any = _define(
    "scaled_bessel",
    2,
    None,
    lambda y, n, x: _times(x, scaled_bessel(n + 1, x)) - h.sign(x) * y,
    expansion=lambda n, x: over_power(int(n), h.cast(x, f64), h, scaled=True),
)
i0e = _define(
    "i0e",
    1,
    lambda y, x: _times(x, scaled_bessel(1, x)) - h.sign(x) * y,
    expansion=lambda x: scaled_bessel(0, x),
)


def _times(x: sp.Expr, scaled: sp.Expr) -> sp.Expr:
    return h.where(h.isinf(x), 0, x * scaled)


# Products that are 0 where their first factor is, whatever the logarithm; no derivative there where
# the logarithm has none (torch's has NaN by y).
def _product(x: sp.Expr, y: sp.Expr, log: sp.Expr) -> sp.Expr:
    is_zero = h.logical_and(h.equal(x, 0), h.logical_not(h.isnan(y)))
    return h.where(is_zero, 0, x * log)


def _of_product(log_of: Any, argument_of: Any) -> tuple[Any, Any]:
    def is_none(x: sp.Expr, y: sp.Expr) -> sp.Expr:
        return h.logical_and(h.equal(x, 0), h.less_equal(argument_of(y), 0))

    def by_factor(_: sp.Expr, x: sp.Expr, y: sp.Expr) -> sp.Expr:
        return h.where(is_none(x, y), 0, log_of(y))

    def by_argument(_: sp.Expr, x: sp.Expr, y: sp.Expr) -> sp.Expr:
        return h.where(is_none(x, y), 0, x / argument_of(y))

    return by_factor, by_argument


xlogy = _define(
    "xlogy",
    2,
    *_of_product(h.log, lambda y: y),
    expansion=lambda x, y: _product(x, y, h.log(y)),
)
xlog1py = _define(
    "xlog1py",
    2,
    *_of_product(h.log1p, lambda y: 1 + y),
    expansion=lambda x, y: _product(x, y, h.log1p(y)),
)


def _logit(x: sp.Expr) -> sp.Expr:
    """log(x/(1 − x)), near ½ by what the quotient has above 1."""
    near = h.log1p((2 * x - 1) / (1 - x))
    is_near = h.logical_and(h.less(sp.Rational(1, 3), x), h.less(x, sp.Rational(2, 3)))
    return h.where(is_near, near, h.log(x) - h.log1p(-x))


log_odds = _define(
    "logit", 1, lambda y, x: 1 / (x * (1 - x)), variable="log_odds", expansion=_logit
)


# The functions of formulas.
def _of_reals(name: str, head: Any, doc: str) -> None:
    def one(x: Any) -> Scalar:
        (a,), dtype, weak = unified(lift(x), real=True)
        return scalar_of(head(a), dtype, weak, lift(x))

    def two(x: Any, y: Any) -> Scalar:
        x, y = lift(x), lift(y)
        (a, b), dtype, weak = unified(x, y, real=True)
        return scalar_of(head(a, b), dtype, weak, x, y)

    enter(two if getattr(head, "meaning", h.exp.meaning).arity == 2 else one, name, doc)


_of_reals("lgamma", lgamma, "log |Γ(x)|; ∞ at 0, −1, −2 …")
_of_reals("digamma", digamma, "The derivative of log Γ(x); ∓∞ at ±0, NaN at −1, −2 …")
_of_reals("erfc", erfc, "1 − erf(x), right also where erf(x) is nearly 1.")
_of_reals("erfinv", erfinv, "The inverse of erf; ±∞ at ±1, NaN beyond.")
_of_reals("i0", i0, "I₀(x), the modified Bessel function of the first kind.")
_of_reals("i1", lambda x: x * bessel(1, x), "I₁(x), the derivative of I₀.")
_of_reals("i0e", i0e, "e^−|x|·I₀(x), finite everywhere.")
_of_reals("i1e", lambda x: _times(x, scaled_bessel(1, x)), "e^−|x|·I₁(x), finite everywhere.")
_of_reals("xlogy", xlogy, "x·log(y), 0 where x is 0.")
_of_reals("xlog1py", xlog1py, "x·log(1 + y), 0 where x is 0.")


@function("polygamma")
def _polygamma(n: int, x: Any) -> Scalar:
    """The derivative number n of the digamma function; n is a Python number, 0 or more."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise FormulaError(
            f"polygamma: the order n must be an integer that is not negative, got {n!r}",
            hint="polygamma(1, x): the order comes first, and is a Python number",
        )
    x = lift(x)
    (a,), dtype, weak = unified(x, real=True)
    return scalar_of(polygamma(sp.Integer(n), a) if n else digamma(a), dtype, weak, x)


_polygamma.literals = 1  # type: ignore[attr-defined]  # see Formula


@function("logit")
def _logit_function(x: Any, eps: float | None = None) -> Scalar:
    """log(x/(1 − x)), the inverse of sigmoid; with `eps` of x limited to [eps, 1 − eps]."""
    x = lift(x)
    if eps is not None:
        x = FUNCTIONS["clip"](x, eps, 1 - eps)
    (a,), dtype, weak = unified(x, real=True)
    return scalar_of(log_odds(a), dtype, weak, x)


# scipy's other names.
for _name, _other in {"gammaln": "lgamma", "psi": "digamma"}.items():
    FUNCTIONS[_name] = FUNCTIONS[_other]
