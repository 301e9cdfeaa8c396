"""Graphs: named outputs computed from inputs, and the order of what they need."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.locations import (
    Location,
    LocationTable,
    current_locations,
    making,
    recording_locations,
    user_location,
)
from nncompile.ir.attributes import sizes_in
from nncompile.ir.dims import Dim, dim, symbols
from nncompile.ir.op import Op, Packed, Value, packed, typed, unpacked
from nncompile.ir.types import TupleType, Type, component_types


class Input(Op):
    """A leaf that is given from outside: data, a trained parameter, or state of the training.
    Data that `may_be_nan` are not refused where they hold NaN."""

    name: str
    type: Type
    kind: str = "input"  # or "parameter", "state"
    may_be_nan: bool = False
    mixes = True

    @property
    def origin(self) -> str:
        return f"{self.kind} {self.name}"

    def infer(self) -> Type:
        return self.type


def input_of(leaf: Value) -> Input:
    """The input that a value is."""
    assert isinstance(leaf.op, Input)
    return leaf.op


class Item(Op):
    """One result of an op with several."""

    index: int
    moves = True

    def infer(self, results: TupleType) -> Type:
        return results.items[self.index]

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        return row_axes[0]

    def batched(self, length: Dim) -> Op:
        return self

    def numpy(self, results: tuple[Any, ...]) -> Any:
        return results[self.index]

    def onnx(self, o: Any, *args: Any) -> Any:
        return args[0][self.index]

    def torch(self, t: Any, *args: Any) -> Any:
        return args[0][self.index]


_item = functools.lru_cache(maxsize=4096)(Item)  # an op finds out its digest once


def items(value: Value) -> tuple[Value, ...]:
    """The results of an op with several, each a value."""
    location = user_location()
    types: Sequence[Type] = value.type.items
    return tuple([typed(_item(i), (value,), t, location) for i, t in enumerate(types)])


def macs_of(value: Value) -> Any:
    """The multiplications whose products are added up for one node (see `Op.macs`)."""
    return value.op.macs(value.type, *(a.type for a in value.args))


def toposort(
    outputs: Iterable[Value], before: Mapping[Value, Sequence[Value]] | None = None
) -> list[Value]:
    """All nodes that the outputs need, arguments first, and what makes a size before what needs
    it; deep graphs do not recurse. Where leaves stand for what others make, that comes `before`."""
    outputs = list(outputs)
    arguments = _arguments if before is None else lambda v: before.get(v, v.args)
    order = _sorted(outputs, arguments)
    makers: dict[sp.Symbol, Value] = {}
    for v in _making(order):
        for size in v.op.makes:
            makers.setdefault(size, v)
    if not makers:
        return order
    return _sorted(outputs, lambda v: (*arguments(v), *_needed_makers(v.op, makers)))


def between(outputs: Sequence[Value], arguments: Collection[Value]) -> list[Value]:
    """The nodes that the outputs need of those behind `arguments`, which are among them."""
    ends = set(arguments)
    return _sorted(outputs, lambda v: () if v in ends else v.args)


def _making(nodes: Sequence[Value]) -> list[Value]:
    """Those of the nodes whose ops may make sizes."""
    kinds = {kind for kind in {type(v.op) for v in nodes} if kind.makes is not Op.makes}
    return [v for v in nodes if type(v.op) in kinds] if kinds else []


def _needed_makers(op: Op, makers: Mapping[sp.Symbol, Value]) -> Iterable[Value]:
    """The nodes that make the sizes in the fields of an op."""
    return dict.fromkeys(makers[s] for s in sizes_within(op) if s in makers and s not in op.makes)


def sizes_within(op: Op) -> set[sp.Symbol]:
    """The names of sizes in the fields of an op, and in those of the graphs in it."""
    sizes = set().union(*(sizes_within(v.op) for graph in graphs_within(op) for v in graph.nodes))
    return sizes | sizes_in(op.attributes.values())


def needed(outputs: Iterable[Value], leaves: Iterable[Value]) -> tuple[Value, ...]:
    """Those of the leaves, in their order, that the outputs are computed of: of their numbers, or
    of their sizes alone."""
    nodes, leaves = toposort(outputs), list(leaves)
    found = {v for v in nodes if isinstance(v.op, Input)}
    # Many nodes share one type and one op; the sizes in the types of leaves come from the leaves.
    types = {id(v.type): v.type for v in nodes}.values()
    missing = symbols(d for several in types for t in component_types(several) for d in t.shape)
    ops = {v.op for v in nodes if v not in found}
    missing = missing.union(*map(sizes_within, ops))
    missing -= {d for leaf in found for d in leaf.shape}
    for leaf in leaves if missing else ():
        if not missing.isdisjoint(leaf.shape):
            found.add(leaf)
            missing -= {*leaf.shape}
    return tuple(leaf for leaf in leaves if leaf in found)


def graphs_within(op: Op) -> list[Graph]:
    """The graphs in the fields of an op."""
    inner: list[Graph] = []

    def collect(graph: Graph) -> Graph:
        inner.append(graph)
        return graph

    op.within(collect)
    return inner


_arguments: Callable[[Value], Sequence[Value]] = operator.attrgetter("args")


def _sorted(
    outputs: Sequence[Value], arguments: Callable[[Value], Sequence[Value]] = _arguments
) -> list[Value]:
    order: list[Value] = []
    visited: set[Value] = set()
    stack = list(outputs)[::-1]
    pop, push, is_visited = stack.pop, stack.append, visited.issuperset
    while stack:  # for every node of every graph that is made
        value = pop()
        if value in visited:
            continue
        args = arguments(value)
        if is_visited(args):
            visited.add(value)
            order.append(value)
        else:
            push(value)
            for a in args[::-1]:
                if a not in visited:
                    push(a)
    return order


@suggests_options
@dataclass(frozen=True)
class Graph:
    """Named outputs computed from named leaves: what passes take and give, and backends lower."""

    name: str
    outputs: Mapping[str, Value]
    inputs: tuple[Value, ...] = ()  # order of the leaves; others follow as they are met
    locations: LocationTable = field(default_factory=current_locations, compare=False)
    doc: str = ""
    # Which sets of changes were tried on it in vain: see `nncompile.passes.rewriting`.
    settled: int = field(default=0, init=False, compare=False, repr=False)

    def __reduce__(self) -> Any:
        sizes = set().union(*(_sizes_of(v) for v in self.nodes))
        makers = {s: v for s, v in self.locations.makers.items() if s in sizes}
        roots = [*self.outputs.values(), *self.inputs, *makers.values()]
        nodes, places = packed(roots)
        lines = [self.locations.all_locations(v) for v in _with_bodies(places)]
        return _restored, (
            self.name,
            nodes,
            {name: places[v] for name, v in self.outputs.items()},
            [places[v] for v in self.inputs],
            {size: places[v] for size, v in makers.items()},
            {i: found for i, found in enumerate(lines) if found},
            self.doc,
        )

    @cached_property
    def nodes(self) -> list[Value]:
        """All nodes, arguments first."""
        return toposort(self.outputs.values())

    @cached_property
    def places(self) -> dict[type[Op], list[int]]:
        """Where among its nodes those of each class of ops stand."""
        places: defaultdict[type[Op], list[int]] = defaultdict(list)
        for i, v in enumerate(self.nodes):
            places[type(v.op)].append(i)
        return dict(places)

    @property
    def op_types(self) -> Collection[type[Op]]:
        """The classes of its ops."""
        return self.places.keys()

    def of_class(self, *classes: type[Op]) -> list[Value]:
        """The nodes whose ops are of one of these classes, arguments first."""
        found = [p for op_type, p in self.places.items() if issubclass(op_type, classes)]
        return [self.nodes[i] for i in sorted(itertools.chain.from_iterable(found))]

    @cached_property
    def uses(self) -> dict[Value, int]:
        """How many nodes and outputs need each value."""
        return dict(Counter(itertools.chain(self.outputs.values(), *[v.args for v in self.nodes])))

    @cached_property
    def readers(self) -> dict[Value, list[Value]]:
        """The nodes that take each value, in their order; twice where they take it twice."""
        readers: dict[Value, list[Value]] = {v: [] for v in self.nodes}
        for v in self.nodes:
            for a in v.args:
                readers[a].append(v)
        return readers

    @cached_property
    def leaves(self) -> dict[str, Value]:
        """The leaves that the outputs need or `inputs` declares, by name."""
        leaves: dict[str, Value] = {}
        for v in (*self.inputs, *self.of_class(Input)):
            leaf = input_of(v)
            if leaf.kind == "binder":
                raise CompileError(
                    f"a value of one iteration of a scan, {v.type}, is used outside of it",
                    hint="return it from the body: its last value or its stack is a result of scan",
                )
            known = leaves.setdefault(leaf.name, v)
            if known is not v:
                raise CompileError(
                    f"two different inputs are called {leaf.name}: {known.type} and {v.type}",
                    hint="give one of them another name",
                )
        return leaves

    @cached_property
    def macs(self) -> Dim:
        """The multiplications whose products are added up, of all its nodes (see `Op.macs`)."""
        return dim(sum(macs_of(v) for v in self.nodes))

    def of_kind(self, kind: str) -> dict[str, Value]:
        """The leaves of one kind: "input", "parameter" or "state"."""
        return {n: v for n, v in self.leaves.items() if input_of(v).kind == kind}

    def with_outputs(self, outputs: Mapping[str, Value]) -> Graph:
        """The graph with other outputs: the same name, order of leaves, locations and doc."""
        return dataclasses.replace(self, outputs=dict(outputs))

    def with_own_locations(self) -> Graph:
        """The graph with a table of the locations of its own nodes: what is made of it is reported
        where these were written, whatever else was made in this process."""
        table = self.locations.of(_with_bodies(self.nodes))
        own = dataclasses.replace(self, locations=table)
        own.__dict__["nodes"] = self.nodes  # the same, which take time to sort
        return own

    def mapped(self, change: Callable[[Sequence[Value]], Sequence[Value]]) -> Graph:
        """The graph with `change` applied to its outputs, all at once."""
        kinds = [kind for kind in self.op_types if kind.makes is not Op.makes]
        makers = {size: v for v in self.of_class(*kinds) for size in v.op.makes} if kinds else {}
        with recording_locations(self.locations), making(makers):
            new = change(list(self.outputs.values()))
        if all(map(operator.is_, self.outputs.values(), new)):
            return self
        return self.with_outputs(dict(zip(self.outputs, new, strict=True)))


def _restored(
    name: str,
    nodes: Packed,
    outputs: Mapping[str, int],
    inputs: Sequence[int],
    makers: Mapping[sp.Symbol, int],
    lines: Mapping[int, Iterable[Location]],
    doc: str,
) -> Graph:
    """A graph that was pickled, with the lines where its nodes were written."""
    with recording_locations(LocationTable()), making({}):
        values = unpacked(nodes)
    locations = LocationTable()
    everything = _with_bodies(values)
    for place, found in lines.items():
        for location in found:
            locations.record(everything[place], location)
    locations.makers.update({size: values[place] for size, place in makers.items()})
    named = {output: values[place] for output, place in outputs.items()}
    return Graph(name, named, tuple(values[place] for place in inputs), locations, doc)


def _with_bodies(values: Iterable[Value]) -> list[Value]:
    """The values, each followed by the nodes of the graphs in its op."""
    found: list[Value] = []
    pending = list(values)[::-1]
    while pending:
        value = pending.pop()
        found.append(value)
        if type(value.op).within is not Op.within:
            pending += [v for graph in graphs_within(value.op) for v in graph.nodes][::-1]
    return found


def _sizes_of(value: Value) -> set[sp.Symbol]:
    return symbols(d for t in component_types(value.type) for d in t.shape)
