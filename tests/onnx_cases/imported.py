"""A case as a graph: what its file computes, of leaves that its inputs are."""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime

import nncompile.frontends.onnx.entries  # noqa: F401 (fills the table)
from nncompile.backends.onnx.model import to_model
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.refusals import Refusal
from nncompile.frontends.onnx.tensors import Tensor, array_of, dtype_from
from nncompile.ir.graph import Graph, Input
from nncompile.ir.types import Type
from nncompile.program.model import RANDOM_STATE
from tests.sessions import plain_session


class Stopped(Exception):
    """Nodes of a case were refused."""

    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__()
        self.refusals = refusals
        first = refusals[0]
        self.reason = f"{first.op}: {first.reason}"


@dataclass(frozen=True)
class Imported:
    """The graph of a case, what its leaves are fed, and its results: a name of an output of the
    graph, a list of results, or None."""

    graph: Graph
    feeds: dict[str, Any]
    results: list[Any]
    draws: bool = False  # whether there are random numbers in it


def imported(model: onnx.ModelProto, given: dict[str, Any], bound: Collection[str]) -> Imported:
    """The case with these inputs; those that are `bound` are numbers of the graph."""
    importer = Importer(model, "case.onnx", training=False)
    environment: dict[str, Any] = {
        t.name: Tensor.of_numbers(array_of(t)) for t in model.graph.initializer
    }
    feeds: dict[str, Any] = {}
    leaves = []

    def leaf(name: str, array: Any) -> Any:
        if isinstance(array, list):
            return [leaf(f"{name}_{i}", x) for i, x in enumerate(array)]
        if array is None:
            return None
        dtype = dtype_from(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
        if name in bound:
            return Tensor.of_numbers(array)
        value = Input(name, Type(dtype, array.shape))()
        leaves.append(value)
        feeds[name] = array
        return Tensor(value.type, None, lambda: value, name)

    environment |= {name: leaf(name, x) for name, x in given.items()}
    importer.nodes(model.graph.node, environment, {}, importer.opsets)
    if importer.refusals:
        raise Stopped(importer.refusals)
    found = [importer.fetched(environment, o.name) for o in model.graph.output]
    outputs: dict[str, Any] = {}

    def put(x: Any) -> Any:
        if isinstance(x, list):
            return [put(item) for item in x]
        if x is None:
            return None
        name = f"result_{len(outputs)}"
        outputs[name] = x.value
        return name

    results = [put(x) for x in found]
    graph = Graph("case", outputs, tuple(leaves))
    feeds |= {name: np.array(0) for name in RANDOM_STATE if name in graph.leaves}
    return Imported(graph, feeds, results, importer.draws)


def resolved(model: onnx.ModelProto, given: dict[str, Any], bound: set[str]) -> Imported:
    """The case with as few inputs bound as it can be imported with; those are added to `bound`.
    Raises `Stopped` where it cannot be imported."""
    while True:
        try:
            return imported(model, given, bound)
        except Stopped as stopped:
            needed = _needed(stopped.refusals, given) - bound
            if not needed:
                raise
            bound |= needed


def _needed(refusals: list[Refusal], given: dict[str, Any]) -> set[str]:
    """The inputs that have to be known for these nodes; all that may say a size, where it is not an
    input itself that is missing."""
    missing = {r.needs for r in refusals if r.needs}
    named = {name for name in missing if name in given}
    if named == missing:
        return named
    return named | {n for n, x in given.items() if _may_say_a_size(x)}


def _may_say_a_size(x: Any) -> bool:
    return isinstance(x, np.ndarray) and (x.size == 1 or (x.dtype.kind in "biu" and x.size <= 64))


def in_onnxruntime(case: Imported) -> list[Any]:
    """The results of a case, computed by onnxruntime."""
    outputs = case.graph.outputs
    session = plain_session(to_model(case.graph))
    needed = {i.name for i in session.get_inputs()}
    values = {n: _ort_value(x) for n, x in case.feeds.items() if n in needed}
    results = session.run_with_ort_values(list(outputs), values)
    arrays = {n: _array(r, outputs[n].type) for n, r in zip(outputs, results, strict=True)}

    def get(x: Any) -> Any:
        return [get(i) for i in x] if isinstance(x, list) else None if x is None else arrays[x]

    return [get(x) for x in case.results]


def _ort_value(x: Any) -> Any:
    if x.dtype.name == "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), 16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x).reshape(x.shape))


def _array(result: Any, type_: Type) -> Any:
    if type_.dtype.name == "bfloat16":
        size = 2 * int(np.prod(result.shape()))
        raw = np.frombuffer(ctypes.string_at(result.data_ptr(), size), np.uint16)
        return raw.view(type_.dtype.numpy).reshape(result.shape())
    return result.numpy()
