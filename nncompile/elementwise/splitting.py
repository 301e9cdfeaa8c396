"""Long bodies cut into named pieces: the derivative of a piece is small, and the chain rule over
pieces is that of reverse mode, where the derivative of one long body grows with its square."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import reduce

import sympy as sp

from nncompile.elementwise.expressions import Head, digest
from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.sympy_functions import logical_and, logical_not, where

Name = Callable[[sp.Expr], sp.Symbol]
Bodies = dict[sp.Symbol, sp.Expr]
Conditions = frozenset[sp.Expr]


_REPEATED = 2  # operations of a part that has a name where a long body has it twice


def cut(body: sp.Expr, whole: int, piece: int, name: Name) -> sp.Expr:
    """A body of more than `whole` operations with pieces of it under names, so that none has more
    than `piece`; `name` gives one to each piece, and to each part that occurs several times."""
    if operation_count(body) <= whole:
        return body
    return _cut(_repeated_named(body, name), piece, name)


def _repeated_named(body: sp.Expr, name: Name) -> sp.Expr:
    uses: Counter[sp.Expr] = Counter([body])
    pending = [body]
    while pending:
        for x in pending.pop().args:
            uses[x] += 1
            if uses[x] == 1:
                pending.append(x)
    named: dict[sp.Expr, sp.Expr] = {}

    def visit(x: sp.Expr) -> sp.Expr:
        if not x.args:
            return x
        if x not in named:
            parts = [visit(a) for a in x.args]
            same = all(a is b for a, b in zip(parts, x.args, strict=True))
            new = x if same else x.func(*parts)
            named[x] = name(new) if uses[x] > 1 and operation_count(new) >= _REPEATED else new
        return named[x]

    return visit(body)


def _cut(body: sp.Expr, limit: int, name: Name) -> sp.Expr:
    if not body.args or operation_count(body) <= limit:
        return body
    parts = [_cut(x, limit, name) for x in body.args]
    if body.is_Add or body.is_Mul:
        return _grouped(body, parts, limit, name)
    share = max(1, (limit - 1) // len(parts)) if isinstance(body, Head) else limit - 1
    return body.func(*(name(x) if operation_count(x) > share else x for x in parts))


def _grouped(body: sp.Expr, parts: list[sp.Expr], limit: int, name: Name) -> sp.Expr:
    """A sum or product of parts: long ones have names where it is too long, and so have groups of
    short ones where that is not enough."""
    parts.sort(key=operation_count)
    total = sum(operation_count(part) + 1 for part in parts) - 1
    while total > limit and operation_count(parts[-1]) > limit // 2:
        total -= operation_count(parts[-1])
        parts.insert(0, name(parts.pop()))
    group: list[sp.Expr] = []
    count = 0
    for part in parts:
        length = operation_count(part) + 1
        if count + length > limit + 1:
            group, count = [name(body.func(*group))], 1
        group.append(part)
        count += length
    return body.func(*group)


def guarded(bodies: Mapping[sp.Symbol, sp.Expr], result: sp.Expr) -> Bodies:
    """The bodies that the result needs, each after those that it needs itself.

    A name whose every use is chosen by some conditions is computed under these conditions, and is
    0 elsewhere: there its own derivative may be infinite, and 0 times that would be NaN. `bodies`
    are in an order in which each needs earlier ones only.
    """
    guards: dict[sp.Symbol, Conditions] = {}

    def use(body: sp.Expr, conditions: Conditions) -> None:
        if body.is_Symbol:
            if body in bodies:
                guards[body] = guards.get(body, conditions) & conditions
        elif isinstance(body, where):
            test, a, b = body.args
            use(test, conditions)
            use(a, conditions | {test})
            use(b, conditions | {logical_not(test)})
        else:
            for x in body.args:
                use(x, conditions)

    final: Bodies = {}
    use(result, frozenset())
    for name in reversed(bodies):
        if name not in guards:
            continue
        tests = [test for test in guards[name] if not _needs(test, name, bodies)]
        body = bodies[name]
        if tests:
            body = where(reduce(logical_and, sorted(tests, key=digest)), body, 0)
        use(body, frozenset())
        final[name] = body
    return _ordered(final, result)


def _needs(body: sp.Expr, name: sp.Symbol, bodies: Mapping[sp.Symbol, sp.Expr]) -> bool:
    """Whether a body needs that name, itself or by others."""
    pending = [body]
    visited: set[sp.Symbol] = set()
    while pending:
        for symbol in pending.pop().free_symbols - visited:
            if symbol is name:
                return True
            visited.add(symbol)
            if symbol in bodies:
                pending.append(bodies[symbol])
    return False


def _ordered(bodies: Bodies, result: sp.Expr) -> Bodies:
    """The bodies, each after those that it needs."""
    ordered: Bodies = {}
    stack = [(s, False) for s in _names(result, bodies)]
    while stack:
        symbol, ready = stack.pop()
        if ready:
            ordered.setdefault(symbol, bodies[symbol])
        elif symbol not in ordered:
            stack.append((symbol, True))
            stack += [(s, False) for s in _names(bodies[symbol], bodies)]
    return ordered


def _names(body: sp.Expr, bodies: Bodies) -> list[sp.Symbol]:
    return sorted((s for s in body.free_symbols if s in bodies), key=str, reverse=True)
