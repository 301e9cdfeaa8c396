"""Elementwise ops that are read as one formula, in which a naive spelling may be seen."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

import sympy as sp

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.map import body_of, is_plain
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.elementwise.trace_formula import LIMIT
from nncompile.ir.op import Value

DEEPEST = 5  # elementwise ops that are read as one formula: tanh is written in five steps


def joined_with(value: Value) -> set[Value] | None:
    """The elementwise ops around a value that a naive spelling may be made of: as many steps of
    them as are short enough together. None where the value itself is too long."""
    length = _operations(body_of(value))[0]
    if length > LIMIT:
        return None
    levels = [Counter([value])]  # how often each is written out there
    for _ in range(DEEPEST):
        level: Counter[Value] = Counter()
        for v, times in levels[-1].items():
            visible = _features(body_of(v))[1]
            for i, count in _operations(body_of(v))[1]:
                a = v.args[i]
                if i in visible and is_plain(a) and a.dtype is value.dtype:
                    level[a] += times * count
        length += sum(times * _operations(body_of(a))[0] for a, times in level.items())
        if not level or length > LIMIT:
            break
        levels.append(level)
    inner = set().union(*levels[1:])
    # What is met on a short way and on a long one is written out on both.
    while _length(value, inner) > LIMIT:
        levels.pop()
        inner = set().union(*levels[1:])
    return inner


def _length(value: Value, inner: set[Value]) -> int:
    """The number of operations of a value with the formulas of the inner ones written out."""
    return _length_of(value, inner, {})


def _length_of(v: Value, inner: set[Value], known: dict[Value, int]) -> int:
    if v not in known:
        known[v], uses = _operations(body_of(v))
        for i, count in uses:
            if v.args[i] in inner:
                known[v] += count * _length_of(v.args[i], inner, known)
    return known[v]


@functools.lru_cache(maxsize=16384)
def _operations(body: sp.Expr) -> tuple[int, tuple[tuple[int, int], ...]]:
    """How many operations a body takes, and how often it has which argument."""
    uses: Counter[sp.Symbol] = Counter()
    pending = [body]
    while pending:
        x = pending.pop()
        if x.is_Symbol:
            uses[x] += 1
        pending.extend(x.args)
    counts = sorted((place_of(x), count) for x, count in uses.items())
    return operation_count(body), tuple(counts)


def place_of(x: sp.Symbol) -> int:
    """The number of the argument that a placeholder stands for."""
    return int(x.name.removeprefix("x"))


def written_out(
    value: Value, inner: set[Value]
) -> tuple[sp.Expr, list[Value], dict[Value, sp.Expr]]:
    """The formula of a value with those of the `inner` ones in it, its arguments, and the part
    that each inner one has become, arguments first."""
    bodies: dict[Value, sp.Expr] = {}
    leaves: dict[Value, sp.Symbol] = {}

    def part(v: Value) -> sp.Expr:
        if v not in inner:
            return leaves.setdefault(v, placeholder(len(leaves)))
        if v not in bodies:
            bodies[v] = whole(v)
        return bodies[v]

    def whole(v: Value) -> sp.Expr:
        return _filled(body_of(v), tuple(map(part, v.args)))

    body = whole(value)
    return body, list(leaves), bodies


@functools.lru_cache(maxsize=16384)
def _filled(body: sp.Expr, parts: tuple[sp.Expr, ...]) -> sp.Expr:
    return body.xreplace({placeholder(i): part for i, part in enumerate(parts)})


# What naive spellings are written with, and what makes them stable.
_GROWING = (h.exp, h.expm1, h.sinh, h.cosh, h.power)
_BOUNDED = (h.sigmoid, h.tanh, h.sech, h.softplus)
_INVERSE = (h.log, h.log1p, h.sqrt)
_SEEN_THROUGH = (*_GROWING, *_BOUNDED, *_INVERSE, h.absolute, h.relu, h.maximum, h.where)


@functools.lru_cache(maxsize=16384)
def _features(body: sp.Expr) -> tuple[frozenset[str], frozenset[int]]:
    """Which of these a body has, and the arguments that are seen through them."""
    features: set[str] = set()
    visible: set[int] = set()
    pending = [body]
    while pending:
        x = pending.pop()
        if x.is_Symbol:
            visible.add(place_of(x))
        elif isinstance(x, _SEEN_THROUGH) or x.is_Add or x.is_Mul or x.is_Pow:
            pending.extend(x.args)
            for name, heads in (
                ("growing", _GROWING),
                ("bounded", _BOUNDED),
                ("inverse", _INVERSE),
            ):
                if isinstance(x, heads):
                    features.add(name)
            if x.is_Add and _is_complement(x):
                features.add("complement")
    return frozenset(features), frozenset(visible)


def _is_complement(x: sp.Expr) -> bool:
    """Whether a sum is like 1 − σ, 1 + tanh or 2σ − 1, or may be once its argument is written
    out."""
    number, rest = x.as_coeff_Add()
    coefficient, term = rest.as_coeff_Mul()
    is_one = term.is_Symbol or isinstance(term, _BOUNDED)
    return is_one and abs(coefficient) in (abs(number), 2 * abs(number))


_GROWS, _IS_BOUNDED, _INVERTS, _COMPLEMENTS = 1, 2, 4, 8
_BITS = {"growing": _GROWS, "bounded": _IS_BOUNDED, "inverse": _INVERTS, "complement": _COMPLEMENTS}


@functools.lru_cache(maxsize=16384)
def _bits(body: sp.Expr) -> int:
    return sum(_BITS[name] for name in _features(body)[0])


def is_harmless(value: Value) -> bool:
    """Whether `may_be_naive` is False whatever is joined with the value: a quick look at all that
    may be."""
    top = _bits(body_of(value))
    found, level = top, {value}
    for _ in range(DEEPEST + 1):
        if found & _GROWS or top & _INVERTS or (found & _IS_BOUNDED and found & _COMPLEMENTS):
            return False
        level = {a for v in level for a in v.args if is_plain(a) and a.dtype is value.dtype}
        if not level:
            break
        for v in level:
            found |= _bits(body_of(v))
    return True


def may_be_naive(body: sp.Expr, inner: Iterable[Value]) -> bool:
    """Whether it is worth a look: exponentials, or bounded functions under a logarithm or beside
    a number (1 − σ)."""
    top = _features(body)[0]
    union = top.union(*(_features(body_of(v))[0] for v in inner))
    return "growing" in union or "inverse" in top or ("bounded" in union and "complement" in top)
