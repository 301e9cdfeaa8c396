"""Where a gradient is zero because a `where` did not take what it is of.

The gradient that arrives at √x from `where(x > 0, sqrt(x), x)` is 0 where x ≤ 0, and what it is
multiplied with there is infinite or NaN: 0·∞. A factor that may be so is therefore multiplied only
where the gradient may not be zero: `where(x > 0, g / (2·√x), 0)`. What is known of a gradient is
read off the nodes that it is made of: choices between something and 0, their products and sums, and
what only moves elements. So it holds for chains of elementwise ops, and for those that move, repeat
or add up elements; other ops (products of matrices, running sums) mix elements, and nothing is
known behind them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import sympy as sp

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.map import Map, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.graph import Item, items
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type
from nncompile.ops.reduction.statistics import any as any_of
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.joining import Split

_MOST = 64  # nodes that are looked at for one gradient


@dataclass(frozen=True)
class Mask:
    """A gradient is 0 wherever `condition`, a formula of `args`, does not hold; elsewhere it is
    `inside`."""

    condition: sp.Expr
    args: tuple[Value, ...]
    inside: Value

    @property
    def value(self) -> Value:
        """The condition as truth values, of a shape that broadcasts to the gradient's."""
        return mapped(self.condition, self.args)


def mask_of(g: Value) -> Mask | None:
    """Where the gradient is known to be 0; None where nothing is known."""
    return _Search().mask(g)


class _Search:
    def __init__(self) -> None:
        self.left = _MOST

    def mask(self, g: Value) -> Mask | None:
        self.left -= 1
        if self.left < 0 or not isinstance(g.type, Type) or not g.dtype.is_float:
            return None
        if isinstance(g.op, Map):
            return self._of_map(g)
        if isinstance(g.op, Sum):
            found = self._moved(g.args[0])
            if found is None:
                return None
            return self._whole(g, any_of(found, g.op.axes, g.op.keepdims))
        if isinstance(g.op, Item):
            return self._part(g, g.args[0], g.op.index)
        if g.op.moves and g.args:
            found_args = [self._moved(a) for a in g.args]
            if all(a is not None for a in found_args):
                args = [a for a in found_args if a is not None]
                # A cast of a mask is that mask.
                return self._whole(g, args[0] if g.op.label == "cast" else apply(g.op, *args))
        return None

    def _part(self, g: Value, whole: Value, index: int) -> Mask | None:
        """That of one of the parts that a value is split into."""
        if not isinstance(whole.op, Split):
            return None
        found = self._moved(whole.args[0])
        return None if found is None else self._whole(g, items(whole.op(found))[index])

    def _whole(self, g: Value, condition: Value) -> Mask:
        return Mask(placeholder(0), (condition,), g)

    def _moved(self, a: Value) -> Value | None:
        """What stands for an argument of an op that moves elements: where it is not 0."""
        if not isinstance(a.type, Type):
            return None
        if not a.dtype.is_float:  # places; or truth values that are cast
            return a
        found = self.mask(a)
        return None if found is None else broadcast_to(found.value, a.shape)

    def _of_map(self, g: Value) -> Mask | None:
        assert isinstance(g.op, Map)
        body, args = g.op.body, list(g.args)
        condition = self._condition(body, args)
        if condition is None or condition.is_Rational:
            return None
        inside = g
        if isinstance(body, h.where) and body.args[2] == 0 and body.args[1].is_Symbol:
            chosen = next(v for i, v in enumerate(g.args) if placeholder(i) == body.args[1])
            inside = chosen if chosen.type == g.type else g
        return Mask(condition, tuple(args), inside)

    def _condition(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        """The condition under which a part of a body over `args`, which grow by what it comes to
        need, may not be 0; None where it always may."""
        if x == 0:
            return sp.Integer(0)
        if isinstance(x, h.where):
            return self._of_choice(x, args)
        if x.is_Mul:
            known = [c for factor in x.args if (c := self._condition(factor, args)) is not None]
            return functools.reduce(h.logical_and, known) if known else None
        if x.is_Add:
            return self._of_sum(x, args)
        return self._of_symbol(x, args) if x.is_Symbol else None

    def _of_choice(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        condition, a, b = x.args
        of_a, of_b = self._condition(a, args), self._condition(b, args)
        if of_a is None and of_b is None:
            return None
        chosen = condition if of_a is None else h.logical_and(condition, of_a)
        other = h.logical_not(condition)
        other = other if of_b is None else h.logical_and(other, of_b)
        return h.logical_or(chosen, other)

    def _of_sum(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        terms = []
        for term in x.args:
            terms.append(self._condition(term, args))
            if terms[-1] is None:
                return None
        return functools.reduce(h.logical_or, terms)

    def _of_symbol(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        a = next(v for i, v in enumerate(args) if placeholder(i) == x)
        mask = self.mask(a)
        if mask is None:
            return None
        places = {placeholder(i): placeholder(len(args) + i) for i in range(len(mask.args))}
        args.extend(mask.args)
        return mask.condition.xreplace(places)
