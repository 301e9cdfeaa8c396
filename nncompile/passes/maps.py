"""What passes ask of elementwise ops: composition, linearity, literals."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import sympy as sp

from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.map import body_of, is_plain, over
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import Constant
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import product
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops.shape.reshape import Reshape


def literal(value: Value) -> sp.Expr | None:
    """The number of a scalar floating constant, exactly as its decimal text says; None for
    other values, and for infinities and NaN, which a formula cannot hold."""
    if not isinstance(value.op, Constant) or value.type.rank or not value.dtype.is_float:
        return None
    number = value.op.value[()]
    return sp.Rational(str(number)) if np.isfinite(number) else None


def number_of(x: sp.Expr) -> float | None:
    """A body that is a literal, as a Python number."""
    return float(x) if x.is_Rational else None


def uniform(value: Value) -> Value | None:
    """The scalar that all elements of `value` are; None where they may differ."""
    while isinstance(value.op, Expand) or (
        isinstance(value.op, Reshape) and product(value.shape) == 1
    ):
        value = value.args[0]
    return value if isinstance(value.type, Type) and value.rank == 0 else None


@functools.lru_cache(maxsize=16384)
def terms(body: sp.Expr, i: int) -> tuple[sp.Expr, sp.Expr] | None:
    """`(a, b)` with body = a·xᵢ + b, neither depending on xᵢ; None where it is not linear."""
    x = placeholder(i)
    a: list[sp.Expr] = []
    b: list[sp.Expr] = []
    pending = list(sp.Add.make_args(body))
    while pending:
        term = pending.pop()
        if not term.has(x):
            b.append(term)
            continue
        coefficient, rest = _factor(term, x)
        if coefficient is not None and rest == 1:
            a.append(coefficient)
        elif isinstance(rest, sp.Add) and coefficient is not None:
            pending += [coefficient * inner for inner in rest.args]
        else:
            return None
    return sp.Add(*a), sp.Add(*b)


def _factor(term: sp.Expr, x: sp.Symbol) -> tuple[sp.Expr | None, sp.Expr]:
    """A product as what does not depend on `x`, and what is left beside one `x` or as a sum."""
    coefficient, dependent = term.as_independent(x, as_Add=False)
    if dependent == x:
        return coefficient, sp.Integer(1)
    if isinstance(dependent, sp.Add):
        return coefficient, dependent
    return None, dependent


@functools.lru_cache(maxsize=16384)
def substituted(outer: sp.Expr, i: int, inner: sp.Expr, order: tuple[int, ...]) -> sp.Expr:
    """`outer` with `inner` as its argument `i`, whose argument `j` is number `order[j]` there."""
    renamed = {placeholder(j): placeholder(k) for j, k in enumerate(order)}
    return outer.xreplace({placeholder(i): inner.xreplace(renamed)})


def inlined(body: sp.Expr, args: Sequence[Value], i: int) -> tuple[sp.Expr, tuple[Value, ...]]:
    """The body with its argument `i`, a Map too, written out in it; and the arguments of both."""
    arguments, order = joined_arguments(args, i)
    return substituted(body, i, body_of(args[i]), order), arguments


def joined_arguments(args: Sequence[Value], i: int) -> tuple[tuple[Value, ...], tuple[int, ...]]:
    """The arguments and those of argument `i`, a Map too; and the places of the latter."""
    arguments, places = list(args), {a: j for j, a in enumerate(args)}
    for a in args[i].args:
        if a not in places:
            places[a] = len(arguments)
            arguments.append(a)
    return tuple(arguments), tuple([places[a] for a in args[i].args])


Kinds = tuple[int, ...]
"""Of each argument 0 where it has axes, 2 where it is a real number, 1 where another one."""


def kinds_of(args: Sequence[Value]) -> Kinds:
    """What `costs` asks of arguments."""
    return tuple([0 if a.rank else 2 if a.dtype.is_float else 1 for a in args])


@functools.lru_cache(maxsize=16384)
def costs(
    outer: sp.Expr, count: int, i: int, inner: sp.Expr, order: tuple[int, ...], kinds: Kinds
) -> tuple[int, int, int]:
    """What a body of `count` arguments costs, the one that is its argument `i`, and both as one;
    `kinds` are those of the arguments of both, see `joined_arguments`."""
    together = substituted(outer, i, inner, order)
    own = tuple(kinds[j] for j in order)
    parts = ((outer, kinds[:count]), (inner, own), (together, kinds))
    first, second, both = (
        operation_count(hoisted(body, _real_numbers(k), len(k))[0]) for body, k in parts
    )
    return first, second, both


def _real_numbers(kinds: Kinds) -> frozenset[sp.Symbol]:
    if all(kinds):
        return frozenset()
    return frozenset(placeholder(i) for i, kind in enumerate(kinds) if kind == 2)


def cost(body: sp.Expr, args: Sequence[Value]) -> int:
    """The number of operations on tensors; those on numbers alone cost next to nothing."""
    return operation_count(hoisted(body, numbers(body, args), len(args))[0])


def numbers(body: sp.Expr, args: Sequence[Value]) -> frozenset[sp.Symbol]:
    """The placeholders of real scalar arguments, where others have axes."""
    return _real_numbers(kinds_of(args))


def is_zero(value: Value) -> bool:
    """Whether the value is known to be zero everywhere."""
    number = uniform(value)
    return (isinstance(value.op, Constant) and not value.op.value.any()) or (
        number is not None and isinstance(number.op, Constant) and not number.op.value.any()
    )


@functools.lru_cache(maxsize=16384)
def hoisted(
    body: sp.Expr, numbers: frozenset[sp.Symbol], count: int
) -> tuple[sp.Expr, tuple[sp.Expr, ...]]:
    """The body with new placeholders, from `count` on, for the largest parts that depend on
    `numbers` alone and take operations; and these parts."""
    if not numbers:
        return body, ()
    parts: dict[sp.Expr, sp.Symbol] = {}

    def part(x: sp.Expr) -> sp.Expr:
        if x.is_Symbol or x.is_Rational:
            return x
        return parts.setdefault(x, placeholder(count + len(parts)))

    def visit(x: sp.Expr) -> sp.Expr:
        free = x.free_symbols
        if not free or x.is_Symbol:
            return x
        if free <= numbers:
            return part(x)
        if x.is_Add or x.is_Mul:
            scalars = [a for a in x.args if a.free_symbols <= numbers]
            tensors = [visit(a) for a in x.args if not a.free_symbols <= numbers]
            scalar = x.func(*scalars)
            if scalar.free_symbols:
                scalar = part(scalar)
            return x.func(*tensors, scalar)
        return x.func(*map(visit, x.args))

    return visit(body), tuple(parts)


__all__ = [
    "body_of",
    "cost",
    "hoisted",
    "inlined",
    "is_plain",
    "is_zero",
    "literal",
    "number_of",
    "numbers",
    "over",
    "terms",
    "uniform",
]
