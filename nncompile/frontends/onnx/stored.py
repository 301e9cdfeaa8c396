"""The tensors that a file stores, read, and put in the place of what nodes take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import onnx

from nncompile.backends.onnx.protos import all_nodes, replace_nodes
from nncompile.diagnostics.reading import unload
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.linear import weights_in
from nncompile.frontends.onnx.quantized import with_masters
from nncompile.frontends.onnx.refusals import Refusal, Refused
from nncompile.frontends.onnx.roles import Stored, added_to, consumers, reached
from nncompile.frontends.onnx.tensors import Tensor, array_of, dtype_from
from nncompile.ir.basic import stored
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, dtype_of
from nncompile.ops.shape.reshape import transpose
from nncompile.runtime.array_files import memory

_LARGE = 1 << 18  # bytes of a tensor after which the file need not stay in memory


def stored_tensors(
    importer: Importer, graph: onnx.GraphProto, directory: str, environment: dict[str, Any],
    apart: Mapping[str, memoryview],
) -> list[Stored]:  # fmt: skip
    """The tensors that the file stores and that some node takes, as initializers, whose bytes may
    be `apart`, or constants. In the place of one that cannot be read, the environment has its
    refusal."""
    constants = list(_constants(graph))
    taken = {c.name for c in constants}
    nodes = [n for n in graph.node if not (n.op_type == "Constant" and taken & {*n.output})]
    replace_nodes(graph, nodes)
    tensors = [*graph.initializer, *constants]
    by = consumers(graph, importer.functions)
    kept = {o.name for o in graph.output}
    found: list[Stored] = []
    left = memory()
    for tensor in tensors:
        if tensor.name not in by and tensor.name not in kept:
            continue
        try:
            left -= _bytes(tensor)
            if left < 0:
                raise Refused(
                    f"this machine does not have the memory for {tensor.name!r} and what is before"
                )
            array = read_tensor(tensor, directory, {} if tensor.name in taken else apart)
        except Refused as error:
            refusal = Refusal("initializer", 0, (), tensor.name, error.reason)
            importer.refusals.append(refusal)
            environment[tensor.name] = refusal
            continue
        tensor.ClearField("raw_data")  # so that a large file is not in memory twice
        takers = by.get(tensor.name, [])
        one = Stored(tensor.name, array, reached(tensor.name, by), takers=takers)
        one.is_written = tensor.name in taken
        found.append(one)
    names = {s.name for s in found}
    for s in _of_linear_models(graph):
        if s.name not in by and s.name not in names:
            names.add(s.name)
            found.append(s)
    for s in found:
        s.beside = added_to(s.uses, by, names)
    results = kept | {
        o.name for n in all_nodes(graph.node) for a in n.attribute for o in a.g.output
    }
    for s, floats in with_masters([s for s in found if s.name not in results], by):
        s.integers, s.array = s.array, floats
    return found


def _of_linear_models(graph: onnx.GraphProto) -> Iterator[Stored]:
    for node in graph.node:
        for i, (name, attribute, shape) in enumerate(weights_in(node), 1):
            array = np.array(attribute.floats, np.float32).reshape(shape)
            yield Stored(name, array, [(node, i)])


def read_tensor(tensor: onnx.TensorProto, directory: str, apart: Mapping[str, memoryview]) -> Array:
    """The numbers of a tensor, which may be `apart` from it."""
    content = None if tensor.HasField("raw_data") else apart.get(tensor.name)
    array = array_of(tensor, directory, content)
    if content is not None and len(content) > _LARGE:
        unload(content)
    return array


def _bytes(tensor: onnx.TensorProto) -> int:
    """How many bytes of other files a tensor takes."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return 0
    count: int = max(math.prod(tensor.dims), 0)
    return count * dtype_from(tensor.data_type).numpy.itemsize


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Constants of several floats, which may be weights as initializers are."""
    for node in graph.node:
        if node.op_type != "Constant" or node.domain or len(node.output) != 1:
            continue
        for attribute in node.attribute:
            if attribute.name != "value" or attribute.t.data_type not in _FLOATS:
                continue
            if math.prod(attribute.t.dims) > 1:
                tensor = deepcopy(attribute.t)
                tensor.name = node.output[0]
                yield tensor


_FLOATS = frozenset(
    getattr(onnx.TensorProto, name) for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
)


def put_weights(tensors: Sequence[Stored], environment: dict[str, Any]) -> dict[str, Value]:
    """Puts stored tensors into the environment, and returns the first values of those that are
    leaves."""
    initial: dict[str, Value] = {}
    values: dict[int, Value] = {}
    for s in tensors:
        if s.role == "constant":
            numbers_of = s.array if s.integers is None else s.integers
            environment[s.name] = Tensor.of_numbers(numbers_of)
            environment[s.name].name = s.name
            continue
        if s.same_as is not None:
            value = values[id(s.same_as)]
            value = transpose(value) if s.transposed else value
        else:
            initial[s.path] = stored(s.array)
            value = Input(s.path, initial[s.path].type, s.role)()
        values[id(s)] = value
        environment[s.name] = Tensor.of(value)
        if s.integers is not None:
            environment[s.name] = Tensor(Type(dtype_of(s.integers), s.integers.shape))
            environment[s.name].master = value
    return initial
