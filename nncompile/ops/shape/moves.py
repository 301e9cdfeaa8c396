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
        chosen = body_of(value).args[1:]
        if all(x.is_Symbol for x in chosen):
            found = tuple(_argument(value, x) for x in chosen)
            return found if all(x.dtype is value.dtype for x in found) else ()
    return ()


def _argument(value: Value, symbol: object) -> Value:
    return next(a for i, a in enumerate(value.args) if placeholder(i) == symbol)


def alike(value: Value, others: Sequence[Value]) -> Value:
    """`others`, of the shapes of what `value` moves, moved in its way."""
    if isinstance(value.op, Item):
        return apply(value.op, alike(value.args[0], others))
    if value.op.copies != 0:
        return apply(value.op, *others, *value.args[len(others) :])
    count = len(value.args)
    chosen = (placeholder(count + i) for i in range(len(others)))
    return mapped(h.where(body_of(value).args[0], *chosen), (*value.args, *others))


def through_moves(value: Value, change: Callable[[Value], Value | None]) -> Value | None:
    """What `change` makes of the values that all elements of `value` come from, moved as they are
    moved; None where it makes nothing of one of them. It keeps shapes."""
    made: dict[Value, Value] = {}
    waiting = [value]
    while waiting:
        v = waiting[-1]
        parts = moved(v)
        missing = [a for a in parts if a not in made]
        if missing and v not in made:
            waiting += missing
            continue
        waiting.pop()
        if v not in made:
            found = alike(v, [made[a] for a in parts]) if parts else change(v)
            if found is None:
                return None
            made[v] = found
    return made[value]
