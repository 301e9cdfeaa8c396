"""What a graph is made of, as its author sees it: layers, and within them the functions called.

The nodes of a graph know the line and the layer in which they were written. An outline puts those
of one layer, or of one call of a function, together as a block. In a layer's, there are others.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from nncompile.diagnostics.locations import Location
from nncompile.ir.dims import Dim, dim
from nncompile.ir.graph import Graph, Input, Item, input_of, macs_of
from nncompile.ir.op import Value
from nncompile.ir.printer import expression, inline_text
from nncompile.ir.transform import dependent

Kind = Literal["layer", "function", "node"]
_OPERANDS = "xyz"
# Which nodes are one block: those of a layer, of a function that a line calls, or one node alone.
_Key = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Some nodes of a graph that belong together.

    `name` is that of the layer, of the function, or the node as mathematics; `label` the class of
    the layer. `values` are the nodes, arguments first, `results` those that others need.
    `parameters` are the leaves that it is the first to use, and `shares` whether it uses those of
    its own layer again.
    """

    kind: Kind
    name: str
    label: str
    path: str
    place: str
    values: tuple[Value, ...]
    results: tuple[Value, ...]
    parameters: Mapping[str, Value]
    shares: bool
    blocks: tuple[Block, ...] = ()

    @cached_property
    def macs(self) -> Dim:
        """The multiplications whose products are added up (see `Op.macs`)."""
        return dim(sum(macs_of(v) for v in self.values))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Block]]:
        """The block and those within it, each with how deep it stands."""
        yield depth, self
        for block in self.blocks:
            yield from block.walk(depth + 1)


def outline(graph: Graph, classes: Mapping[str, str], hidden: Iterable[str] = ()) -> list[Block]:
    """The blocks of a graph, each after those that it needs. `classes` are those of the layers by
    path. What depends on no leaf, or on `hidden` ones alone, is left out: constants, masks and
    random keys."""
    return _Outliner(graph, classes, frozenset(hidden)).blocks


@dataclass
class _Outliner:
    graph: Graph
    classes: Mapping[str, str]
    hidden: frozenset[str]
    data: set[Value] = field(default_factory=set)
    users: dict[Value, list[Value]] = field(default_factory=lambda: defaultdict(list))
    owners: dict[Value, list[Value]] = field(default_factory=lambda: defaultdict(list))

    @property
    def blocks(self) -> list[Block]:
        order = self.graph.nodes
        leaves = [v for v in order if isinstance(v.op, Input) and v.op.name not in self.hidden]
        inputs = [v for v in leaves if input_of(v).kind == "input"]
        self.data = dependent(order, inputs or leaves)
        known = dependent(order, leaves)
        shown = [v for v in order if v in known and not isinstance(v.op, Input)]
        consumers: dict[Value, list[Value]] = {leaf: [] for leaf in leaves}
        for v in shown:
            for a in dict.fromkeys(v.args):
                self.users[a].append(v)
                if a in consumers:
                    consumers[a].append(v)
        for leaf, values in consumers.items():
            if values and input_of(leaf).kind != "input":
                layer = input_of(leaf).name.rpartition(".")[0]
                within = (v for v in values if _is_within(self._path(v), layer))
                self.owners[next(within, values[0])].append(leaf)
        return self._blocks(shown, ())

    def _location(self, v: Value) -> Location | None:
        return self.graph.locations.location(v.args[0] if isinstance(v.op, Item) else v)

    def _parts(self, v: Value) -> tuple[str, ...]:
        """The names of the layers around a node; the first part of a scope is the model."""
        location = self._location(v)
        return tuple(location.scope.split("/")[1:]) if location else ()

    def _path(self, v: Value) -> str:
        return ".".join(self._parts(v))

    def _key(self, v: Value, parents: tuple[str, ...]) -> _Key:
        parts, location = self._parts(v), self._location(v)
        depth = len(parents)
        if len(parts) > depth:
            return "layer", parts[depth]
        around = {self.classes.get(".".join(parts[: i + 1])) for i in range(depth)}
        if location and location.call and location.call not in around:
            return "function", location.file, location.line, location.call
        return "node", id(v.args[0] if isinstance(v.op, Item) else v)

    def _blocks(self, values: Sequence[Value], parents: tuple[str, ...]) -> list[Block]:
        keys = {v: self._key(v, parents) for v in values}
        group = self._connected(values, keys)
        members = _ordered(values, group)
        while members is None:  # two groups need each other: what is in the circle is taken apart
            for v in _circular(values, group):
                group[v] = group[v.args[0]] if isinstance(v.op, Item) else v
            members = _ordered(values, group)
        return [self._block(keys[nodes[0]], nodes, parents) for nodes in members]

    def _connected(self, values: Sequence[Value], keys: Mapping[Value, _Key]) -> dict[Value, Value]:
        """For each node one that stands for its group: nodes of one key that are connected, so that
        two calls of a layer are two. What follows from parameters alone goes with its first use."""
        parent = {v: v for v in values}

        def root(v: Value) -> Value:
            while parent[v] is not v:
                parent[v] = v = parent[parent[v]]
            return v

        for v in values:
            for a in v.args:
                if a in parent and keys[a] == keys[v] and a in self.data:
                    parent[root(v)] = root(a)
        for v in reversed(values):
            if v not in self.data:
                uses = (u for u in self.users[v] if u in parent and keys[u] == keys[v])
                first = next(uses, v)
                parent[root(v)] = root(first)
        return {v: root(v) for v in values}

    def _block(self, key: _Key, values: Sequence[Value], parents: tuple[str, ...]) -> Block:
        inside = set(values)
        outputs = set(self.graph.outputs.values())
        results = [
            v
            for v in values
            if v in outputs or any(u not in inside for u in self.users[v]) or not self.users[v]
        ]
        kind: Kind = key[0]
        around = (*parents, key[1]) if kind == "layer" else parents
        path = ".".join(around)
        location = self._location(values[0])
        owned = {input_of(x).name: x for v in values for x in self.owners.get(v, ())}
        used = [a for v in values for a in v.args if isinstance(a.op, Input)]
        own = [input_of(a).name for a in used if input_of(a).kind != "input"]
        shares = kind == "layer" and any(
            name not in owned and _is_within(name.rpartition(".")[0], path) for name in own
        )
        return Block(
            kind,
            key[1] if kind == "layer" else key[3] if kind == "function" else _text(values[0]),
            self.classes.get(path, "") if kind == "layer" else "",
            path,
            location.place if location else "",
            tuple(values),
            tuple(results),
            owned,
            shares,
            () if kind == "node" else tuple(self._within(values, around, kind)),
        )

    def _within(
        self, values: Sequence[Value], around: tuple[str, ...], kind: Kind
    ) -> Sequence[Block]:
        if kind == "layer":
            return self._blocks(values, around)
        nodes = [v for v in values if not isinstance(v.op, Item)]
        if len(nodes) == 1:
            return ()
        group = {v: v.args[0] if isinstance(v.op, Item) else v for v in values}
        members = _ordered(values, group) or []
        return [self._block(("node", id(nodes[0])), nodes, around) for nodes in members]


