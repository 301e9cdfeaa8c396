"""Small tensors are updated together: what an optimizer does to each bias is done to all at once.

A node costs the runtime more than a few hundred numbers do. The last elementwise ops before the
outputs, where many small tensors go through the same ones, are made on their concatenation along
the first axis.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass

import sympy as sp

from nncompile.diagnostics.locations import recording_locations
from nncompile.elementwise.expressions import digest
from nncompile.elementwise.map import body_of, is_plain, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.dims import product
from nncompile.ir.graph import Graph, Item
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.joining import Split, concatenate, sections
from nncompile.passes.maps import cost, terms

SMALL = 1024  # elements: beyond, copying costs what the nodes do
# Microseconds of a node, of one more piece in a node that joins or splits, and of an element of it,
# in onnxruntime.
NODE, PIECE, ELEMENT = 0.4, 0.15, 0.0003
_ABSORBING = (MatMul, Gemm, Sum)


def pack(graph: Graph) -> Graph:
    """Joins equal elementwise ops on small tensors, between the last products and the outputs, into
    one op on their concatenation, where that is faster."""
    return _pack(graph, lambda chain: 0.0)


def pack_early(graph: Graph) -> Graph:
    """The same before other passes run, which then see the update of many small tensors once. Only
    where that is faster although products and sums could take some of it along."""
    return _pack(graph, _absorbed)


def _pack(graph: Graph, least: Callable[[Sequence[_Group]], float]) -> Graph:
    """The graph with those chains packed that gain more than the `least` microseconds."""
    packed: dict[Value, Value] = {}
    outputs, table = set(graph.outputs.values()), graph.locations
    for chain in _chains(_groups(graph)):
        if _gain(chain, outputs) > least(chain):
            for group in chain:
                with recording_locations(table), table.located(group.members[0]):
                    parts = _packed(group, packed)
                packed.update(zip(group.members, parts, strict=True))
    if not packed:
        return graph
    return graph.mapped(lambda outputs: replace(outputs, packed, order=graph.nodes))


@dataclass(frozen=True)
class _Group:
    """Values that are one `body`, of `numbers` that they share and of one lane of tensors for each
    further argument: a tensor for each member."""

    body: sp.Expr
    numbers: tuple[Value, ...]
    members: tuple[Value, ...]
    lanes: tuple[tuple[Value, ...], ...]


def _groups(graph: Graph) -> Iterator[_Group]:
    """The groups of equal ops on small tensors, those that others need first.

    Only ops whose results go into outputs and into each other are asked, and those of one height
    joined: none of these can need another, so that no circle comes about.
    """
    heights = _heights(graph)
    by_key: dict[tuple[object, ...], list[tuple[Value, tuple[Value, ...]]]] = {}
    shared: dict[tuple[object, ...], tuple[sp.Expr, tuple[Value, ...]]] = {}
    for value in sorted(heights, key=heights.__getitem__, reverse=True):
        body, numbers, tensors = in_first_order(value)
        key = (heights[value], body, value.dtype, value.shape[1:], *map(id, numbers))
        by_key.setdefault(key, []).append((value, tensors))
        shared[key] = body, numbers
    positions: dict[Value, int] = {}
    for key, entries in by_key.items():
        if len(entries) > 1:
            # In the order of what they are computed from, which then is joined already.
            entries.sort(key=lambda pair: [positions.get(a, -1) for a in pair[1]])
            positions |= {value: i for i, (value, _) in enumerate(entries)}
            members, tensors_of = zip(*entries, strict=True)
            yield _Group(*shared[key], members, tuple(zip(*tensors_of, strict=True)))


def _heights(graph: Graph) -> dict[Value, int]:
    """Of the elementwise ops on small tensors whose results go into such ops and outputs alone:
    the longest way to an output."""
    heights: dict[Value, int] = dict.fromkeys(graph.outputs.values(), 0)
    blocked: set[Value] = set()
    for value in reversed(graph.nodes):
        if value in blocked or not _is_small(value):
            blocked.add(value)
            blocked.update(value.args)
        else:
            above = heights[value] + 1
            for a in value.args:
                if heights.get(a, 0) < above:
                    heights[a] = above
    return {value: height for value, height in heights.items() if value not in blocked}


def _is_small(value: Value) -> bool:
    type_ = value.type
    if not is_plain(value) or not type_.shape:
        return False
    size = product(type_.shape)
    if not isinstance(size, int) or not 0 < size <= SMALL:
        return False
    tensors = [a.type for a in value.args if a.type.shape]
    return bool(tensors) and all(t is type_ or t == type_ for t in tensors)


def in_first_order(value: Value) -> tuple[sp.Expr, tuple[Value, ...], tuple[Value, ...]]:
    """The formula with its numbers first and its tensors in an order that equal ones share."""
    args = value.args
    are_tensors = tuple([bool(a.type.shape) for a in args])
    body, numbers, order = _first_order(body_of(value), are_tensors)
    return body, tuple([args[i] for i in numbers]), tuple([args[i] for i in order])


@functools.lru_cache(maxsize=4096)
def _first_order(
    body: sp.Expr, are_tensors: tuple[bool, ...]
) -> tuple[sp.Expr, tuple[int, ...], tuple[int, ...]]:
    """The order of the tensors whose formula comes first, by what is the same in every process,
    behind that of the numbers."""
    numbers = tuple(i for i, is_tensor in enumerate(are_tensors) if not is_tensor)
    tensors = tuple(i for i, is_tensor in enumerate(are_tensors) if is_tensor)
    renamed = {
        order: body.xreplace(
            {placeholder(i): placeholder(j) for j, i in enumerate((*numbers, *order))}
        )
        for order in itertools.permutations(tensors)
    }
    order = min(renamed, key=lambda order: digest(renamed[order]))
    return renamed[order], numbers, order


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
    gain = sum(NODE * (count - 1) * cost(g.body, (*g.numbers, *_first_tensors(g))) for g in chain)
    packed = {g.members for g in chain}
    inputs = {lane for g in chain for lane in g.lanes if lane not in packed}
    split = [g for g in chain if not outputs.isdisjoint(g.members)]
    elements = sum(math.prod(v.shape) for v in chain[0].members)
    return gain - (len(inputs) + len(split)) * (NODE + PIECE * count + ELEMENT * elements)


def _first_tensors(group: _Group) -> tuple[Value, ...]:
    return tuple(lane[0] for lane in group.lanes)


def _absorbed(chain: Sequence[_Group]) -> float:
    """Microseconds of the nodes that products or sums would take along, see `updates`: a factor and
    a sum for each that only a linear formula needs."""
    readers = Counter(lane for g in chain for lane in g.lanes)
    lanes = [
        lane
        for g in chain
        for i, lane in enumerate(g.lanes, len(g.numbers))
        if readers[lane] == 1 and isinstance(lane[0].op, _ABSORBING) and terms(g.body, i)
    ]
    return 2 * NODE * len(lanes) * len(chain[0].members)


def _packed(group: _Group, packed: dict[Value, Value]) -> tuple[Value, ...]:
    """The members as parts of one op on what their tensors are joined to."""
    tensors = [_joined([packed.get(v, v) for v in lane]) for lane in group.lanes]
    result = mapped(group.body, (*group.numbers, *tensors))
    return sections(result, [v.shape[0] for v in group.members], 0)


def _joined(tensors: Sequence[Value]) -> Value:
    source = tensors[0].args[0] if isinstance(tensors[0].op, Item) else None
    if source is not None and isinstance(source.op, Split) and source.op.axis == 0:
        parts = range(len(source.type.items))
        if [v.op for v in tensors] == [Item(i) for i in parts] and all(
            v.args[0] is source for v in tensors
        ):
            return source.args[0]
    return concatenate(list(tensors), 0)
