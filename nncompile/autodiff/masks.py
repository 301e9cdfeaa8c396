"""Where a gradient is zero because a `where` did not take what it is of.

The gradient that arrives at √x from `where(x > 0, sqrt(x), x)` is 0 where x ≤ 0, and what it is
multiplied with there is infinite or NaN: 0·∞. A factor that may be so is therefore multiplied only
where the gradient may not be zero: `where(x > 0, g / (2·√x), 0)`. That follows from
the nodes that compute the gradient: choices between something and 0, their products and sums, and
ops that only move elements. So it works for chains of elementwise ops, and for those that move,
repeat or add up elements; other ops (products of matrices, running sums) mix elements, and the
search ends at them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import sympy as sp

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.map import Map, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.broadcasting import Expand, broadcast_to
from nncompile.ir.dims import is_one
from nncompile.ir.graph import Item, items
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type
from nncompile.ops.reduction.statistics import any as any_of
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.joining import Split

_LIMIT = 64  # nodes searched for one gradient


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

    def same_along(self, axis: int) -> Value | None:
        """The same of size 1 along an axis, which is counted from the end; None where it may differ
        along it."""
        return _narrow(self.value, axis)


def _narrow(v: Value, axis: int) -> Value | None:
    if v.rank < -axis or is_one(v.shape[axis]):
        return v
    if isinstance(v.op, Expand):
        return _narrow(v.args[0], axis)
    if not isinstance(v.op, Map):
        return None
    args = [_narrow(a, axis) for a in v.args]
    narrow = [a for a in args if a is not None]
    return mapped(v.op.body, narrow) if len(narrow) == len(args) else None


def mask_of(g: Value) -> Mask | None:
    """Where the gradient is known to be 0; None where nothing is known."""
    return _Search().mask(g)


class _Search:
    def __init__(self) -> None:
        self._budget = _LIMIT

    def mask(self, g: Value) -> Mask | None:
        self._budget -= 1
        if self._budget < 0 or not isinstance(g.type, Type) or not g.dtype.is_float:
            return None
        if isinstance(g.op, Map):
            return self._map_mask(g)
        if isinstance(g.op, Sum):
            source = self._moved(g.args[0])
            if source is None:
                return None
            return self._value_mask(g, any_of(source, g.op.axes, g.op.keepdims))
        if isinstance(g.op, Item):
            return self._split_mask(g, g.args[0], g.op.index)
        if g.op.moves and g.args:
            arg_masks = [self._moved(a) for a in g.args]
            if all(a is not None for a in arg_masks):
                args = [a for a in arg_masks if a is not None]
                # A cast of a mask is that mask.
                return self._value_mask(g, args[0] if g.op.label == "cast" else apply(g.op, *args))
        return None

    def _split_mask(self, g: Value, parts: Value, index: int) -> Mask | None:
        """The mask of one of the parts that a value is split into."""
        if not isinstance(parts.op, Split):
            return None
        source = self._moved(parts.args[0])
        return None if source is None else self._value_mask(g, items(parts.op(source))[index])

    def _value_mask(self, g: Value, condition: Value) -> Mask:
        return Mask(placeholder(0), (condition,), g)

    def _moved(self, a: Value) -> Value | None:
        """Where an argument of an op that moves elements is not 0."""
        if not isinstance(a.type, Type):
            return None
        if not a.dtype.is_float:  # indices, or truth values that are cast
            return a
        mask = self.mask(a)
        return None if mask is None else broadcast_to(mask.value, a.shape)

    def _map_mask(self, g: Value) -> Mask | None:
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
            return self._choice_condition(x, args)
        if x.is_Mul:
            factors = [self._condition(factor, args) for factor in x.args]
            conditions = [c for c in factors if c is not None]
            return functools.reduce(h.logical_and, conditions) if conditions else None
        if x.is_Add:
            return self._sum_condition(x, args)
        return self._symbol_condition(x, args) if x.is_Symbol else None

    def _choice_condition(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        condition, a, b = x.args
        when_a, when_b = self._condition(a, args), self._condition(b, args)
        if when_a is None and when_b is None:
            return None
        chosen = condition if when_a is None else h.logical_and(condition, when_a)
        otherwise = h.logical_not(condition)
        otherwise = otherwise if when_b is None else h.logical_and(otherwise, when_b)
        return h.logical_or(chosen, otherwise)

    def _sum_condition(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        terms = []
        for term in x.args:
            terms.append(self._condition(term, args))
            if terms[-1] is None:
                return None
        return functools.reduce(h.logical_or, terms)

    def _symbol_condition(self, x: sp.Expr, args: list[Value]) -> sp.Expr | None:
        a = next(v for i, v in enumerate(args) if placeholder(i) == x)
        mask = self.mask(a)
        if mask is None:
            return None
        renumbered = {placeholder(i): placeholder(len(args) + i) for i in range(len(mask.args))}
        args.extend(mask.args)
        return mask.condition.xreplace(renumbered)