def _is_within(path: str, layer: str) -> bool:
    return path == layer or path.startswith(f"{layer}.")


def _needs(values: Sequence[Value], group: Mapping[Value, Value]) -> dict[Value, set[Value]]:
    """The groups that each group needs."""
    needs: dict[Value, set[Value]] = {group[v]: set() for v in values}
    for v in values:
        needs[group[v]] |= {group[a] for a in v.args if a in group and group[a] is not group[v]}
    return needs


def _ordered(values: Sequence[Value], group: Mapping[Value, Value]) -> list[list[Value]] | None:
    """The groups, each after those that it needs and else by its first node; None where some need
    each other."""
    needs = _needs(values, group)
    needed_by: dict[Value, list[Value]] = defaultdict(list)
    for g, others in needs.items():
        for other in others:
            needed_by[other].append(g)
    members: dict[Value, list[Value]] = defaultdict(list)
    first: dict[Value, int] = {}
    for i, v in enumerate(values):
        members[group[v]].append(v)
        first.setdefault(group[v], i)
    names = {i: g for g, i in first.items()}
    missing = {g: len(others) for g, others in needs.items()}
    ready = [first[g] for g, count in missing.items() if not count]
    heapq.heapify(ready)
    order: list[list[Value]] = []
    while ready:
        g = names[heapq.heappop(ready)]
        order.append(members[g])
        for other in needed_by[g]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, first[other])
    return order if len(order) == len(members) else None


def _circular(values: Sequence[Value], group: Mapping[Value, Value]) -> list[Value]:
    """The nodes of the groups that are in circles or between them."""
    needs = _needs(values, group)
    while True:
        needed = {other for others in needs.values() for other in others}
        ends = {g for g, others in needs.items() if not others or g not in needed}
        if not ends:
            return [v for v in values if group[v] in needs]
        needs = {g: others - ends for g, others in needs.items() if g not in ends}


def _text(v: Value) -> str:
    """A node as mathematics of x, y and z, and else the name of its op."""
    if isinstance(v.op, Item):
        v = v.args[0]
    letters = iter(_OPERANDS)
    names: dict[Value, str] = {}
    for a in v.args:
        known = input_of(a).name.rpartition(".")[2] if isinstance(a.op, Input) else inline_text(a)
        names.setdefault(a, known or next(letters, "…"))
    if v.op.expression(list(names.values())) is None:
        return v.op.label
    return expression(v, names)
