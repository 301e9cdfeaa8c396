"""Models spelled in the kernels that CUDA has.

Files are one for all devices, with the operators that are fastest and exact on the CPU. Where a
session is made on CUDA, nodes that compute with data and have no kernel there are replaced by nodes
that have, and give the same: without it onnxruntime computes them on the CPU, and their tensors
travel to it and back in each run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nncompile.backends.onnx.kernels import ELEMENT_TYPES, signature_of
from nncompile.backends.onnx.protos import (
    attributes_of,
    graphs_within,
    needs,
    opset_of,
    replace_nodes,
)
from nncompile.ir.types import DType
from nncompile.runtime.cuda.graphs import Known, inlined
from nncompile.runtime.cuda.kernels import has_kernel

Spelling = Callable[["Writer"], str | None]
"""The result of nodes that give what a node gives; None where it has to stay as it is."""


def spelled(
    model: onnx.ModelProto, spellings: Mapping[str, Spelling]
) -> tuple[onnx.ModelProto, bool]:
    """The model with other nodes in place of those that CUDA has no kernel for, as far as there are
    `spellings` by operator, with the types of its values; and whether anything was replaced. Calls
    of functions are replaced by what the functions say. A model whose types cannot be inferred
    stays as it is."""
    try:
        inferred = onnx.shape_inference.infer_shapes(inlined(model))
    except (onnx.shape_inference.InferenceError, ValueError):  # ValueError: 2 GB or more
        return model, False
    rewriter = _Rewriter(opset_of(inferred), spellings)
    rewriter.rewrite(inferred.graph, None)
    inferred.graph.initializer.extend(rewriter.constants.values())
    return inferred, rewriter.count > 0 or len(model.functions) > 0


class _Rewriter:
    """Replaces nodes in a graph and those within it."""

    def __init__(self, opset: int, spellings: Mapping[str, Spelling]) -> None:
        self.opset = opset
        self.spellings = spellings
        self.constants: dict[Any, TensorProto] = {}
        self.count = 0

    def rewrite(self, graph: onnx.GraphProto, outer: Known | None) -> None:
        """Replaces what is to be replaced in this graph."""
        known = Known.of(graph, self.opset, outer)
        result: list[onnx.NodeProto] = []
        for node in graph.node:
            for inner in graphs_within(node):
                self.rewrite(inner, known)
            result.extend(self._chosen(node, known) or self._replaced(node, known) or [node])
        replace_nodes(graph, result)
        self._keep_on_device(graph, outer)
        if self.count:
            _drop_unused(graph)

    def _chosen(self, node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
        """The nodes of the branch that is right for all numbers, in place of a choice between that
        and a product, which is faster on a CPU alone: the device would wait for the host to read
        whether the numbers are finite. Nothing where a node is no such choice."""
        branches = {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}
        if [g.name for _, g in sorted(branches.items())] != ["choice", "product"]:
            return []
        self.count += 1
        branch = branches["else_branch"]
        result = branch.output[0].name
        for inner in branch.node:
            for field in (inner.input, inner.output):
                for i, name in enumerate(field):
                    if name == result:
                        field[i] = node.output[0]
        return list(branch.node)

    def _keep_on_device(self, graph: onnx.GraphProto, outer: Known | None) -> None:
        """Has nodes computed on the device that would be taken for computations of sizes."""
        known = Known.of(graph, self.opset, outer)
        made: dict[str, onnx.NodeProto] = {}
        for node, _, given in list(known.placed()):
            for name in given:
                if name not in made:
                    made[name] = self._same(name, known, node)
            for i, name in enumerate(node.input):
                if name in given:
                    node.input[i] = made[name].output[0]
        self.count += len(made)
        if made:
            replace_nodes(graph, [*made.values(), *graph.node])

    def _same(self, name: str, known: Known, node: onnx.NodeProto) -> onnx.NodeProto:
        """What makes an input of the graph a value like any other: a Reshape to its own shape,
        which moves nothing."""
        writer = Writer(node, known, self.constants)
        shape = writer.ints(*[0] * known.ranks[name])
        same = f"{name}/cuda"
        made = helper.make_node("Reshape", [name, shape], [same], same)
        made.metadata_props.extend(node.metadata_props)
        return made

    def _replaced(self, node: onnx.NodeProto, known: Known) -> list[onnx.NodeProto]:
        """What takes the place of a node; nothing where it stays."""
        spelling = self.spellings.get(node.op_type)
        if spelling is None or node.domain or not known.is_data(node) or known.has_kernel(node):
            return []
        writer = Writer(node, known, self.constants)
        result = spelling(writer)
        if result is None:
            return []
        self.count += 1
        return list(writer.finished(result))


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Takes out nodes whose results nothing needs any more."""
    needed = {info.name for info in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(needs(node))
            kept.append(node)
    replace_nodes(graph, reversed(kept))


class Writer:
    """Writes the nodes that take the place of one: each operator is a method that gives the name of
    its result, as that of an emitter does."""

    def __init__(
        self, node: onnx.NodeProto, known: Known, constants: dict[Any, TensorProto]
    ) -> None:
        self.node = node
        self.known = known
        self.inputs = tuple(node.input)
        self.attributes = attributes_of(node)
        self.dtypes = tuple(known.types.get(name) for name in node.input)
        self._constants = constants
        self._nodes: list[onnx.NodeProto] = []

    def __getattr__(self, operator: str) -> Callable[..., str]:
        if not operator[:1].isupper():
            raise AttributeError(operator)

        def write(*inputs: str, **attributes: Any) -> str:
            name = f"{self.node.output[0]}/cuda_{len(self._nodes)}"
            made = helper.make_node(operator, inputs, [name], name, **attributes)
            made.metadata_props.extend(self.node.metadata_props)
            self._nodes.append(made)
            return name

        return write

    def again(self, *inputs: str) -> str:
        """The node itself on other inputs."""
        return self.__getattr__(self.node.op_type)(*inputs, **self.attributes)

    def cast(self, x: str, dtype: DType) -> str:
        """`x` as another element type."""
        return self.Cast(x, to=ELEMENT_TYPES[dtype.name])

    def constant(self, array: Any) -> str:
        """The name of a constant; equal ones are one."""
        array = np.asarray(array)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._constants:
            name = f"cuda/constant_{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name

    def scalar(self, number: Any, dtype: DType) -> str:
        """A scalar constant."""
        return self.constant(np.asarray(number, dtype.numpy))

    def ints(self, *numbers: int) -> str:
        """A constant vector of i64."""
        return self.constant(np.asarray(numbers, np.int64).reshape(len(numbers)))

    def number_of(self, name: str) -> Any:
        """The number that a value is, where it is a constant of one element or what that was
        expanded to."""
        made = self.known.producers.get(name)
        if made is not None and made.op_type == "Expand":
            name = made.input[0]
        tensor = self.known.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        array = numpy_helper.to_array(tensor)
        return array.item() if array.size == 1 else None

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Which inputs are of the type that the kernel is chosen by."""
        signature = signature_of(self.node.op_type, self.known.opset)
        variables = signature.variables(len(self.inputs))
        main = next((v for v in signature.outputs if v in variables), variables[0])
        return tuple(i for i, v in enumerate(variables) if v == main and self.inputs[i])

    @property
    def dtype(self) -> DType | None:
        """That type, where it is known."""
        return self.dtypes[self.places[0]]

    def with_inputs(self, change: Callable[[str], str]) -> str:
        """The node itself with inputs of that type changed."""
        return self.again(
            *(change(x) if i in self.places else x for i, x in enumerate(self.inputs))
        )

    def has_kernel(self, target: DType) -> bool:
        """Whether CUDA has a kernel for the node on another type."""
        types = [target if i in self.places else d for i, d in enumerate(self.dtypes)]
        return has_kernel(self.node.op_type, self.known.opset, types, self.attributes)

    def back(self, result: str) -> str:
        """A result in the type that the node gives."""
        signature = signature_of(self.node.op_type, self.known.opset)
        names = list(self.node.output)
        dtype = dict(signature.results(names, self.dtypes, self.attributes)).get(names[0])
        return result if dtype is None or dtype is not self.dtype else self.cast(result, dtype)

    def finished(self, result: str) -> Iterator[onnx.NodeProto]:
        """The nodes, of which the one that makes `result` has the place of the node."""
        for made in self._nodes:
            if made.output[0] == result:
                made.output[0] = self.node.output[0]
                made.name = self.node.name
            for i, name in enumerate(made.input):
                if name == result:
                    made.input[i] = self.node.output[0]
            yield made
