"""Elementwise ops that follow each other, as calls of the native kernel `Elementwise`, which goes
through memory once for all of them.

Each op has a level, which is above that of its arguments unless both are elementwise and of one
shape. What is connected on one level is one call: no way leads from it through other ops back to
it, as that would lead to a higher level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

from nncompile.backends.onnx.native.ordering import Cluster, in_one_order
from nncompile.diagnostics.locations import current_locations, located
from nncompile.elementwise.map import Map
from nncompile.ir.basic import Cast
from nncompile.ir.dims import product
from nncompile.ir.graph import Graph, items
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt
from nncompile.ir.types import f32
from nncompile.ops.loops.outlined import Elementwise, closed
from nncompile.passes.horizontal_fission import unpack
from nncompile.passes.maps import cost

FEWEST = 2  # operations on tensors that are worth a call, and
FEWEST_ON_NUMBERS = 4  # those on single numbers, which take no longer than a node does
SMALL = 2**16  # elements: larger tensors have calls of their own, while they are in the cache

LARGE = 2**20  # bytes of state that no first or second cache holds

Supports = Callable[[Value], bool]


def elementwise_calls(graph: Graph, supports: Supports) -> Graph:
    """The graph with calls of the kernel in place of elementwise ops that it `supports`."""
    if any(v.op.makes for v in graph.nodes):  # of which arguments alone do not tell the order
        return graph
    graph = unpack(graph)
    candidates = {v for v in graph.nodes if isinstance(v.op, Map | Cast) and supports(v)}
    outputs = set(graph.outputs.values())
    while True:
        levels = _levels(graph, candidates)
        clusters = _clusters(graph.nodes, candidates, levels, outputs)
        unfit = {v for c in clusters for v in c.results if v.dtype is not f32}
        if not unfit:
            break
        candidates -= unfit
    clusters = [c for c in clusters if _is_worth_it(c)]
    if not clusters:
        return graph
    return graph.mapped(lambda found: _rebuilt(graph.nodes, found, levels, clusters))


def _joins(a: Value, v: Value, candidates: Set[Value]) -> bool:
    """Whether an argument may be computed together with what needs it."""
    return a in candidates and v in candidates and a.shape == v.shape


def _levels(graph: Graph, candidates: Set[Value]) -> dict[Value, int]:
    """The level of each node: the lowest one, or a higher one on which others of its kind need
    it."""
    levels: dict[Value, int] = {}
    nodes, readers = graph.nodes, graph.readers
    for v in nodes:
        levels[v] = max((levels[a] + (not _joins(a, v, candidates)) for a in v.args), default=0)
    for v in reversed(nodes):
        if v not in candidates or not readers[v]:
            continue
        latest = min(levels[u] - (not _joins(v, u, candidates)) for u in readers[v])
        if any(levels[u] == latest and _joins(v, u, candidates) for u in readers[v]):
            levels[v] = latest
    return levels


class _Sets:
    """Disjoint sets of values, each with a leader."""

    def __init__(self, values: Iterable[Value]) -> None:
        self._above = {v: v for v in values}

    def leader(self, v: Value) -> Value:
        while self._above[v] is not v:
            self._above[v] = self._above[self._above[v]]
            v = self._above[v]
        return v

    def join(self, v: Value, others: Iterable[Value]) -> None:
        for other in others:
            self._above[self.leader(other)] = self.leader(v)


def _clusters(
    nodes: Sequence[Value],
    candidates: Set[Value],
    levels: Mapping[Value, int],
    outputs: Set[Value],
) -> list[Cluster]:
    """What is connected on one level."""
    sets = _Sets(v for v in nodes if v in candidates)
    for v in candidates:
        sets.join(v, (a for a in v.args if _joins(a, v, candidates) and levels[a] == levels[v]))
    members: dict[Value, list[Value]] = {}
    for v in nodes:
        if v in candidates:
            members.setdefault(sets.leader(v), []).append(v)
    inside = {v: key for key, group in members.items() for v in group}
    needed = set(outputs)
    for v in nodes:
        needed.update(a for a in v.args if inside.get(a) is not inside.get(v, v))
    return [
        Cluster(
            tuple(group),
            tuple(dict.fromkeys(a for v in group for a in v.args if inside.get(a) is not key)),
            tuple(v for v in group if v in needed),
        )
        for key, group in members.items()
    ]


def _is_worth_it(cluster: Cluster) -> bool:
    operations = (cost(v.op.body, v.args) if isinstance(v.op, Map) else 1 for v in cluster.members)
    return sum(operations) >= (FEWEST if cluster.members[0].rank else FEWEST_ON_NUMBERS)


def _rebuilt(
    nodes: Sequence[Value],
    wanted: Sequence[Value],
    levels: Mapping[Value, int],
    clusters: Sequence[Cluster],
) -> list[Value]:
    """The wanted values, with calls in place of the clusters."""
    last = _last(nodes, clusters)
    of = {v: c for c in clusters for v in c.members}
    new: dict[Value, Value] = {}
    sites = current_locations()

    kept = set(wanted)
    state = sum(_bytes(v) for c in clusters for v in c.results if v in kept)

    def state_bytes(cluster: Cluster) -> int:
        return 0 if kept.isdisjoint(cluster.results) else state

    def make(v: Value) -> None:
        with located(sites.location(v)):
            if v not in of:
                new[v] = rebuilt(v, [new[a] for a in v.args])
            elif not of[v].results or of[v].results[0] not in new:
                _, ordered = in_one_order(of[v])  # so that equal ones have one function
                new.update(_called([ordered], (), new, state_bytes(ordered)))

    waiting: dict[Value, None] = {}
    for v in sorted(nodes, key=levels.__getitem__):  # keeps the order within a level
        if v in last or any(a in waiting for a in v.args):
            waiting[v] = None
        else:
            make(v)
    for group, shared in _groups({id(of[v]): of[v] for v in last}.values()):
        with located(sites.location(group[0].results[0])):
            new.update(_called(group, shared, new, state_bytes(group[0])))
    for v in waiting:
        if v not in last:
            make(v)
    return [new[v] for v in wanted]


def _bytes(v: Value) -> int:
    size = product(v.shape)
    return size * v.dtype.numpy.itemsize if isinstance(size, int) else 0


def _groups(clusters: Iterable[Cluster]) -> Iterator[tuple[list[Cluster], list[Value]]]:
    """Equal clusters, and the numbers that they share."""
    groups: dict[object, list[Cluster]] = {}
    for cluster in clusters:
        key, ordered = in_one_order(cluster)
        groups.setdefault(key, []).append(ordered)
    for group in groups.values():
        yield group, [a for a in group[0].arguments if not a.rank] if len(group) > 1 else []


def _last(nodes: Sequence[Value], clusters: Sequence[Cluster]) -> dict[Value, None]:
    """The members of clusters of small tensors from which no way leads to another cluster."""
    of = {v: c for c in clusters for v in c.members}
    leads: set[Value] = set()  # to a cluster
    for v in reversed(nodes):
        for a in v.args:
            if v in leads or (v in of and of.get(a) is not of[v]):
                leads.add(a)
    for cluster in clusters:
        if not leads.isdisjoint(cluster.members):
            leads.update(cluster.members)
    small = (v for c in clusters if _is_small(c) for v in c.members)
    return dict.fromkeys(v for v in small if v not in leads)


def _is_small(cluster: Cluster) -> bool:
    size = product(cluster.members[0].shape)
    return cluster.members[0].rank > 0 and isinstance(size, int) and 0 < size <= SMALL


def _called(
    group: Sequence[Cluster],
    shared: Sequence[Value],
    new: Mapping[Value, Value],
    bytes_of_state: int = 0,
) -> dict[Value, Value]:
    """The results of equal clusters, from one call. It is told how large the whole state is, which
    decides whether results stay in the cache until the next step."""
    first = group[0]
    common = set(shared)
    own = [a for a in first.arguments if a not in common]
    body = closed((*shared, *own), first.results)
    arguments = [new[a] for a in shared]
    for cluster in group:
        arguments += [new[a] for a in cluster.arguments if a not in common]
    options = (("together", bytes_of_state),) if bytes_of_state > LARGE else ()
    op = Elementwise(body, options=options, shared=len(shared), groups=len(group))
    results = [v for cluster in group for v in cluster.results]
    return dict(zip(results, items(apply(op, *arguments)), strict=True))
