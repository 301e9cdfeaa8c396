"""What horizontal fusion joined, apart again: for kernels that take many tensors in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nncompile.diagnostics.locations import current_locations
from nncompile.elementwise.map import Map, mapped
from nncompile.ir.dims import Shape
from nncompile.ir.graph import Graph, Item
from nncompile.ir.op import Value
from nncompile.ir.transform import rebuilt
from nncompile.ops.shape.joining import Concat, Split


def unpack(graph: Graph) -> Graph:
    """The opposite of `pack`: elementwise ops on concatenated tensors, whose results are split like
    these, on the tensors one by one."""
    packed = _packed(graph)
    if not packed:
        return graph
    return graph.mapped(lambda outputs: _unpacked(graph.nodes, packed, outputs))


def _packed(graph: Graph) -> dict[Value, Shape]:
    """The elementwise ops on concatenated tensors whose results are split like these or go into
    such ops, with the sizes of the tensors along the first axis."""
    readers, outputs = graph.readers, set(graph.outputs.values())
    found: dict[Value, Shape] = {}
    for v in graph.nodes:
        sizes = _common_sizes(v, found)
        if sizes and v not in outputs:
            found[v] = sizes
    while True:
        kept = {
            v: sizes
            for v, sizes in found.items()
            if all(a in found or _sizes(a) for a in v.args if a.rank)
            and all(u in found or u.op == Split(0, sizes) for u in readers[v])
        }
        if len(kept) == len(found):
            return kept
        found = kept


def _common_sizes(value: Value, found: Mapping[Value, Shape]) -> Shape | None:
    """The sizes of the parts that all tensors consist of which an elementwise op takes."""
    if not isinstance(value.op, Map) or not value.rank:
        return None
    tensors = [a for a in value.args if a.rank]
    sizes = {found.get(a) or _sizes(a) for a in tensors}
    fits = len(sizes) == 1 and all(a.shape == value.shape for a in tensors)
    return sizes.pop() if fits else None


def _sizes(value: Value) -> Shape | None:
    """The sizes of the parts of a concatenation along the first axis."""
    is_joined = isinstance(value.op, Concat) and value.op.axis == 0
    return tuple(part.shape[0] for part in value.args) if is_joined else None


def _unpacked(
    nodes: Sequence[Value], packed: Mapping[Value, Shape], wanted: Sequence[Value]
) -> list[Value]:
    """The wanted values, with one op for each part in place of those that are packed."""
    new: dict[Value, Value] = {}
    parts: dict[Value, list[Value]] = {}

    def part(a: Value, i: int) -> Value:
        if not a.rank:
            return new[a]
        return parts[a][i] if a in parts else new[a.args[i]]

    with current_locations().following() as site:
        for v in nodes:
            site.node = v
            if isinstance(v.op, Map) and v in packed:
                body, derivatives = v.op.body, v.op.derivatives
                parts[v] = [
                    mapped(body, [part(a, i) for a in v.args], derivatives)
                    for i in range(len(packed[v]))
                ]
            elif isinstance(v.op, Split) and v.args[0] in parts:
                parts[v] = parts[v.args[0]]
            elif isinstance(v.op, Item) and v.args[0] in parts:
                new[v] = parts[v.args[0]][v.op.index]
            else:
                new[v] = rebuilt(v, [new[a] for a in v.args])
    return [new[v] for v in wanted]
