"""Forms of expressions, and what their holes are in a value that is of the form."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.attributes import attribute_key
from nncompile.ir.op import Op, Value


@dataclass(frozen=True)
class Skeleton:
    """The form that a rule looks for, built on its examples."""

    before: Value
    holes: tuple[Any, ...]

    @cached_property
    def attributes(self) -> dict[Any, int]:
        """The index of each hole that is an attribute, by the key of its example."""
        return {
            attribute_key(hole): i
            for i, hole in enumerate(self.holes)
            if not isinstance(hole, Value)
        }

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """The examples that are floating-point numbers."""
        return tuple(h for h in self.holes if isinstance(h, float))

    @cached_property
    def values(self) -> dict[Value, int]:
        """The index of each hole that is a value."""
        return {hole: i for i, hole in enumerate(self.holes) if isinstance(hole, Value)}

    @cached_property
    def inner(self) -> tuple[type[Op], ...]:
        """The classes of the ops that arguments of the form are made by."""
        return tuple({type(a.op) for a in self.before.args if a not in self.values})

    def may_be(self, value: Value) -> bool:
        """Whether the value has what the form looks for one step above it: a quick look."""
        inner = self.inner
        if not inner:
            return True
        found = [type(a.op) for a in value.args]
        return all(op_type in found for op_type in inner)

    def bindings(self, value: Value) -> Iterator[list[Any]]:
        """What the holes may stand for, in order, one list for each way to see the value so."""
        for bound in self._unify(((self.before, value),), {}):
            if len(bound) == len(self.holes):
                yield [bound[i] for i in range(len(self.holes))]

    def _unify(
        self, pairs: tuple[tuple[Value, Value], ...], bound: dict[int, Any]
    ) -> Iterator[dict[int, Any]]:
        """Recurses over the skeleton, which is small, never over the graph."""
        if not pairs:
            yield bound
            return
        (form, value), rest = pairs[0], pairs[1:]
        if form is value:
            yield from self._unify(rest, bound)
        elif form in self.values:
            yield from self._bound(rest, bound, {self.values[form]: value})
        elif isinstance(form.op, Map) and isinstance(value.op, Map):
            for order, numbers in _orders(form.op, value.op, self.numbers):
                matches = {self.attributes[attribute_key(n)]: float(x) for n, x in numbers}
                args = tuple(zip(form.args, (value.args[j] for j in order), strict=True))
                yield from self._bound((*args, *rest), bound, matches)
        elif type(form.op) is type(value.op) and len(form.args) == len(value.args):
            fields = zip(form.op.attributes.values(), value.op.attributes.values(), strict=True)
            matches = {
                self.attributes[key]: actual
                for expected, actual in fields
                if (key := attribute_key(expected)) in self.attributes
            }
            args = tuple(zip(form.args, value.args, strict=True))
            yield from self._bound((*args, *rest), bound, matches)

    def _bound(
        self,
        pairs: tuple[tuple[Value, Value], ...],
        bound: dict[int, Any],
        matches: dict[int, Any],
    ) -> Iterator[dict[int, Any]]:
        if all(i not in bound or _equal(bound[i], x) for i, x in matches.items()):
            yield from self._unify(pairs, {**bound, **matches})


def _equal(a: Any, b: Any) -> bool:
    """Whether two things that one hole was bound to are the same."""
    return a is b or (not isinstance(a, Value) and attribute_key(a) == attribute_key(b))


Way = tuple[tuple[int, ...], tuple[tuple[float, Any], ...]]


@functools.lru_cache(maxsize=16384)
def _orders(form: Map, op: Map, numbers: tuple[float, ...]) -> tuple[Way, ...]:
    """How the arguments of `op` may be those of `form` (symmetric arguments are sorted by what
    they are, so every order is tried), and the literals where the form has holes for them."""
    if form.count != op.count or (not numbers and form.body.func is not op.body.func):
        return ()
    wildcards = {n: sp.Wild(f"number{i}", properties=[_is_literal]) for i, n in enumerate(numbers)}
    body = form.body
    for number, hole in wildcards.items():
        exact = sp.Rational(str(number))
        body = body.replace(
            lambda x, exact=exact: x.is_Rational and abs(x) == exact,
            lambda x, exact=exact, hole=hole: hole if x == exact else -hole,
        )
    used = {n: hole for n, hole in wildcards.items() if body.has(hole)}
    orders: list[Way] = []
    for order in itertools.permutations(range(op.count)):
        renamed = {placeholder(i): placeholder(j) for i, j in enumerate(order)}
        pattern = body.xreplace(renamed)
        if not used:
            if pattern == op.body:
                orders.append((order, ()))
            continue
        match = op.body.match(pattern)
        if match is not None:
            orders.append((order, tuple((n, match[hole]) for n, hole in used.items())))
    return tuple(orders)


def _is_literal(x: sp.Expr) -> bool:
    return bool(x.is_Rational)
