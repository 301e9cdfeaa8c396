"""Derivatives of bodies, any order: of each head from its row, never by sympy's own rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import sympy as sp

from nncompile.elementwise.expressions import Head
from nncompile.elementwise.sympy_functions import (
    TARGETS,
    cast,
    cosh,
    exp,
    expm1,
    floor_divide,
    log,
    log1p,
    mod,
    power,
    sinh,
    tan,
    where,
)

_ZERO = sp.Integer(0)
_ONE = sp.Integer(1)


def differentiate(body: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """The derivative of a body by one of its symbols.

    Written in terms of forward values where that is possible (σ' = σ − σ²), with locally constant
    heads (floor, sign, comparisons, stop_gradient) of derivative 0. Time is linear in the number of
    distinct parts.
    """
    known: dict[sp.Expr, sp.Expr] = {symbol: _ONE}

    def derivative(x: sp.Expr) -> sp.Expr:
        if x not in known:
            known[x] = compute(x)
        return known[x]

    def compute(x: sp.Expr) -> sp.Expr:
        if not x.args:
            return _ZERO
        if x.is_Add:
            return sp.Add(*map(derivative, x.args))
        if x.is_Mul:
            return sp.Add(*(product(x, i) for i in range(len(x.args))))
        if x.is_Pow:
            return times(derivative(x.base), x.exp * x.base ** (x.exp - 1))
        return _of_head(x, derivative)

    def product(x: sp.Expr, i: int) -> sp.Expr:
        inner = derivative(x.args[i])
        return times(inner, sp.Mul(*x.args[:i], *x.args[i + 1 :])) if inner != 0 else _ZERO

    return derivative(body)


def _of_head(x: Head, derivative: Callable[[sp.Expr], sp.Expr]) -> sp.Expr:
    """The derivative of one head, where `derivative` gives those of its arguments."""
    if isinstance(x, where):
        condition, a, b = x.args
        return where(condition, derivative(a), derivative(b))
    if type(x) in TARGETS:
        dtype = TARGETS[type(x)]
        inner = derivative(x.args[0]) if dtype.is_float else _ZERO
        return inner if inner.is_Rational else cast(inner, dtype)
    terms = []
    for argument, by_argument in zip(x.args, x.meaning.derivatives, strict=False):
        if by_argument and (inner := derivative(argument)) != 0:
            terms.append(times(inner, by_argument(x, *x.args)))
    return sp.Add(*terms)


# What is infinite at some numbers, or overflows at moderate ones.
_INFINITE = (exp, expm1, sinh, cosh, tan, log, log1p, power, mod, floor_divide)


@lru_cache(maxsize=4096)
def may_be_infinite(derivative: sp.Expr) -> bool:
    """Whether a derivative may be infinite or NaN at numbers that are not: it divides, or has an
    exponential or a logarithm."""
    if derivative.is_Pow and not (derivative.exp.is_Integer and derivative.exp > 0):
        if not derivative.base.is_positive:
            return True
    elif isinstance(derivative, exp):
        return not derivative.args[0].is_nonpositive
    elif isinstance(derivative, _INFINITE):
        return True
    return any(map(may_be_infinite, derivative.args))


def times(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    """The product. A factor that chooses between something and 0 takes the others inside, so that
    they are not multiplied where it is 0: 0·inf would be NaN."""
    factors = [*sp.Mul.make_args(a), *sp.Mul.make_args(b)]
    for i, factor in enumerate(factors):
        if isinstance(factor, where) and 0 in factor.args[1:]:
            condition, branch, other = factor.args
            rest = sp.Mul(*factors[:i], *factors[i + 1 :])
            if branch == 0:
                return where(condition, _ZERO, times(other, rest))
            return where(condition, times(branch, rest), _ZERO)
    return sp.Mul(*factors)
