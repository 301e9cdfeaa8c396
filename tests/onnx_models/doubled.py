"""A file of which all floats are double, computed by onnxruntime, or by onnx's reference in numpy
where that has no kernels of double."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import CompileError
from nncompile.frontends.onnx.original import Kept
from nncompile.runtime import Session
from tests.onnx_models.examples import Case

_SINGLE, _DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
_TYPES = ("to", "dtype", "output_dtype")  # attributes that are element types
ROUNDED = ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul")


class Erf(OpRun):  # type: ignore[misc]  # it has no types
    """onnx's own rounds to single."""

    op_domain = ""

    def _run(self, x: Any) -> Any:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Doubled:
    """The outputs of a file as functions of its tensors. Its tensors that are parameters are
    inputs; `kept` says which. `by` is what computes it."""

    def __init__(self, file: Path, kept: tuple[Kept, ...]) -> None:
        proto = onnx.load(file)
        self.kept = kept
        nodes = {n.output[0]: n for n in all_nodes(proto.graph.node) if n.output}
        if any(n.op_type in ROUNDED for n in nodes.values()):
            raise NotImplementedError("what is rounded has no differences")
        for one in kept:
            for output, i in one.users:
                nodes[output].input[i] = _own(one)
        self.stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        for node in list(proto.graph.node):
            if node.op_type == "Constant" and any(node.output[0] == _own(k) for k in kept):
                proto.graph.node.remove(node)
        _double(proto.graph)
        names = {_own(k) for k in kept}
        left = [t for t in proto.graph.initializer if t.name not in names]
        del proto.graph.initializer[:], proto.graph.value_info[:]
        proto.graph.initializer.extend(left)
        formals = [i for i in proto.graph.input if i.name not in names]
        del proto.graph.input[:]
        proto.graph.input.extend(formals)
        for name in sorted(names):
            proto.graph.input.append(onnx.helper.make_tensor_value_info(name, _DOUBLE, None))
        for output in proto.graph.output:
            output.ClearField("type")
        self.outputs = [o.name for o in proto.graph.output]
        self.proto, self.by = proto, ""
        self._run: Any = None

    def __call__(self, weights: Mapping[str, Any], feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, of weights and states by path."""
        given = {n: x.astype(np.float64) if x.dtype.kind == "f" else x for n, x in feeds.items()}
        for kept in self.kept:
            x = np.asarray(weights[kept.path], np.float64)
            given[_own(kept)] = np.ascontiguousarray(x.T if kept.is_transposed else x)
        if self._run is None:
            self._run = self._chosen(given)
        return self._run(given)

    def agrees(self, weights: Mapping[str, Any], case: Case) -> bool:
        """Whether it computes what onnxruntime does of the file as it is, but for rounding: onnx's
        reference does not know all that onnxruntime does."""
        try:
            found = self(weights, case.feeds)
        except Exception:  # of the reference, which raises whatever numpy does
            return False
        return all(
            np.shape(x) == y.shape and np.allclose(x, y, 1e-4, 1e-4 * np.abs(y).max(initial=0))
            for x, y in zip(found, case.expected, strict=True)
        )

    def _chosen(self, given: Mapping[str, Any]) -> Any:
        try:
            session = Session(self.proto, threads=1, optimization="none")
            session.run(given)
        except CompileError:
            self.by = "onnx's reference"
            evaluator = ReferenceEvaluator(self.proto, new_ops=[Erf])
            return lambda feeds: evaluator.run(None, feeds)
        self.by = "onnxruntime"
        return lambda feeds: list(session.run(feeds).values())


def _double(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _double_tensor(tensor)
    for formal in (*graph.input, *graph.output):
        if formal.type.tensor_type.elem_type == _SINGLE:
            formal.type.tensor_type.elem_type = _DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i == _SINGLE:
                attribute.i = _DOUBLE
            _double_tensor(attribute.t)
            if attribute.HasField("g"):
                _double(attribute.g)


def _double_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == _SINGLE:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _own(kept: Kept) -> str:
    return f"{kept.name} of {kept.users[0]}" if kept.users else kept.name
