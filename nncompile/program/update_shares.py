"""An update that several processes share: each computes the next value of its part of the state.

What an update computes of one parameter – the parameter, its gradient, its slots – is a component
of the graph: tensors that are computed of each other. It is cut along its first axis where every op
keeps the rows of that axis apart; otherwise one process has all of it. A number that is computed
of a component and that others need, such as the norm of all gradients, is added up over the
processes before it is used: the update is cut into stages there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import current_locations, located
from nncompile.ir.graph import Graph, Input, between, input_of, toposort
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt
from nncompile.ir.types import TupleType, Type
from nncompile.ops.reduction.sums import Sum
from nncompile.program.step import Step
from nncompile.program.update_sections import Component, Section


@dataclass(frozen=True)
class Share:
    """What one process computes of an update. `update` gives the next value of its part of the
    state, of that and of its part of what was reduced. Before it, each of `stages` gives numbers,
    which are added up over the processes and are inputs of all that follow: `shared` are those of
    each stage, also of other processes, by name. `spans` are the rows that the process has, of each
    tensor of a component; of what is not cut, (0, 1)."""

    update: Graph
    stages: tuple[Graph, ...]
    shared: tuple[tuple[str, ...], ...]
    spans: Mapping[str, tuple[int, int]]
    types: Mapping[str, Type]  # of the numbers


class SharedUpdate:
    """The update of a step, `following` or that of sums, as several processes share it."""

    def __init__(self, step: Step, graph: Graph) -> None:
        self._step, self._graph = step, graph
        self._gradients = set(step.reductions.gradients)
        self._order = toposort(graph.outputs.values())
        leaves = graph.leaves
        self._changing = {leaves[path] for path in step.state_map if path in leaves}
        self._changing |= {v for v in leaves.values() if input_of(v).kind == "input"}
        self._groups = _Groups(self._order, self._changing)
        for path, following in step.state_map.items():
            if path in leaves and following in graph.outputs:
                self._groups.join(leaves[path], graph.outputs[following])
        self._nodes: dict[Value, list[Value]] = {}
        for v in self._order:
            if v in self._groups:
                self._nodes.setdefault(self._groups.root(v), []).append(v)
        self._owned = {root for root, nodes in self._nodes.items() if self._has_gradient(nodes)}
        self._readers = self._readers_of_numbers()

    @cached_property
    def components(self) -> list[Component]:
        """Those that have a gradient, in the order in which gradients are made. All else each
        process computes."""
        order = {name: i for i, name in enumerate(self._step.reductions.gradients)}
        roots = sorted(self._owned, key=lambda root: min(
            order.get(n, len(order)) for n in self._names(root, "input")))  # fmt: skip
        return [self._component(root) for root in roots]

    def share(self, rank: int, found: Iterable[Section]) -> Share:
        """What the process of that number computes."""
        spans = {
            name: (first, last)
            for section in found
            for component, first, last in section.spans(rank)
            for name in (*component.states, *component.handed)
        }
        known = self._parts_of_leaves(spans)
        numbers = self._numbers
        for i, v in enumerate(numbers):
            known[v] = apply(Input(f"shared.{i}", v.type))
        cutting = _Cutting(self, spans)
        stages, shared = [], []
        for level in range(1 + max(numbers.values(), default=-1)):
            those = [(i, v) for i, (v, at) in enumerate(numbers.items()) if at == level]
            mine = {f"shared.{i}": v for i, v in those if self._has(v, spans)}
            args = [_made(v.args, cutting, known) for v in mine.values()]
            parts = [v.op.rebuild(*new) for v, new in zip(mine.values(), args, strict=True)]
            outputs = dict(zip(mine, parts, strict=True))
            stages.append(self._part(f"{self._graph.name}_{level}", outputs, ()))
            shared.append(tuple(f"shared.{i}" for i, _ in those))
        outputs = {n: v for n, v in self._graph.outputs.items() if self._computes(n, v, spans)}
        values = _made(list(outputs.values()), cutting, known)
        kept = [leaf for leaf in self._graph.inputs if not self._is_owned(leaf)]
        update = self._part(
            f"{self._graph.name}_of_part", dict(zip(outputs, values, strict=True)), kept
        )
        types = {f"shared.{i}": v.type for i, v in enumerate(numbers)}
        return Share(update, tuple(stages), tuple(shared), spans, types)

    def _parts_of_leaves(self, spans: Mapping[str, tuple[int, int]]) -> dict[Value, Value]:
        """What stands for the leaves of components that are cut."""
        known: dict[Value, Value] = {}
        for name, (first, last) in spans.items():
            leaf = self._graph.leaves.get(name)
            if leaf is not None and self._rows[self._groups.root(leaf)] is not None:
                known[leaf] = _cut(leaf, last - first)
        return known

    def _part(self, name: str, outputs: dict[str, Value], inputs: Sequence[Value]) -> Graph:
        return replace(self._graph, name=name, outputs=outputs, inputs=tuple(inputs))

    def _is_owned(self, v: Value) -> bool:
        return v in self._groups and self._groups.root(v) in self._owned

    def _computes(self, name: str, v: Value, spans: Mapping[str, object]) -> bool:
        """Whether a process computes that output: it is of all, or of a part that it has."""
        path = name.removesuffix(".next")
        return path in spans or not (self._is_owned(v) or self._is_owned(self._graph.leaves[path]))

    def _has(self, number: Value, spans: Mapping[str, object]) -> bool:
        root = self._source(number)
        assert root is not None
        return any(input_of(v).name in spans for v in self._nodes[root] if isinstance(v.op, Input))

    def _has_gradient(self, nodes: Iterable[Value]) -> bool:
        rules = self._step.reductions.by_name
        names = {input_of(v).name for v in nodes if isinstance(v.op, Input)}
        handed = {n for n in names if n in rules}
        is_plain = all(rules[n].kind in ("sum", "mean") for n in handed)
        has_owner = any(n in self._step.state_map for n in names)
        return bool(handed & self._gradients) and is_plain and has_owner

    def _names(self, root: Value, kind: str) -> list[str]:
        leaves = [input_of(v) for v in self._nodes[root] if isinstance(v.op, Input)]
        return [leaf.name for leaf in leaves if (leaf.kind == "input") == (kind == "input")]

    def _component(self, root: Value) -> Component:
        states = self._names(root, "state")
        sizes = (math.prod(map(int, self._graph.leaves[n].shape)) for n in states)
        handed = self._names(root, "input")
        return Component(tuple(sorted(states)), tuple(handed), self._rows[root], sum(sizes))

    def _readers_of_numbers(self) -> dict[Value, set[Value | None]]:
        """Of each number that is computed of a component: the components that need it, and None
        where something else does, too."""
        readers: dict[Value, set[Value | None]] = {}
        outputs = set(self._graph.outputs.values())
        for v in reversed(self._order):
            if v in self._groups:
                continue
            found = readers.setdefault(v, set())
            if v in outputs:
                found.add(None)
        for v in reversed(self._order):
            for a in v.args:
                if a in readers:
                    if v in readers:
                        readers[a] |= readers[v]
                    else:
                        readers[a].add(self._groups.root(v))
        return {v: found for v, found in readers.items() if self._source(v) in self._owned}

    def _source(self, number: Value) -> Value | None:
        """The component that a number is computed of directly."""
        roots = {self._groups.root(a) for a in number.args if a in self._groups}
        return roots.pop() if roots else None

    @cached_property
    def _numbers(self) -> dict[Value, int]:
        """The numbers that are added up over the processes, and in which stage: after those that
        they depend on."""
        levels: dict[Value, int] = {}
        found: dict[Value, int] = {}
        for v in self._order:
            level = max((levels[a] for a in v.args), default=0)
            if v in self._readers and self._readers[v] - {self._source(v)}:
                found[v] = level
                level += 1
            levels[v] = level
        # In an order that is that of every process.
        return dict(sorted(found.items(), key=lambda x: (x[1], x[0].digest)))

    @cached_property
    def _rows(self) -> dict[Value, int | None]:
        return {root: self._rows_of(root) for root in self._owned}

    def _rows_of(self, root: Value) -> int | None:
        """Along how many rows a component can be cut; None where it cannot."""
        nodes = self._nodes[root]
        leaves = [v for v in nodes if isinstance(v.op, Input)]
        states = [v for v in leaves if input_of(v).kind != "input"]
        if (
            len(leaves) - len(states) != 1
            or sum(input_of(v).kind == "parameter" for v in states) > 1
        ):
            return None
        firsts = {v.shape[0] for v in leaves}
        rows = firsts.pop()
        if firsts or not isinstance(rows, int) or rows < 2:
            return None
        own = {v for v, readers in self._readers.items() if self._source(v) is root}
        if any(not is_whole_sum(v) or self._readers[v] <= {root} for v in own):
            return None
        if not all(isinstance(v.op, Input) or self.cut_axes(v, rows) for v in nodes):
            return None
        half = rows // 2
        known = {a: a for v in nodes for a in v.args if a not in self._groups}
        known |= {v: _cut(v, half) for v in leaves}
        cutting = _Cutting(self, {input_of(v).name: (0, half) for v in leaves}, rows, root)
        try:
            _made(nodes, cutting, known)
        except CompileError:  # an op that needs the sizes that it has
            return None
        return rows

    def cut_axes(self, v: Value, rows: int) -> list[int | None] | None:
        """Along which axis each argument is cut where the rows of the result are; None where the
        op mixes them."""
        if isinstance(v.type, TupleType) or v.shape[0] != rows:
            return None
        axes = [0 if a in self._groups else None for a in v.args]
        # What follows from none of these tensors, such as noise, is computed whole.
        wide = [0 if _is_tensor(a.type) and a.shape[0] == rows else None for a in v.args]
        for tried in (axes, [w if x is None else x for x, w in zip(axes, wide, strict=True)]):
            if v.op.rowwise(tried, *(a.type for a in v.args)) == 0:
                return tried
        return None


@dataclass
class _Cutting:
    """Makes nodes of cut components anew, of the rows that `spans` have."""

    shared: SharedUpdate
    spans: Mapping[str, tuple[int, int]]
    rows: int | None = None  # of the one component that is tried
    root: Value | None = None
    _span_of: dict[Value, tuple[int, int]] = field(default_factory=dict)

    def made(self, v: Value, args: list[Value]) -> Value:
        """The node of other arguments."""
        groups = self.shared._groups
        if v not in groups or not args:
            return rebuilt(v, args)
        root = groups.root(v)
        rows = self.rows if root is self.root else self.shared._rows.get(root)
        if rows is None:
            return rebuilt(v, args)
        axes = self.shared.cut_axes(v, rows)
        assert axes is not None
        first, last = self._span(root)
        args = [
            new[first:last] if axis == 0 and old not in groups else new
            for new, old, axis in zip(args, v.args, axes, strict=True)
        ]
        made = rebuilt(v, args)
        if made.shape[0] != last - first:
            raise CompileError(f"{v.op.label} has other rows than its arguments")
        return made

    def _span(self, root: Value) -> tuple[int, int]:
        if root not in self._span_of:
            leaves = (v for v in self.shared._nodes[root] if isinstance(v.op, Input))
            self._span_of[root] = next(
                self.spans[input_of(v).name] for v in leaves if input_of(v).name in self.spans
            )
        return self._span_of[root]


class _Groups:
    """Which tensors are computed of each other: those that depend on `leaves`, joined where one is
    computed of the other. Numbers, of one element, join nothing."""

    def __init__(self, order: Iterable[Value], leaves: set[Value]) -> None:
        self._parents: dict[Value, Value] = {}
        for v in order:
            sources = [a for a in v.args if a in self._parents]
            if _is_tensor(v.type) and (sources or v in leaves):
                self._parents[v] = v
                sources.append(v)
            for a in sources[1:]:
                self.join(sources[0], a)

    def __contains__(self, v: Value) -> bool:
        return v in self._parents

    def root(self, v: Value) -> Value:
        while self._parents[v] is not v:
            self._parents[v] = self._parents[self._parents[v]]
            v = self._parents[v]
        return v

    def join(self, a: Value, b: Value) -> None:
        if a in self._parents and b in self._parents:
            self._parents[self.root(a)] = self.root(b)


def is_whole_sum(v: Value) -> bool:
    """Whether a number is the sum of all elements of a tensor."""
    return isinstance(v.op, Sum) and len(v.op.axes) == v.args[0].rank


def _made(outputs: Sequence[Value], cutting: _Cutting, known: Mapping[Value, Value]) -> list[Value]:
    """The outputs made anew, of what stands for the keys of `known`."""
    table = current_locations()
    new = dict(known)
    for v in between(outputs, known):
        if v not in new:
            with located(table.location(v)):
                new[v] = cutting.made(v, [new[a] for a in v.args])
    return [new[v] for v in outputs]


def _cut(leaf: Value, rows: int) -> Value:
    """The input of so many rows."""
    return apply(replace(input_of(leaf), type=Type(leaf.dtype, (rows, *leaf.shape[1:]))))


def _is_tensor(type_: object) -> bool:
    """Whether a value has more than one element."""
    return not isinstance(type_, Type) or any(n != 1 for n in type_.shape)
