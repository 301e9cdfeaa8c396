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

Beside it stand values on which it must not fire, at least one for each of its guards; a rule with a
guard and without them fails the tests:

    @add_into_gemm.refuses(f32[5, 2, 3], f32[5, 3, 4], f32[4])
    def _(a, b, c):
        yield a @ b + c
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.ir.dims import same_shape
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Op, Value
from nncompile.ir.types import AnyType, Type
from nncompile.passes.matching import Skeleton
from nncompile.passes.rewriting import Rewriting, settled_bit
from nncompile.passes.surroundings import made_by as made_by
from nncompile.passes.surroundings import present as present
from nncompile.passes.surroundings import uses as uses

Steps = Generator[Value, None, Any]  # two values; returns why it refuses, if it does

Refused = Callable[..., Iterator[Value | tuple[Value, ...]]]


@dataclass(frozen=True)
class _Refusing:
    """What is rewritten only where its guards allow it."""

    refused: list[tuple[Refused, tuple[Type, ...]]] = field(
        default_factory=list, init=False, compare=False, repr=False
    )

    def refuses(self, *types: Type) -> Callable[[Refused], Refused]:
        """Declares values that the rule must leave as they are, for the tests: what a generator
        yields, given leaves of these types. Where it yields a tuple, these are the outputs of one
        graph, of which the first is left."""

        def declare(function: Refused) -> Refused:
            self.refused.append((function, types))
            return function

        return declare

    def refusals(self) -> Iterator[tuple[Value, ...]]:
        """The outputs of each graph of which the first one must be left as it is."""
        for function, types in self.refused:
            leaves = [Input(f"x{i}", type_)() for i, type_ in enumerate(types)]
            for outputs in function(*leaves):
                yield outputs if isinstance(outputs, tuple) else (outputs,)


@dataclass(frozen=True)
class Match:
    """What a rule made of a node: the value `after`, or None and the reason."""

    after: Value | None
    reason: str = ""


