"""Which parts of a state a step may write over while it runs.

onnxruntime writes a result where it is bound, whether or not that memory is one of an input which
is yet to be read. It is safe where the data themselves set the order: all that reads the input has
to be done before what makes its next value begins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from graphlib import TopologicalSorter

import onnx

from nncompile.backends.onnx.protos import attributes_of, taken_within
from nncompile.ir.native import DOMAIN

# A result of these may lie where the input does; what reads it reads the input.
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
# These read an element before they write the one in its place, and nothing else after it.
_ELEMENTWISE = frozenset({
    *(("", "Add"), ("", "Sub"), ("", "Mul"), ("", "Div")),
    ("com.microsoft", "GatedAdd"),
})  # fmt: skip


def overwritten(model: onnx.ModelProto, state_map: Mapping[str, str]) -> frozenset[str]:
    """The inputs among the keys whose next values, the outputs that they are mapped to, may be
    written into their memory, in whatever order nodes run that the data allow. `model` is what
    onnxruntime runs: its own rewrites are done."""
    graph = _Readers(model.graph)
    return frozenset(name for name, result in state_map.items() if graph.allows(name, result))


class _Readers:
    """What reads each tensor of a graph, and what is done before each node."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.captured = {name for node in self.nodes for name in taken_within(node)}
        self.producers = {name: i for i, n in enumerate(self.nodes) for name in n.output if name}
        self.readers: dict[str, set[int]] = defaultdict(set)
        for i, node in enumerate(self.nodes):
            for name in node.input:
                self.readers[name].add(i)
        self.types = {info.name: info.type for info in (*graph.input, *graph.output)}
        self.before = self._ancestors()

    def _ancestors(self) -> list[int]:
        """Of each node the set of those whose results it needs, as the bits of a number."""
        needs = {
            i: {self.producers[name] for name in (*node.input, *taken_within(node))
                if name in self.producers}
            for i, node in enumerate(self.nodes)
        }  # fmt: skip
        before = [0] * len(self.nodes)
        for i in TopologicalSorter(needs).static_order():
            for earlier in needs[i]:
                before[i] |= before[earlier] | 1 << earlier
        return before

    def allows(self, name: str, result: str) -> bool:
        """Whether the result may be written over that input."""
        maker = self.producers.get(result)
        if maker is None or self.types[name] != self.types[result]:
            return False
        views = self._views(name)
        if not self.captured.isdisjoint(views):
            return False
        return all(
            self._reads_first(reader, maker, tensor == name, name, result)
            for tensor in views
            for reader in self.readers[tensor]
        )

    def _reads_first(self, reader: int, maker: int, itself: bool, name: str, result: str) -> bool:
        """Whether a node that reads the input, or a view of it, has read it when the maker of the
        result writes."""
        if reader != maker:
            return bool(self.before[maker] >> reader & 1)
        node = self.nodes[reader]
        if node.domain == DOMAIN:
            return itself and _is_of_its_group(node, name, result)
        return itself and (node.domain, node.op_type) in _ELEMENTWISE

    def _views(self, name: str) -> set[str]:
        """The tensor, and all that may lie where it does."""
        found, left = {name}, [name]
        while left:
            for reader in self.readers[left.pop()]:
                if self.nodes[reader].op_type in _VIEWS:
                    new = {*self.nodes[reader].output} - found
                    found |= new
                    left.extend(new)
        return found


def _is_of_its_group(node: onnx.NodeProto, name: str, result: str) -> bool:
    """Whether a native kernel may write the result over that input: Elementwise reads all of a
    block before it writes any, of each of its groups of tensors apart."""
    about = attributes_of(node)
    if not node.op_type.startswith("Elementwise"):
        return False
    shared, own, results = about["shared"], about["own"], about["results"]
    (*places,) = (i for i, tensor in enumerate(node.input) if tensor == name)
    group = [*node.output].index(result) // len(results)
    is_own = len(places) == 1 and (places[0] - shared) // own == group
    return is_own and places[0] >= shared and min(results) >= shared + own
