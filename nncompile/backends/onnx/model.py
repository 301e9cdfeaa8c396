"""A graph as an ONNX model whose inputs, outputs, dimensions and weights carry the user's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import sympy as sp
from onnx import TensorProto, helper, numpy_helper

from nncompile.backends.onnx.emitter import Emitter, value_info
from nncompile.backends.onnx.kernels import ELEMENT_TYPES
from nncompile.backends.onnx.native.functions import Functions
from nncompile.backends.onnx.native.outlining import with_native_calls
from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.locations import located_nowhere
from nncompile.ir.dims import Dim, product
from nncompile.ir.gc_pause import without_collection
from nncompile.ir.graph import Graph, Input
from nncompile.ir.native import FUNCTIONS_KEY
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type, f64

OPSET = 21
OPSETS = range(17, 27)  # below, layer normalization is no operator; above, there are no kernels


@dataclass(frozen=True)
class ExternalTensor:
    """A weight whose bytes lie in another file, `.safetensors` or plain, beside the model."""

    dtype: DType
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int


Weight = Array | ExternalTensor | Type
"""A weight; of a type alone, it has no elements (see `nncompile.backends.onnx.serialized`)."""


@without_collection
def to_model(
    graph: Graph,
    opset: int = OPSET,
    initializers: Mapping[str, Weight] | None = None,
    metadata: Mapping[str, str] | None = None,
    bounds: dict[Dim, int] | None = None,
    sizes: Mapping[sp.Symbol, int] | None = None,
    kernels: bool = False,
    halves: bool = False,
    threads: int = 0,
) -> onnx.ModelProto:
    """The graph as an ONNX model, for all sizes. How long sums are made depends on their length:
    the model chooses when it runs, but expects the `sizes` given here; and where there
    are `bounds` it takes all other sizes of inputs for small ones, and the bounds up to which what
    was chosen is right are entered there.

    Leaves named in `initializers` become weights inside the model, the others its inputs, in the
    graph's order; nodes carry the user's line and layer in their metadata. With `kernels` parts of
    the graph are calls of native kernels, and functions of the model say what these compute. With
    `halves` sums of products of 16 bits are left to kernels of 16 bits, and are otherwise computed
    in float32 and rounded. With `threads` it is for so many of a processor, and has
    loops that would take long on a GPU.
    Raises `BackendError` for an opset out of range, a weight of another type than its leaf, and
    what has no lowering.
    """
    if opset not in OPSETS:
        raise BackendError(
            f"opset {opset} is not supported", hint=f"choose {OPSETS[0]} to {OPSETS[-1]}"
        )
    weights = dict(initializers or {})
    _check_weights(graph, weights)
    functions = Functions(opset) if kernels else None
    if kernels:
        with located_nowhere():
            graph = with_native_calls(graph, opset)
    options: dict[str, Any] = {"functions": functions, "halves": halves, "threads": threads}
    emitter = Emitter(opset, bounds=bounds, sizes=sizes, **options)
    for name in (*graph.leaves, *graph.outputs):
        emitter.reserve(name)
    inputs = {name: leaf for name, leaf in graph.leaves.items() if name not in weights}
    emitter.numbers.update(
        name
        for name, leaf in graph.leaves.items()
        if name in weights and leaf.dtype is f64 and product(leaf.shape) == 1
    )
    for name, leaf in inputs.items():
        emitter.bind_leaf(name, leaf.type)
    names = _lower(graph, emitter)
    _name_outputs(graph, emitter, names)
    tensors = [_initializer(n, w) for n, w in weights.items() if n in graph.leaves]
    onnx_graph = helper.make_graph(
        emitter.nodes,
        graph.name,
        [value_info(name, leaf.type) for name, leaf in inputs.items()],
        [value_info(name, value.type) for name, value in graph.outputs.items()],
        [*tensors, *emitter.initializers()],
        doc_string=graph.doc or None,
    )
    opsets = [helper.make_opsetid(d, v) for d, v in _domains(emitter, opset).items()]
    model = helper.make_model(
        onnx_graph,
        opset_imports=opsets,
        ir_version=max(10, helper.find_min_ir_version_for([helper.make_opsetid("", opset)])),
        producer_name="nncompile",
        functions=functions.protos if functions else [],
    )
    calls = {FUNCTIONS_KEY: functions.counts} if functions and functions.protos else {}
    if metadata or calls:
        helper.set_model_props(model, {**(metadata or {}), **calls})
    return model


def from_bytes(content: bytes) -> onnx.ModelProto:
    """The model that a file of these bytes holds."""
    model = onnx.ModelProto()
    model.ParseFromString(content)
    return model


def check(model: onnx.ModelProto | bytes) -> None:
    """onnx's full check, shape inference included, of a model or of the bytes of one. Raises
    `BackendError` where it fails."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendError(f"the model is not valid ONNX: {error}") from None


def to_text(model: onnx.ModelProto) -> str:
    """The model in ONNX's own textual form."""
    return str(onnx.printer.to_text(model))


def _domains(emitter: Emitter, opset: int) -> dict[str, int]:
    """The operator sets that the nodes use."""
    return {"": opset} | dict.fromkeys(emitter.domains, 1)


def _lower(graph: Graph, emitter: Emitter) -> dict[Value, Any]:
    names: dict[Value, Any] = {v: v.op.name for v in graph.nodes if isinstance(v.op, Input)}
    emitter.locations = graph.locations
    with located_nowhere():
        emitter.lower_all(graph.nodes, names)
    return names


def _name_outputs(graph: Graph, emitter: Emitter, names: Mapping[Value, Any]) -> None:
    """Gives outputs their names: a node's result is renamed; what is a leaf, a constant or an
    output already is copied."""
    produced = {output for node in emitter.nodes for output in node.output}
    renamed: dict[str, str] = {}
    for name, v in graph.outputs.items():
        source = names[v]
        if source in produced and source not in renamed:
            renamed[source] = name
    are_none = renamed.keys().isdisjoint
    for node in all_nodes(emitter.nodes):
        for field in (node.input, node.output):
            if not are_none(field):  # most are
                field[:] = [renamed.get(name, name) for name in field]
        if node.name in renamed:
            node.name = renamed[node.name]
    outputs = set(renamed.values())
    for name, v in graph.outputs.items():
        if name not in outputs:
            source = renamed.get(names[v], names[v])
            emitter.nodes.append(helper.make_node("Identity", [source], [name], name))


def _check_weights(graph: Graph, weights: Mapping[str, Weight]) -> None:
    for name, weight in weights.items():
        leaf = graph.leaves.get(name)
        if leaf is None:
            continue
        dtype = weight.dtype.numpy if isinstance(weight, ExternalTensor | Type) else weight.dtype
        if dtype != leaf.dtype.numpy or tuple(weight.shape) != leaf.shape:
            raise BackendError(
                f"the weight {name} has the wrong type",
                rows=[("expected", str(leaf.type)), ("got", f"{dtype}{list(weight.shape)}")],
            )


def _initializer(name: str, weight: Weight) -> TensorProto:
    if not isinstance(weight, ExternalTensor | Type):
        return numpy_helper.from_array(np.ascontiguousarray(weight).reshape(weight.shape), name)
    tensor = TensorProto(name=name, data_type=ELEMENT_TYPES[weight.dtype.name], dims=weight.shape)
    if isinstance(weight, Type):
        return tensor
    tensor.data_location = TensorProto.EXTERNAL
    for key in ("location", "offset", "length"):
        tensor.external_data.add(key=key, value=str(getattr(weight, key)))
    return tensor