@dataclass(frozen=True)
class Rule(_Refusing):
    """A rewriting of one shape of expression; made by `rule`."""

    function: Callable[..., Steps]
    examples: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The name of the function that declares the rule."""
        return self.function.__name__

    def __call__(self, value: Value) -> Value | None:
        """The value in its new form; None where the rule does not apply."""
        return self.match(value).after if self._skeleton.may_be(value) else None

    @property
    def attempt(self) -> Callable[[Value], Value | None]:
        """What gives a value of one of the classes `roots` its new form."""
        return self

    def match(self, value: Value) -> Match:
        """The value in its new form, or why the rule refuses it.

        Raises `CompileError` where the rule would change the type of the value.
        """
        refusal = Match(None, f"does not match {self.name}")
        for bound in self._skeleton.bindings(value):
            result = self._run(value, bound)
            if result.after is not None:
                return result
            refusal = result
        return refusal

    @cached_property
    def _skeleton(self) -> Skeleton:
        names = inspect.signature(self.function).parameters
        holes = [
            Input(f"{self.name}.{name}", example, "hole")()
            if isinstance(example, Type)
            else example
            for name, example in zip(names, self.examples, strict=True)
        ]
        with recording_locations(LocationTable()):
            return Skeleton(next(self.function(*holes)), tuple(holes))

    @property
    def roots(self) -> tuple[type[Op], ...]:
        """The class of the ops that the rule may apply to."""
        return (type(self._skeleton.before.op),)

    @cached_property
    def op_types(self) -> tuple[type[Op], ...]:
        """The classes of all ops of the form that the rule looks for."""
        classes = {type(v.op) for v in toposort([self._skeleton.before])}
        return tuple(classes - {Input})

    def _run(self, value: Value, bound: Sequence[Any]) -> Match:
        steps = self.function(*bound)
        try:
            with recording_locations(
                LocationTable()
            ):  # what is only looked for leaves no locations
                before = next(steps)
        except CompileError as error:
            return Match(None, error.problem)
        if before is not value:
            return Match(None, f"does not match the attributes of {self.name}")
        try:
            after = next(steps)
        except StopIteration as stop:
            return Match(None, stop.value or "its guard does not hold")
        finally:
            steps.close()
        if not same_type(after.type, value.type):
            raise CompileError(
                f"the rule {self.name} turns {value.type} into {after.type}",
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
class Change(_Refusing):
    """A rewriting by a function of a value whose op is of one of the classes `roots`, for what is
    not one shape of expression; made by `on`."""

    function: Callable[[Value], Value | None]
    roots: tuple[type, ...]

    @property
    def name(self) -> str:
        """The name of the function that declares the change."""
        return self.function.__name__

    def __call__(self, value: Value) -> Value | None:
        """The value in its new form; None where nothing is to be changed."""
        return self.function(value) if isinstance(value.op, self.roots) else None

    @property
    def attempt(self) -> Callable[[Value], Value | None]:
        """What gives a value of one of the classes `roots` its new form."""
        return self.function


def on(*roots: type) -> Callable[[Callable[[Value], Value | None]], Change]:
    """Makes a `Change` of a function that gives a value of one of these ops, or of what they have
    in common, its new form, or None."""
    return lambda function: Change(function, roots)


def same_type(a: AnyType, b: AnyType) -> bool:
    """Whether two types are known to be equal."""
    if isinstance(a, Type) and isinstance(b, Type):
        return a.dtype is b.dtype and same_shape(a.shape, b.shape) is True
    return a == b


def rewrite(graph: Graph, changes: Iterable[Rule | Change]) -> Graph:
    """The graph with every change applied until none applies: arguments first, and each node once
    unless it is replaced, so in time linear in the graph.

    New nodes take the location of the node that they replace. Raises `CompileError` where the rules
    go in circles.
    """
    changes = list(changes)
    bit = settled_bit(changes)

    def within(inner: Graph) -> Graph:
        if inner.settled & bit:
            return inner
        after = inner
        if _may_change(inner, changes):
            rewriting = Rewriting(inner, changes, bit, within)
            after = inner.mapped(rewriting.run)
        if after is inner:
            object.__setattr__(inner, "settled", inner.settled | bit)
        return after

    return within(graph)


def replaced(graph: Graph, new: Mapping[Value, Value], changes: Iterable[Rule | Change]) -> Graph:
    """The graph with the values of `new` in place of its keys, and with every change applied on the
    way: what follows is made anew once."""
    changes = list(changes)
    bit = settled_bit(changes)
    rewriting = Rewriting(graph, changes, bit, lambda inner: rewrite(inner, changes), new)
    return graph.mapped(rewriting.run)


def _may_change(graph: Graph, changes: Sequence[Rule | Change]) -> bool:
    """Whether a graph, or one within it, has what one of the changes needs."""
    op_types = graph.op_types
    with_bodies = any(op_type.within is not Op.within for op_type in op_types)
    return with_bodies or any(_may_apply(change, op_types) for change in changes)


Changes = Sequence[Rule | Change]


class RulePass:
    """A pass of rules alone; made by `rules`. Several of them are one rewriting, too."""

    def __init__(self, declare: Callable[[], Changes]) -> None:
        self.declare = declare
        functools.update_wrapper(self, declare)

    @property
    def changes(self) -> Changes:
        """The rules and other changes of the pass."""
        return self.declare()

    def __call__(self, graph: Graph) -> Graph:
        return rewrite(graph, self.changes)


def rules(function: Callable[[], Changes]) -> RulePass:
    """Makes a pass of a function that lists its rules, and says what they do."""
    return RulePass(function)


def _may_apply(change: Rule | Change, op_types: Collection[type[Op]]) -> bool:
    """Whether a graph of these ops has what the change needs."""
    required: list[tuple[type, ...]] = (
        [(c,) for c in change.op_types] if isinstance(change, Rule) else [change.roots]
    )
    return all(any(issubclass(op_type, classes) for op_type in op_types) for classes in required)
