"""What is known of the values of an ONNX graph, and of those around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import onnx
from onnx import TensorProto
from onnx.inliner import inline_local_functions

from nncompile.backends.onnx.kernels import BY_ELEMENT_TYPE
from nncompile.backends.onnx.protos import all_nodes, attributes_of, needs
from nncompile.ir.types import DType, bf16, f16
from nncompile.runtime.cuda.kernels import HOST_INPUTS, SIZES, has_kernel

_SMALL = 100  # elements of a constant that onnxruntime takes for sizes


class Placed(NamedTuple):
    """A node, and whether onnxruntime computes it on the CPU. It does so also where it has a
    kernel: what is made of sizes, of small constants and of *inputs of the graph* it takes for a
    computation of sizes (`GetCpuPreferredNodes` in its source). Those of the inputs are `given`
    that are more than a number: what is made of them beforehand has the node on the device."""

    node: onnx.NodeProto
    on_host: bool
    given: tuple[str, ...] = ()


@dataclass
class Known:
    """The values that nodes of one graph may use, by name: types and ranks as far as they are
    known, which depend on elements of inputs and not only on sizes, and which are constants."""

    graph: onnx.GraphProto
    opset: int
    types: dict[str, DType] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    data: set[str] = field(default_factory=set)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, graph: onnx.GraphProto, opset: int, outer: Known | None = None) -> Self:
        """What is known of a graph, whose types were inferred, within what is around it."""
        known = cls(graph, opset)
        if outer is not None:
            known.types, known.ranks = dict(outer.types), dict(outer.ranks)
            known.data, known.constants = set(outer.data), dict(outer.constants)
            known.producers = dict(outer.producers)
        known.inputs = frozenset(info.name for info in graph.input)
        for tensor in graph.initializer:
            known.constants[tensor.name] = tensor
            known._declare(tensor.name, tensor.data_type, len(tensor.dims))
        known.inputs -= known.constants.keys()
        for info in (*graph.input, *graph.output, *graph.value_info):
            of = info.type.tensor_type
            rank = len(of.shape.dim) if of.HasField("shape") else None
            known._declare(info.name, of.elem_type, rank)
        known.data |= known.inputs
        for node in graph.node:
            known.producers.update((name, node) for name in node.output)
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                known.constants[node.output[0]] = node.attribute[0].t
            if known.is_data(node):
                known.data.update(node.output)
        return known

    def _declare(self, name: str, element_type: int, rank: int | None) -> None:
        if element_type in BY_ELEMENT_TYPE:
            self.types[name] = BY_ELEMENT_TYPE[element_type]
        if rank is not None:
            self.ranks[name] = rank

    def is_data(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes with elements of inputs."""
        if node.op_type in SIZES:
            return False
        return any(name in self.data for name in needs(node))

    def is_of_numbers(self, node: onnx.NodeProto) -> bool:
        """Whether all data that a node computes with are single numbers."""
        return all(self.ranks.get(name) == 0 for name in node.input if name in self.data)

    def has_kernel(self, node: onnx.NodeProto) -> bool:
        """Whether the CUDA provider has a kernel for a node."""
        if node.domain:
            return False
        types = [self.types.get(name) for name in node.input]
        return has_kernel(node.op_type, self.opset, types, attributes_of(node))

    def placed(self) -> Iterator[Placed]:
        """Where the nodes of this graph go, in their order."""
        on_host: set[str] = set()
        for node in self.graph.node:
            if node.op_type in SIZES:
                on_host.update(node.output)
                yield Placed(node, True)
                continue
            is_known = self.has_kernel(node)
            follows = not on_host.isdisjoint(node.input)
            given: tuple[str, ...] = ()
            if follows and is_known and self._prefers_host(node, on_host):
                given = tuple(n for n in node.input if n in self.inputs and self.ranks.get(n))
                is_known = False
            if follows and not is_known and not given:
                on_host.update(node.output)
            yield Placed(node, not is_known, given)

    def _prefers_host(self, node: onnx.NodeProto, on_host: set[str]) -> bool:
        read_there = HOST_INPUTS.get(node.op_type, frozenset())
        for i, name in enumerate(node.input):
            if self.types.get(name) in (f16, bf16):
                return False
            if not name or name in self.inputs or self._is_small(name):
                continue
            if name not in on_host or i in read_there:
                return False
        return True

    def _is_small(self, name: str) -> bool:
        tensor = self.constants.get(name)
        return tensor is not None and math.prod(tensor.dims) <= _SMALL


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what functions say in place of their calls, whose nodes have the lines of the
    calls."""
    if not model.functions:
        return model
    whole = deepcopy(model)
    functions = {(f.domain, f.name): f for f in model.functions}
    for number, call in enumerate(all_nodes(whole.graph.node)):
        function = functions.get((call.domain, call.op_type))
        if function is not None:
            own = whole.functions.add()
            own.CopyFrom(function)
            own.name = call.op_type = f"{function.name}__{number}"
            for node in own.node:
                node.metadata_props.extend(call.metadata_props)
    return inline_local_functions(whole)
