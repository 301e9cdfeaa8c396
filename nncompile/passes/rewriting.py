"""One rewriting of a graph: every change at every node, until none applies.

Passes run again and again, over graphs of which little has changed. So a node keeps which sets of
changes were tried on it in vain (`Value.settled`), and where they asked how often values are
needed, the answers (`Value.settled_if`). A node whose arguments were made anew hands this on to the
one that takes its place, unless one of the nodes close to it is another: changes look at what is
close to a node.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from nncompile.diagnostics.errors import CompileError
from nncompile.ir.graph import Graph, toposort
from nncompile.ir.op import Op, Value, apply, remade
from nncompile.ir.transform import rebuilt
from nncompile.passes.surroundings import Surroundings, surroundings

ROUNDS = 50  # rewrites allowed for each node of a graph before rules count as going in circles
FAR = 8  # steps from a node to those that no change looks at

Try = Callable[[Value], Value | None]


class AnyChange(Protocol):
    """A rule or another change; see `nncompile.passes.rewriter`."""

    @property
    def function(self) -> Callable[..., Any]: ...
    @property
    def name(self) -> str: ...
    @property
    def roots(self) -> tuple[type, ...]: ...
    @property
    def attempt(self) -> Try: ...
    def __call__(self, value: Value) -> Value | None: ...


_bits: dict[tuple[Callable[..., Any], ...], int] = {}
_by_class: dict[int, dict[type[Op], list[tuple[Try, AnyChange]]]] = {}
"""Of the changes of each bit, which may apply to ops of a class, and how they are tried."""


def settled_bit(changes: Iterable[AnyChange]) -> int:
    """The bit of `Value.settled` and `Graph.settled` for these changes; 0 where there is none, as
    one of them depends on more than the node."""
    functions = tuple(change.function for change in changes)
    if any(function.__closure__ for function in functions):
        return 0
    return _bits.setdefault(functions, 1 << len(_bits))


class Rewriting:
    """Rewrites a graph by `changes`, and the graphs within its nodes by `within`. What becomes of
    some values is `known` from the start."""

    def __init__(
        self,
        graph: Graph,
        changes: Sequence[AnyChange],
        bit: int,
        within: Callable[[Graph], Graph],
        known: Mapping[Value, Value] | None = None,
    ) -> None:
        self.locations = graph.locations
        self.all_changes, self.within = changes, within
        self.bit = bit
        self.changes = _by_class.setdefault(self.bit, {}) if self.bit else {}
        self.surroundings = Surroundings(dict(graph.uses))
        self.uses = self.surroundings.uses
        self.remaining = ROUNDS * len(graph.nodes)
        self.last: AnyChange | None = None
        self.nodes, self.places = graph.nodes, graph.places
        # The classes of ops to which one of the changes may apply, or that hold graphs.
        self.active = {
            op_type
            for op_type in graph.op_types
            if self._applicable(op_type) or op_type.within is not Op.within
        }
        # Of values, those of the graph and new ones, what they become; `known` from the start.
        self.final: dict[Value, Value] = dict(known or {})
        self.changed: set[Value] = set()  # nodes of the graph whose final form is another node
        if known:
            self._count(known)
        # Of new nodes, how far the closest one is that is not as it was but for its arguments.
        self.distances: dict[Value, int] = {}

    def _count(self, known: Mapping[Value, Value]) -> None:
        """Counts how often what is known needs others, and is needed."""
        uses, old = self.uses, set(self.nodes)
        for v, new in known.items():
            uses[new] = uses.get(new, 0) + uses.get(v, 1)
        for v in toposort(known.values()):
            if v not in old:
                for a in v.args:
                    uses[a] = uses.get(a, 0) + 1

    def run(self, outputs: Sequence[Value]) -> list[Value]:
        """The outputs in their final form."""
        token = surroundings.set(self.surroundings)
        try:
            with self.locations.following() as self.site:
                first = 0 if self.final else self._first_change()
                if first is None:
                    return list(outputs)
                self._run(first)
        finally:
            surroundings.reset(token)
        return [self.final[v] for v in outputs]

    def _first_change(self) -> int | None:
        """Where the first node stands to which a change applies, which is finished then; None where
        there is none, as most passes over a graph find nothing to do."""
        nodes, bit = self.nodes, self.bit
        places = itertools.chain.from_iterable(map(self.places.__getitem__, self.active))
        for i in sorted([i for i in places if not nodes[i].settled & bit]):
            v = nodes[i]
            if v.settled_if and self._is_settled(v):
                continue
            form = self._rewritten(v)
            if form is not v:
                self.final.update(zip(nodes[:i], nodes[:i], strict=True))
                self._finish(v, form)
                return i
        return None

    def _run(self, first: int) -> None:
        final, changed, bit, active = self.final, self.changed, self.bit, self.active
        stay = changed.isdisjoint
        for v in self.nodes[first:]:
            if v not in final:
                if stay(v.args):
                    if (
                        v.settled & bit
                        or type(v.op) not in active
                        or self._is_settled(v)
                        or self._stays(v)
                    ):
                        final[v] = v
                        continue
                elif not self._moved(v, tuple([final[a] for a in v.args])):
                    self._finish(v)
            if final[v] is not v:
                changed.add(v)

    def _stays(self, v: Value) -> bool:
        """Whether no change applies to a node whose arguments are final; else it is finished."""
        form = self._rewritten(v)
        if form is not v:
            self._finish(v, form)
        return form is v

    def _moved(self, v: Value, args: tuple[Value, ...]) -> bool:
        """Puts the node on new arguments of the same types; whether nothing else is to be done to
        it."""
        distances, closest = self.distances, FAR
        for new, old in zip(args, v.args, strict=True):
            if new is not old:
                if new.type is not old.type and new.type != old.type:
                    return False
                closest = min(closest, distances.get(new, 0))
        known = remade(v, args)
        if known is None:
            return False
        uses, final = self.uses, self.final
        is_new = known not in uses and known not in final
        uses[known] = uses.get(known, 0) + uses.get(v, 1)
        if known in final:
            final[v] = final[known]
            distances[final[known]] = 0  # two nodes are one
            return True
        distance = 1 + closest
        distances[known] = distance if is_new else 0
        if is_new and distance >= FAR:
            self._hand_on(v, known)
        if type(known.op) not in self.active or self._is_settled(known) or self._stays(known):
            final[known] = known
        final[v] = final[known]
        return True

    def _hand_on(self, old: Value, new: Value) -> None:
        """What is known of a node is known of the one that takes its place."""
        set_ = object.__setattr__
        set_(new, "settled", new.settled | old.settled)
        conditions = old.settled_if
        if conditions:
            final = self.final
            moved = {}
            for bit, asked in conditions.items():
                for a, _ in asked:
                    if a not in final:
                        break
                else:
                    moved[bit] = tuple([(final[a], count) for a, count in asked])
            set_(new, "settled_if", {**moved, **(new.settled_if or {})})

    def _applicable(self, op_type: type[Op]) -> list[tuple[Try, AnyChange]]:
        """The changes of ops of that class, and how they are tried."""
        found = self.changes.get(op_type)
        if found is None:
            changes = [change for change in self.all_changes if issubclass(op_type, change.roots)]
            found = self.changes[op_type] = [(change.attempt, change) for change in changes]
        return found

    def _is_settled(self, v: Value) -> bool:
        """Whether it is known that nothing applies to the node, nor to a body of it."""
        if v.settled & self.bit:
            return True
        conditions = v.settled_if
        if conditions:
            asked = conditions.get(self.bit)
            if asked is not None:
                get = self.uses.get
                return all(get(a, 1) == count for a, count in asked)
        if self._applicable(type(v.op)) or type(v.op).within is not Op.within:
            return False
        object.__setattr__(v, "settled", v.settled | self.bit)
        return True

    def _finish(self, value: Value, form: Value | None = None) -> None:
        """Finds the final form of a node and of what comes to stand in its place (at first `form`,
        where that is known), by a stack: deep graphs do not recurse."""
        final = self.final
        pending = [value]
        successors: dict[Value, Value] = {}
        if form is not None:
            successors[value] = form
            self.uses[form] = self.uses.get(form, 0) + self.uses.get(value, 1)
            pending.append(form)
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
            self.site.node = v
            return rebuilt(v, args)
        return v if self._is_settled(v) else self._rewritten(v)

    def _rewritten(self, v: Value) -> Value:
        """The node, whose arguments are final, after the first change that applies; itself where
        none does."""
        op = v.op
        around, self.site.node = self.surroundings, v
        if type(op).within is not Op.within:
            op = op.within(self.within)
            self.site.node = v
            if op is not v.op:
                return apply(op, *v.args)
        around.asked, around.asked_else = {}, False
        changes = self.changes.get(type(op))
        for attempt, change in self._applicable(type(op)) if changes is None else changes:
            new = attempt(v)
            if new is not None and new is not v:
                self.last, self.remaining = change, self.remaining - 1
                if self.remaining < 0:
                    raise self._endless_error()
                return new
        if self.bit and not around.asked_else:
            self._settle(v)
        return v

    def _settle(self, v: Value) -> None:
        """Notes that none of the changes applies to the node, as often as what they asked for is
        needed now."""
        asked = self.surroundings.asked
        if not asked:
            object.__setattr__(v, "settled", v.settled | self.bit)
        else:
            conditions = {**(v.settled_if or {}), self.bit: tuple(asked.items())}
            object.__setattr__(v, "settled_if", conditions)

    def _endless_error(self) -> CompileError:
        name = self.last.name if self.last else "none"
        return CompileError(
            f"rewriting does not terminate; the last rule applied was {name}",
            hint="two rules undo each other: give one of them a guard",
        )
