"""Naive spellings made stable: finite wherever the mathematics is, derivatives too.

Sums of two exponentials are what overflows: with D = c·eᵛ + d·eʷ of one sign,
eᵛ/D = σ(v − w + log(c/d))/c and log D = v + log c + softplus(w − v + log(d/c)); every spelling of
the logistic function, tanh, softplus and logaddexp is a case of that. The rest are rows for
differences that cancel (eᵘ − 1, log(1 + u), 1 − σ(u)) and for inverses (log eᵘ, √u²).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import sympy as sp

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.expressions import number
from nncompile.elementwise.sympy_functions import exp, expm1, sech, sigmoid, softplus, tanh

_ZERO = sp.Integer(0)
_ONE = sp.Integer(1)
_HALF = sp.Rational(1, 2)

# A sum of exponentials: exponent → coefficient.
_Exponentials = dict[sp.Expr, sp.Rational]


def stabilise(body: sp.Expr) -> sp.Expr:
    """The body with naive spellings replaced by stable ones of the same real function.

    >>> x = sp.Symbol("x")
    >>> stabilise(h.log(1 + exp(x))), stabilise(1 / (1 + exp(-x)))
    (softplus(x), sigmoid(x))
    """
    known: dict[sp.Expr, sp.Expr] = {}

    def visit(x: sp.Expr) -> sp.Expr:
        if not x.args:
            return x
        if x not in known:
            # A quotient is looked at whole: its denominator alone has another stable form.
            parts = tuple(map(visit_factor if x.is_Mul else visit, x.args))
            same = all(a is b for a, b in zip(parts, x.args, strict=True))
            known[x] = _rewritten(x if same else x.func(*parts))
        return known[x]

    def visit_factor(x: sp.Expr) -> sp.Expr:
        return visit(x.base) ** x.exp if x.is_Pow else visit(x)

    return visit(body)


def _rewritten(x: sp.Expr) -> sp.Expr:
    """One node whose arguments are stable."""
    if x.is_Add:
        return _sum(x)
    if x.is_Mul or x.is_Pow:
        return _product(x)
    rule = _BY_HEAD.get(type(x))
    return rule(x) if rule else x


# Sums.


def _sum(x: sp.Expr) -> sp.Expr:
    coefficient, rest = x.as_coeff_Add()
    if coefficient != 0:
        terms = sp.Add.make_args(rest)
        for i, term in enumerate(terms):
            # c·eᵘ − c; powers of numbers (1 − βᵗ) are seldom near one, and are dearer so.
            match = _exponential(term) if term.has(exp) else None
            if match and match[1] == -coefficient:
                rest_terms = terms[:i] + terms[i + 1 :]
                return sp.Add(match[1] * expm1(match[0]), *rest_terms)
        scale, inner = rest.as_coeff_Mul()
        if isinstance(inner, sigmoid):
            u = inner.args[0]
            if scale == -coefficient:  # 1 − σ(u)
                return coefficient * sigmoid(-u)
            if scale == -2 * coefficient:  # 2σ(u) − 1
                return -coefficient * tanh(u / 2)
        if isinstance(inner, tanh) and abs(scale) == abs(coefficient):  # 1 ± tanh(u)
            return 2 * coefficient * sigmoid(2 * inner.args[0] * scale / coefficient)
    return _softplus_of_parts(x)


def _softplus_of_parts(x: sp.Expr) -> sp.Expr:
    """softplus(−|u|) + max(u, 0) is softplus(u)."""
    for term in x.args:
        scale, inner = term.as_coeff_Mul()
        if isinstance(inner, softplus) and isinstance(-inner.args[0], h.absolute):
            u = (-inner.args[0]).args[0]
            for candidate in (u, -u):
                for part in (scale * h.relu(candidate), scale * h.maximum(candidate, 0)):
                    if part in x.args:
                        rest_terms = (t for t in x.args if t not in (term, part))
                        return sp.Add(scale * softplus(candidate), *rest_terms)
    return x


# Products and quotients.


def _exponent(x: sp.Expr) -> sp.Expr | None:
    """v where x is eᵛ, or a positive number to a power."""
    if isinstance(x, exp):
        return x.args[0]
    if isinstance(x, h.power) and x.args[0].is_Rational and x.args[0] > 0:
        return x.args[1] * _logarithm(x.args[0])
    return None


def _exponential(x: sp.Expr) -> tuple[sp.Expr, sp.Rational] | None:
    """(v, c) where x is c·eᵛ."""
    coefficient, rest = x.as_coeff_Mul()
    exponent = _ZERO
    for factor in sp.Mul.make_args(rest):
        base, power = factor.as_base_exp() if factor.is_Pow else (factor, _ONE)
        if base == 1:
            continue
        part = _exponent(base)
        if part is None:
            return None
        exponent += power * part
    return exponent, coefficient


def _exponentials(x: sp.Expr) -> _Exponentials | None:
    """The exponents and coefficients of a sum of exponentials; None for other things."""
    coefficients: _Exponentials = {}

    def add(exponent: sp.Expr, coefficient: sp.Rational) -> None:
        coefficients[exponent] = coefficients.get(exponent, _ZERO) + coefficient

    for term in sp.Add.make_args(x):
        coefficient, rest = term.as_coeff_Mul()
        if isinstance(rest, expm1):
            add(rest.args[0], coefficient)
            add(_ZERO, -coefficient)
        elif isinstance(rest, h.cosh | h.sinh):
            u = rest.args[0]
            add(u, coefficient / 2)
            add(-u, coefficient / 2 if isinstance(rest, h.cosh) else -coefficient / 2)
        else:
            single = _exponential(term)
            if single is None:
                return None
            add(*single)
    return {v: c for v, c in coefficients.items() if c != 0}


@lru_cache(maxsize=1024)
def _logarithm(x: sp.Rational) -> sp.Expr:
    return number(math.log(x)) if x != 1 else _ZERO


class _Denominator:
    """D = c·eᵛ + d·eʷ with c and d of one sign."""

    def __init__(self, terms: _Exponentials) -> None:
        (self.v, self.c), (self.w, self.d) = terms.items()
        ratio = self.c / self.d
        self.difference = self.v - self.w + _logarithm(ratio)

    @classmethod
    def of(cls, x: sp.Expr) -> _Denominator | None:
        if not (x.is_Add or isinstance(x, h.cosh)):
            return None
        terms = _exponentials(x)
        if terms is None or len(terms) != 2:
            return None
        c, d = terms.values()
        return cls(terms) if c * d > 0 else None

    def under(self, terms: _Exponentials) -> sp.Expr | None:
        """The stable form of a sum of exponentials divided by D."""
        if not terms or not terms.keys() <= {self.v, self.w}:
            return None
        a = terms.get(self.v, _ZERO) / self.c
        b = terms.get(self.w, _ZERO) / self.d
        if a == -b:
            half = self.difference / 2
            return -a * tanh(-half) if half.could_extract_minus_sign() else a * tanh(half)
        if a == 0:
            return b * sigmoid(-self.difference)
        return (a - b) * sigmoid(self.difference) + b

    def inverse(self) -> sp.Expr | None:
        """The stable form of 1 / D."""
        if self.v == -self.w and self.c == self.d:
            return sech(self.v) / (2 * self.c)
        return self.under({_ZERO: _ONE})

    def logarithm(self) -> sp.Expr:
        """The stable form of log D, for positive c and d."""
        first, scale, difference = self.v, self.c, self.difference
        if self.w == 0:  # log(eᵛ + 1) is softplus(v)
            first, scale, difference = _ZERO, self.d, -difference
        return first + softplus(-difference) + _logarithm(scale)


def _inverted(x: sp.Expr) -> _Denominator | None:
    """D where x, a function of its own, is 1/D."""
    if isinstance(x, sigmoid):
        return _Denominator({_ZERO: _ONE, -x.args[0]: _ONE})
    if isinstance(x, sech) and x.args[0] != 0:
        return _Denominator({x.args[0]: _HALF, -x.args[0]: _HALF})
    return None


def _product(x: sp.Expr) -> sp.Expr:
    """Quotients by two exponentials, and roots and exponentials multiplied with themselves."""
    factors: list[sp.Expr] = []
    above: list[sp.Expr] = []  # sums of exponentials, which quotients may take
    below: list[tuple[sp.Expr, int, _Denominator]] = []  # 1/D, how often, D
    stable: list[tuple[sp.Expr, int, _Denominator]] = []  # the same, stable by itself
    single: list[sp.Expr] = []
    exponent = _ZERO  # of all single exponentials together
    for factor in sp.Mul.make_args(x):
        base, power = factor.as_base_exp() if factor.is_Pow else (factor, _ONE)
        base_exponent = _exponent(base)
        denominator = _denominator(base, power)
        if denominator and power < 0:
            below.append((1 / base, -int(power), denominator))
        elif denominator:
            stable.append((base, int(power), denominator))
        elif base_exponent is not None:
            exponent += power * base_exponent
            single.append(factor)
        elif isinstance(base, h.sqrt) and abs(power) > 1:
            factors.append(_power_of_root(base, power))
        elif power == 1 and not base.is_Rational and _exponentials(base):
            above.append(base)
        else:
            factors.append(factor)
    total = exponent
    if single or above:
        below += stable
    else:
        factors += [base**power for base, power, _ in stable]
    for inverse, denominator in [(x, d) for x, power, d in below for _ in range(power)]:
        part, exponent = _divided(denominator, above, exponent)
        factors.append(inverse if part is None else part)
    if exponent == total and len(single) == 1:
        return sp.Mul(*factors, *above, *single)  # a square is cheaper than another exponential
    return sp.Mul(*factors, *above, exp(exponent))


def _denominator(base: sp.Expr, power: sp.Expr) -> _Denominator | None:
    """What a power of `base` divides by."""
    return _Denominator.of(base) if power < 0 else _inverted(base)


def _power_of_root(root: sp.Expr, power: sp.Expr) -> sp.Expr:
    """√x as often as its square x is in the power, and what is left."""
    half = int(power / 2)
    return root.args[0] ** half * root ** (power - 2 * half)


_MULTIPLES = range(1, 9)


def _divided(
    denominator: _Denominator, above: list[sp.Expr], exponent: sp.Expr
) -> tuple[sp.Expr | None, sp.Expr]:
    """One division by D of what it goes into: one of `above`, which is taken away, or a part of
    e^exponent. The quotient (None where nothing is stable) and the exponent that is left."""
    for factor in above:
        quotient = denominator.under(_exponentials(factor) or {})
        if quotient is not None:
            above.remove(factor)
            return quotient, exponent
    ends = (denominator.v, denominator.w)
    for end in ends:
        if end != 0 and any(exponent == k * end for k in _MULTIPLES):
            return denominator.under({end: _ONE}), exponent - end
    if denominator.c > 0 and any(_grow_together(exponent, end) for end in ends):
        return _ONE, exponent - denominator.logarithm()
    return denominator.inverse(), exponent


def _grow_together(a: sp.Expr, b: sp.Expr) -> bool:
    """Whether two exponents have a term in common, so that eᵃ and eᵇ overflow together."""
    coefficients = dict(term.as_coeff_Mul()[::-1] for term in sp.Add.make_args(b))
    return any(
        term != 1 and coefficients.get(term, _ZERO) * coefficient > 0
        for coefficient, term in (x.as_coeff_Mul() for x in sp.Add.make_args(a))
    )


# Heads.


def _log(x: sp.Expr) -> sp.Expr:
    (u,) = x.args
    denominator = _Denominator.of(u)
    if denominator and denominator.c > 0:
        return denominator.logarithm()
    if isinstance(u, h.where):
        condition, *branches = u.args
        plain = [h.log(branch) for branch in branches]  # of 1 it is the number 0
        logs = [_log(log) if isinstance(log, h.log) else log for log in plain]
        changed = logs != plain
        return h.where(condition, *logs) if changed else x
    terms: list[sp.Expr] = []
    unstable: list[sp.Expr] = []
    for factor in sp.Mul.make_args(u):
        base, power = factor.as_base_exp() if factor.is_Pow else (factor, _ONE)
        logarithm = _log_of_positive(base)
        if logarithm is None:
            unstable.append(factor)
        else:
            terms.append(power * logarithm)
    if terms:  # what is left is positive where the whole is
        rest = sp.Mul(*unstable)
        return sp.Add(*terms, _logarithm(rest) if rest.is_Rational and rest > 0 else h.log(rest))
    constant, rest = u.as_coeff_Add()
    return h.log1p(rest) if constant == 1 and rest != 0 else x


def _log_of_positive(x: sp.Expr) -> sp.Expr | None:
    """The stable logarithm of what is positive everywhere and may overflow or vanish."""
    exponent = _exponent(x)
    if exponent is not None:
        return exponent
    if isinstance(x, sigmoid):
        return -softplus(-x.args[0])
    if isinstance(x, sech):  # log 2 + u − softplus(2u)
        return _logarithm(sp.Integer(2)) + x.args[0] - softplus(2 * x.args[0])
    denominator = _Denominator.of(x)
    return denominator.logarithm() if denominator and denominator.c > 0 else None


def _log1p(x: sp.Expr) -> sp.Expr:
    (u,) = x.args
    changed = _log(h.log(_rewritten(1 + u)))  # log1p(−σ) is the logarithm of another σ
    return x if isinstance(changed, h.log | h.log1p) else changed


def _exp(x: sp.Expr) -> sp.Expr:
    coefficient, u = x.args[0].as_coeff_Mul()
    if isinstance(u, h.log):
        return h.raised(u.args[0], coefficient)
    if isinstance(u, softplus) and coefficient == -1:
        return sigmoid(-u.args[0])
    return x


def _sqrt(x: sp.Expr) -> sp.Expr:
    base, power = x.args[0].as_base_exp() if x.args[0].is_Pow else (x.args[0], _ONE)
    if power % 2 == 0:
        root = base ** (power / 2)
        return root if (power / 2) % 2 == 0 else h.absolute(root)
    return x


_BY_HEAD: dict[Any, Any] = {
    h.log: _log,
    h.log1p: _log1p,
    exp: _exp,
    h.sqrt: _sqrt,
}
