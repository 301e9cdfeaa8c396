"""Ops that move elements and change none: what they give holds elements of their arguments.

A function of one number commutes with them: f(move(x)) is move(f(x)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.map import body_of, is_plain, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.graph import Item
from nncompile.ir.op import Value, apply


def moved(value: Value) -> tuple[Value, ...]:
    """The values whose elements, and no others, `value` holds; none where it is not a move."""
    source = value.args[0] if isinstance(value.op, Item) else value
    if source.op.copies != 0:
        return source.args[: source.op.copies]
    if is_plain(value) and isinstance(body_of(value), h.where):
        branches = body_of(value).args[1:]
        if all(x.is_Symbol for x in branches):
            operands = tuple(_argument(value, x) for x in branches)
            return operands if all(x.dtype is value.dtype for x in operands) else ()
    return ()


def _argument(value: Value, symbol: object) -> Value:
    return next(a for i, a in enumerate(value.args) if placeholder(i) == symbol)


def alike(value: Value, sources: Sequence[Value]) -> Value:
    """`sources`, of the shapes of what `value` moves, moved in its way."""
    if isinstance(value.op, Item):
        return apply(value.op, alike(value.args[0], sources))
    if value.op.copies != 0:
        return apply(value.op, *sources, *value.args[len(sources) :])
    count = len(value.args)
    branches = (placeholder(count + i) for i in range(len(sources)))
    return mapped(h.where(body_of(value).args[0], *branches), (*value.args, *sources))


def through_moves(value: Value, change: Callable[[Value], Value | None]) -> Value | None:
    """What `change` makes of the values that all elements of `value` come from, moved as they are
    moved; None where it makes nothing of one of them. It keeps shapes."""
    results: dict[Value, Value] = {}
    pending = [value]
    while pending:
        v = pending[-1]
        parts = moved(v)
        missing = [a for a in parts if a not in results]
        if missing and v not in results:
            pending += missing
            continue
        pending.pop()
        if v not in results:
            result = alike(v, [results[a] for a in parts]) if parts else change(v)
            if result is None:
                return None
            results[v] = result
    return results[value]
