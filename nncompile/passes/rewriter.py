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
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.ir.dims import Dim, same_shape
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Op, Value, apply, makers_of
from nncompile.ir.transform import rebuilt
from nncompile.ir.types import AnyType, Type
from nncompile.passes.matching import Skeleton

Steps = Generator[Value, None, Any]  # two values; returns why it refuses, if it does

ROUNDS = 50  # rewrites allowed for each node of a graph before rules count as going in circles


@dataclass
class _Surroundings:
    """What a change may ask of the graph that is being rewritten, and whether one did."""

    uses: dict[Value, int]
    were_asked: bool = False


_surroundings: ContextVar[_Surroundings] = ContextVar("surroundings", default=_Surroundings({}))  # noqa: B039


def _asked() -> _Surroundings:
    surroundings = _surroundings.get()
    surroundings.were_asked = True
    return surroundings


def uses(value: Value) -> int:
    """How many nodes and outputs of the graph that is being rewritten need the value."""
    return _asked().uses.get(value, 1)


def present(value: Value) -> bool:
    """Whether the graph that is being rewritten has the value."""
    return value in _asked().uses


def made_by(sizes: Iterable[Dim]) -> list[Value]:
    """The nodes of the graph that is being rewritten which make sizes that depend on data."""
    _asked()
    return makers_of(sizes)


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
        return self.match(value).after

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
    if not any(_may_apply(change, graph.op_types) for change in changes):
        return graph
    return graph.mapped(lambda outputs: _Rewriting(graph, changes).run(outputs))


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
    """Whether a graph of these ops has what the change needs, or a body that may have it."""
    if any(op_type.within is not Op.within for op_type in op_types):
        return True
    required: list[tuple[type, ...]] = (
        [(c,) for c in change.op_types] if isinstance(change, Rule) else [change.roots]
    )
    return all(any(issubclass(op_type, classes) for op_type in op_types) for classes in required)


_bits: dict[tuple[Callable[..., Any], ...], int] = {}


def _settled_bit(changes: Iterable[Rule | Change]) -> int:
    """The bit of `Value.settled` which says that none of these changes applies to a node, whatever
    graph it stands in; 0 where that cannot be kept, as one of them depends on more than the node.
    Passes run again and again, over nodes of which most have been looked at before."""
    functions = tuple(change.function for change in changes)
    if any(function.__closure__ for function in functions):
        return 0
    return _bits.setdefault(functions, 1 << len(_bits))


class _Rewriting:
    def __init__(self, graph: Graph, changes: Iterable[Rule | Change]) -> None:
        self.locations = graph.locations
        self.all_changes = list(changes)
        self.changes: dict[type[Op], list[Rule | Change]] = {}
        self.settled = _settled_bit(self.all_changes)
        needed = itertools.chain(graph.outputs.values(), *(v.args for v in graph.nodes))
        self.surroundings = _Surroundings(dict(Counter(needed)))
        self.uses = self.surroundings.uses
        self.remaining = ROUNDS * len(graph.nodes)
        self.last: Rule | Change | None = None
        self.nodes = graph.nodes
        self.final: dict[Value, Value] = {}

    def run(self, outputs: Sequence[Value]) -> list[Value]:
        token = _surroundings.set(self.surroundings)
        final = self.final
        try:
            for v in self.nodes:
                if v in final:
                    continue
                if self._is_settled(v) and all(final[a] is a for a in v.args):
                    final[v] = v
                else:
                    self._finish(v)
        finally:
            _surroundings.reset(token)
        return [final[v] for v in outputs]

    def _applicable(self, op_type: type[Op]) -> list[Rule | Change]:
        """The changes of ops of that class."""
        found = self.changes.get(op_type)
        if found is None:
            found = [change for change in self.all_changes if issubclass(op_type, change.roots)]
            self.changes[op_type] = found
        return found

    def _is_settled(self, v: Value) -> bool:
        """Whether it is known that nothing applies to the node, nor to a body of it."""
        op_type = type(v.op)
        if v.settled & self.settled:
            return True
        return op_type.within is Op.within and not self._applicable(op_type)

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
                    raise self._endless_error()
                final[v] = final[successors[v]]
            elif missing := [a for a in v.args if a not in final]:
                pending.extend(reversed(missing))
            elif (new := self._next(v)) is v:
                final[v] = v
            else:
                successors[v] = new
                self.uses[new] = self.uses.get(new, 0) + self.uses.get(v, 1)
                pending.append(new)

    def _next(self, v: Value) -> Value:
        """One step further: the node on the final forms of its arguments, or rewritten."""
        args = [self.final[a] for a in v.args]
        if any(new is not old for new, old in zip(args, v.args, strict=True)):
            with self.locations.located(v):
                return rebuilt(v, args)
        if self._is_settled(v):
            return v
        op = v.op
        if type(op).within is not Op.within:
            op = op.within(lambda graph: rewrite(graph, self.all_changes))
        with self.locations.located(v):
            if op is not v.op:
                return apply(op, *args)
            self.surroundings.were_asked = False
            for change in self._applicable(type(op)):
                new = change(v)
                if new is not None and new is not v:
                    self.last, self.remaining = change, self.remaining - 1
                    if self.remaining < 0:
                        raise self._endless_error()
                    return new
        if not self.surroundings.were_asked:
            object.__setattr__(v, "settled", v.settled | self.settled)
        return v

    def _endless_error(self) -> CompileError:
        name = self.last.name if self.last else "none"
        return CompileError(
            f"rewriting does not terminate; the last rule applied was {name}",
            hint="two rules undo each other: give one of them a guard",
        )
