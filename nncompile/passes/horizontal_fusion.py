"""Small vectors are updated together: what an optimizer does to each bias is done to all at once.

A node costs the runtime more than a few hundred numbers do. The last elementwise ops before the
outputs, where many small vectors go through the same ones, are made on their concatenation.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import sympy as sp

from nncompile.elementwise.expressions import digest
from nncompile.elementwise.map import body_of, is_plain, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.graph import Graph, Item
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ops.shape.joining import Split, concatenate, sections
from nncompile.passes.maps import cost

SMALL = 2048  # elements: beyond, copying costs what a node does
# Microseconds of a node, and of one more piece in a node that joins or splits, in onnxruntime.
NODE, PIECE = 0.4, 0.15
BLOCKED = -1


def pack(graph: Graph) -> Graph:
    """Joins equal elementwise ops on small vectors, between the last products and the outputs, into
    one op on their concatenation, where that is faster."""
    packed: dict[Value, Value] = {}
    outputs = set(graph.outputs.values())
    for chain in _chains(_groups(graph)):
        if _gain(chain, outputs) > 0:
            for group in chain:
                packed.update(zip(group.members, _packed(group, packed), strict=True))
    return graph.mapped(lambda outputs: replace(outputs, packed)) if packed else graph


@dataclass(frozen=True)
class _Group:
    """Values that are one `body`, of `numbers` that they share and of one lane of vectors for each
    further argument: a vector for each member."""

    body: sp.Expr
    numbers: tuple[Value, ...]
    members: tuple[Value, ...]
    lanes: tuple[tuple[Value, ...], ...]


def _groups(graph: Graph) -> Iterator[_Group]:
    """The groups of equal ops on small vectors, those that others need first.

    Only ops whose results go into outputs and into each other are asked, and those of one height
    joined: none of these can need another, so that no circle comes about.
    """
    heights = _heights(graph)
    by_key: dict[tuple[object, ...], list[tuple[Value, tuple[Value, ...]]]] = {}
    shared: dict[tuple[object, ...], tuple[sp.Expr, tuple[Value, ...]]] = {}
    for value in sorted(heights, key=lambda v: -heights[v]):
        body, numbers, vectors = in_first_order(value)
        key = (heights[value], body, value.dtype, *map(id, numbers))
        by_key.setdefault(key, []).append((value, vectors))
        shared[key] = body, numbers
    positions: dict[Value, int] = {}
    for key, entries in by_key.items():
        if len(entries) > 1:
            # In the order of what they are computed from, which then is joined already.
            entries.sort(key=lambda pair: [positions.get(a, -1) for a in pair[1]])
            positions |= {value: i for i, (value, _) in enumerate(entries)}
            members, vectors_of = zip(*entries, strict=True)
            yield _Group(*shared[key], members, tuple(zip(*vectors_of, strict=True)))


def _heights(graph: Graph) -> dict[Value, int]:
    """Of the elementwise ops on small vectors whose results go into such ops and outputs alone:
    the longest way to an output."""
    heights: dict[Value, int] = dict.fromkeys(graph.outputs.values(), 0)
    for value in reversed(graph.nodes):
        height = heights.get(value, BLOCKED)
        if height == BLOCKED or not _is_small(value):
            heights[value] = height = BLOCKED
        for a in value.args:
            known = heights.get(a, 0)
            heights[a] = BLOCKED if BLOCKED in (height, known) else max(known, height + 1)
    return {value: height for value, height in heights.items() if height != BLOCKED}


def _is_small(value: Value) -> bool:
    if not is_plain(value) or value.rank != 1 or not isinstance(value.shape[0], int):
        return False
    vectors = [a for a in value.args if a.rank]
    return (
        0 < value.shape[0] <= SMALL and bool(vectors) and all(a.type == value.type for a in vectors)
    )


def in_first_order(value: Value) -> tuple[sp.Expr, tuple[Value, ...], tuple[Value, ...]]:
    """The formula with its numbers first and its vectors in an order that equal ones share."""
    indices = range(len(value.args))
    numbers = tuple(i for i in indices if not value.args[i].rank)
    vectors = tuple(i for i in indices if value.args[i].rank)
    body, order = _first_order(body_of(value), numbers, vectors)
    return body, tuple(value.args[i] for i in numbers), tuple(value.args[i] for i in order)


@functools.lru_cache(maxsize=4096)
def _first_order(
    body: sp.Expr, numbers: tuple[int, ...], vectors: tuple[int, ...]
) -> tuple[sp.Expr, tuple[int, ...]]:
    """The order of the vectors whose formula comes first, by what is the same in every process."""
    renamed = {
        order: body.xreplace(
            {placeholder(i): placeholder(j) for j, i in enumerate((*numbers, *order))}
        )
        for order in itertools.permutations(vectors)
    }
    order = min(renamed, key=lambda order: digest(renamed[order]))
    return renamed[order], order


def _chains(groups: Iterator[_Group]) -> list[list[_Group]]:
    """Groups that are computed from each other, together."""
    chains: dict[tuple[Value, ...], list[_Group]] = {}
    for group in groups:
        before = {id(chains[lane]): chains[lane] for lane in group.lanes if lane in chains}
        chain = [member for known in before.values() for member in known] + [group]
        chains |= {known.members: chain for known in chain}
    return list({id(chain): chain for chain in chains.values()}.values())


def _gain(chain: Sequence[_Group], outputs: Set[Value]) -> float:
    """Microseconds saved: nodes that fall away, less those that join and split."""
    count = len(chain[0].members)
    gain = sum(NODE * (count - 1) * cost(g.body, (*g.numbers, *_first_vectors(g))) for g in chain)
    packed = {g.members for g in chain}
    inputs = {lane for g in chain for lane in g.lanes if lane not in packed}
    split = [g for g in chain if not outputs.isdisjoint(g.members)]
    return gain - (len(inputs) + len(split)) * (NODE + PIECE * count)


def _first_vectors(group: _Group) -> tuple[Value, ...]:
    return tuple(lane[0] for lane in group.lanes)


def _packed(group: _Group, packed: dict[Value, Value]) -> tuple[Value, ...]:
    """The members as parts of one op on what their vectors are joined to."""
    vectors = [_joined([packed.get(v, v) for v in lane]) for lane in group.lanes]
    result = mapped(group.body, (*group.numbers, *vectors))
    return sections(result, [v.shape[0] for v in group.members], 0)


def _joined(vectors: Sequence[Value]) -> Value:
    source = vectors[0].args[0] if isinstance(vectors[0].op, Item) else None
    if source is not None and isinstance(source.op, Split):
        parts = range(len(source.type.items))
        if [v.op for v in vectors] == [Item(i) for i in parts] and all(
            v.args[0] is source for v in vectors
        ):
            return source.args[0]
    return concatenate(list(vectors), 0)
