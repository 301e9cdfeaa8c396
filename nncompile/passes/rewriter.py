"""Rules: what a value looks like before and after, both written as ordinary expressions.

A rule is a generator of two values. Its examples are types, which stand for values, and other
things (permutations, shapes, numbers), which stand for attributes:

    @rule(f32[2, 3], f32[3, 4], f32[4])
    def add_into_gemm(a, b, c):
        yield a @ b + c                      # before
        if a.rank != 2 or b.rank != 2:       # guard
            return "a gemm multiplies matrices"
        yield gemm(a, b, c)                  # after

It runs once on the examples, which gives a skeleton of op classes with holes, and again on what
the holes were bound to: by interning, the second run's first value must *be* the matched node,
so that a wrong match cannot pass.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Trace, tracing
from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.dims import same_shape
from nncompile.ir.graph import AnyType, Graph, Input, Op, Value, apply, attribute_key, toposort
from nncompile.ir.transform import rebuilt
from nncompile.ir.types import Type

Steps = Generator[Value, None, Any]  # two values; returns why it refuses, if it does

ROUNDS = 50  # rewrites allowed for each node of a graph before rules count as going in circles

_uses: ContextVar[Mapping[Value, int]] = ContextVar("uses", default={})  # noqa: B039


def uses(value: Value) -> int:
    """How many nodes and outputs of the graph that is being rewritten need the value."""
    return _uses.get().get(value, 1)


@dataclass(frozen=True)
class Match:
    """What a rule made of a node: the value `after`, or None and the reason."""

    after: Value | None
    reason: str = ""


@dataclass(frozen=True)
class Rule:
    """A rewriting of one shape of expression; made by `rule`."""

    function: Callable[..., Steps]
    examples: tuple[Any, ...]

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""

    def __call__(self, value: Value) -> Value | None:
        """The value in its new form; None where the rule does not apply."""
        return self.match(value).after

    def match(self, value: Value) -> Match:
        """The value in its new form, or why the rule refuses it.

        Raises `CompileError` where the rule would change the type of the value.
        """
        refused = Match(None, f"is not of the form of {self.name}")
        for bound in self._skeleton.bindings(value):
            found = self._run(value, bound)
            if found.after is not None:
                return found
            refused = found
        return refused

    @cached_property
    def _skeleton(self) -> _Skeleton:
        names = inspect.signature(self.function).parameters
        holes = [
            Input(f"{self.name}.{name}", example, "hole")()
            if isinstance(example, Type)
            else example
            for name, example in zip(names, self.examples, strict=True)
        ]
        with tracing(Trace()):
            return _Skeleton(next(self.function(*holes)), tuple(holes))

    @property
    def roots(self) -> tuple[type[Op], ...]:
        """The class of the ops that the rule may apply to."""
        return (type(self._skeleton.before.op),)

    @cached_property
    def cards(self) -> tuple[type[Op], ...]:
        """The classes of all ops of the form that the rule looks for."""
        found = {type(v.op) for v in toposort([self._skeleton.before])}
        return tuple(found - {Input})

    def _run(self, value: Value, bound: Sequence[Any]) -> Match:
        steps = self.function(*bound)
        try:
            with tracing(Trace()):  # what is only looked for leaves no sites
                before = next(steps)
        except CompileError as error:
            return Match(None, error.said)
        if before is not value:
            return Match(None, f"differs from the form of {self.name} in its attributes")
        try:
            after = next(steps)
        except StopIteration as stop:
            return Match(None, stop.value or "its guard does not hold")
        finally:
            steps.close()
        if not same_type(after.type, value.type):
            raise CompileError(
                f"the rule {self.name} makes {after.type} of {value.type}",
                hint="a rule keeps the type of what it rewrites",
            )
        return Match(after)


def rule(*examples: Any) -> Callable[[Callable[..., Steps]], Rule]:
    """Makes a rule of a generator function with one parameter for each of the examples.

    A `Type` stands for any value; anything else for an attribute: the field of an op that equals
    the example, or a literal of a formula (choose a number that nothing else would give).
    The function yields the form before, may return a reason to refuse, and yields the form after.
    """
    return lambda function: Rule(function, examples)


@dataclass(frozen=True)
class Change:
    """A rewriting by a function of a value of one of the op classes `roots`, for what is not one
    shape of expression; made by `on`."""

    function: Callable[[Value], Value | None]
    roots: tuple[type[Op], ...]

    @property
    def name(self) -> str:
        return self.function.__name__

    def __call__(self, value: Value) -> Value | None:
        """The value in its new form; None where nothing is to be changed."""
        return self.function(value) if isinstance(value.op, self.roots) else None


def on(*roots: type[Op]) -> Callable[[Callable[[Value], Value | None]], Change]:
    """Makes a `Change` of a function that gives a value of one of these ops its new form, or
    None."""
    return lambda function: Change(function, roots)


@dataclass(frozen=True)
class _Skeleton:
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
        return tuple(h for h in self.holes if isinstance(h, float))

    @cached_property
    def values(self) -> dict[Value, int]:
        return {hole: i for i, hole in enumerate(self.holes) if isinstance(hole, Value)}

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
                found = {self.attributes[attribute_key(n)]: float(x) for n, x in numbers}
                args = tuple(zip(form.args, (value.args[j] for j in order), strict=True))
                yield from self._bound((*args, *rest), bound, found)
        elif type(form.op) is type(value.op) and len(form.args) == len(value.args):
            fields = zip(form.op.attributes.values(), value.op.attributes.values(), strict=True)
            found = {
                self.attributes[key]: theirs
                for ours, theirs in fields
                if (key := attribute_key(ours)) in self.attributes
            }
            args = tuple(zip(form.args, value.args, strict=True))
            yield from self._bound((*args, *rest), bound, found)

    def _bound(
        self,
        pairs: tuple[tuple[Value, Value], ...],
        bound: dict[int, Any],
        found: dict[int, Any],
    ) -> Iterator[dict[int, Any]]:
        if all(i not in bound or _equal(bound[i], x) for i, x in found.items()):
            yield from self._unify(pairs, {**bound, **found})


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
    wild = {n: sp.Wild(f"number{i}", properties=[_is_literal]) for i, n in enumerate(numbers)}
    body = form.body
    for number, hole in wild.items():
        exact = sp.Rational(str(number))
        body = body.replace(
            lambda x, exact=exact: x.is_Rational and abs(x) == exact,
            lambda x, exact=exact, hole=hole: hole if x == exact else -hole,
        )
    used = {n: hole for n, hole in wild.items() if body.has(hole)}
    found: list[Way] = []
    for order in itertools.permutations(range(op.count)):
        renamed = {placeholder(i): placeholder(j) for i, j in enumerate(order)}
        ours = body.xreplace(renamed)
        if not used:
            if ours == op.body:
                found.append((order, ()))
            continue
        match = op.body.match(ours)
        if match is not None:
            found.append((order, tuple((n, match[hole]) for n, hole in used.items())))
    return tuple(found)


def _is_literal(x: sp.Expr) -> bool:
    return bool(x.is_Rational)


def same_type(a: AnyType, b: AnyType) -> bool:
    """Whether two types are known to be equal."""
    if isinstance(a, Type) and isinstance(b, Type):
        return a.dtype is b.dtype and same_shape(a.shape, b.shape) is True
    return a == b


def rewrite(graph: Graph, changes: Iterable[Rule | Change]) -> Graph:
    """The graph with every change applied until none applies: arguments first, and each node once
    unless it is replaced, so in time linear in the graph.

    New nodes take the site of the node that they replace. Raises `CompileError` where the rules
    go in circles.
    """
    changes = list(changes)
    cards = {type(v.op) for v in graph.nodes}
    if not any(_may_apply(change, cards) for change in changes):
        return graph
    return graph.mapped(lambda outputs: _Rewriting(graph, changes).run(outputs))


def _may_apply(change: Rule | Change, cards: Collection[type[Op]]) -> bool:
    """Whether a graph of these ops has what the change needs, or a body that may have it."""
    if any(card.within is not Op.within for card in cards):
        return True
    needed = [(c,) for c in change.cards] if isinstance(change, Rule) else [change.roots]
    return all(any(issubclass(card, some) for card in cards) for some in needed)


class _Rewriting:
    def __init__(self, graph: Graph, changes: Iterable[Rule | Change]) -> None:
        self.trace = graph.trace
        changes = self.whole = list(changes)
        self.changes: dict[type[Op], list[Rule | Change]] = {
            card: found
            for card in Op.registry.values()
            if (found := [change for change in changes if issubclass(card, change.roots)])
        }
        self.uses: dict[Value, int] = {}
        for needed in (*graph.outputs.values(), *(a for v in graph.nodes for a in v.args)):
            self.uses[needed] = self.uses.get(needed, 0) + 1
        self.left = ROUNDS * len(graph.nodes)
        self.last: Rule | Change | None = None
        self.nodes = graph.nodes
        self.final: dict[Value, Value] = {}

    def run(self, outputs: Sequence[Value]) -> list[Value]:
        token = _uses.set(self.uses)
        try:
            for v in self.nodes:
                self._finish(v)
        finally:
            _uses.reset(token)
        return [self.final[v] for v in outputs]

    def _finish(self, value: Value) -> None:
        """Finds the final form of a node and of what comes to stand in its place, by a stack:
        deep graphs do not recurse."""
        final = self.final
        pending = [value]
        successors: dict[Value, Value] = {}
        while pending:
            v = pending[-1]
            if v in final:
                pending.pop()
            elif v in successors:  # waited for its new form, which is final now
                if successors[v] not in final:
                    raise self._endless()
                final[v] = final[successors[v]]
            elif waiting := [a for a in v.args if a not in final]:
                pending.extend(reversed(waiting))
            elif (new := self._next(v)) is v:
                final[v] = v
            else:
                successors[v] = new
                self.uses[new] = self.uses.get(new, 0) + self.uses.get(v, 1)
                pending.append(new)

    def _next(self, v: Value) -> Value:
        """One step further: the node on the final forms of its arguments, or rewritten."""
        args = [self.final[a] for a in v.args]
        moved = any(new is not old for new, old in zip(args, v.args, strict=True))
        if not moved:
            op = v.op.within(lambda graph: rewrite(graph, self.whole))
            if op is not v.op:
                with self.trace.located(v):
                    return apply(op, *args)
        changes = () if moved else self.changes.get(type(v.op), ())
        if not moved and not changes:
            return v
        with self.trace.located(v):
            if moved:
                return rebuilt(v, args)
            for change in changes:
                new = change(v)
                if new is not None and new is not v:
                    self.last, self.left = change, self.left - 1
                    if self.left < 0:
                        raise self._endless()
                    return new
        return v

    def _endless(self) -> CompileError:
        name = self.last.name if self.last else "none"
        return CompileError(
            f"rewriting does not end; the rule that applied last is {name}",
            hint="two rules undo each other: give one of them a guard",
        )
