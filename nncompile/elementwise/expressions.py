"""The grammar of bodies: opaque heads over sympy's sums, products and integer powers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar

import sympy as sp

from nncompile.ir.types import DType

Derivative = Callable[..., Any]


@dataclass(frozen=True)
class Meaning:
    """What is known about a head.

    name: as printed. arity: number of arguments. derivatives: the derivative by each argument as a
    function of (result, *arguments), None where that is zero; no derivatives at all where the head
    is locally constant. call: the primitive call that it comes down to, or expansion: other heads
    that it stands for. result: its dtype where that is not the common one of the arguments.
    conditions: how many leading arguments are bools. symmetric: whether arguments may change
    places. fold: its value for arguments where it is exact, or None.
    """

    name: str
    arity: int
    derivatives: tuple[Derivative | None, ...] = ()
    call: str | None = None
    expansion: Callable[..., Any] | None = None
    result: DType | None = None
    conditions: int = 0
    symmetric: bool = False
    fold: Callable[..., Any] | None = None


class Head(sp.Expr):
    """A function that sympy does not look into: no assumptions, no evaluation but exact folds."""

    meaning: ClassVar[Meaning]
    is_real = True

    def __new__(cls, *args: Any) -> Any:
        meaning = cls.meaning
        operands = tuple(sp.Integer(a) if isinstance(a, int) else a for a in args)
        if len(operands) != meaning.arity:
            raise TypeError(f"{meaning.name} has {meaning.arity} arguments, got {len(operands)}")
        if meaning.symmetric:
            operands = tuple(sorted(operands, key=_order))
        if meaning.fold is not None:
            folded = meaning.fold(*operands)
            if folded is not None:
                return sp.Integer(folded) if isinstance(folded, int) else folded
        return sp.Expr.__new__(cls, *operands)

    def _sympystr(self, printer: Any) -> str:
        return f"{self.meaning.name}({', '.join(map(printer.doprint, self.args))})"


@lru_cache(maxsize=65536)
def _order(x: sp.Expr) -> Any:
    return sp.default_sort_key(x)


@lru_cache(maxsize=65536)
def digest(body: sp.Expr) -> bytes:
    """The same for equal bodies in every process."""
    state = hashlib.blake2b(type(body).__name__.encode(), digest_size=16)
    if not body.args:
        state.update(str(body).encode())
    parts = [digest(x) for x in body.args]
    for part in sorted(parts) if body.is_Add or body.is_Mul else parts:
        state.update(part)
    return state.digest()


_NONE: frozenset[sp.Symbol] = frozenset()


@lru_cache(maxsize=65536)
def symbols_of(body: sp.Expr) -> frozenset[sp.Symbol]:
    """The symbols of a body, each part of it visited once."""
    if body.is_Symbol:
        return frozenset((body,))
    return _NONE.union(*map(symbols_of, body.args))


@cache
def placeholder(i: int) -> sp.Symbol:
    """The symbol of argument number `i` of a body."""
    return sp.Symbol(f"x{i}", real=True)


@lru_cache(maxsize=4096)
def _rational(text: str) -> sp.Rational:
    return sp.Rational(text)


class Infinity(Head):
    """+inf as a literal; −inf is −1 times it."""

    meaning = Meaning("inf", 0)


class NotANumber(Head):
    """NaN as a literal."""

    meaning = Meaning("nan", 0)


def number(x: float) -> sp.Expr:
    """A Python number as a literal: the exact rational of its decimal text.

    >>> number(0.1), number(3)
    (1/10, 3)
    """
    if isinstance(x, int):
        return sp.Integer(int(x))
    if math.isnan(x):
        return NotANumber()
    if math.isinf(x):
        return Infinity() if x > 0 else -Infinity()
    return _rational(repr(float(x)))


def constant(body: sp.Expr) -> float | sp.Rational | None:
    """The number that a literal stands for; None for anything else."""
    if body.is_Rational:
        return body
    if isinstance(body, NotANumber):
        return math.nan
    sign, rest = body.as_coeff_Mul() if body.is_Mul else (1, body)
    return math.inf * int(sign) if isinstance(rest, Infinity) else None
