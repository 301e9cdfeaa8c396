"""Graphs with native kernels: what passes have made of a graph, cut into calls."""

from __future__ import annotations

from typing import Any

from nncompile.backends.onnx.emitter import Emitter
from nncompile.backends.onnx.native.elementwise import elementwise_calls
from nncompile.backends.onnx.native.losses import loss_calls
from nncompile.backends.onnx.native.program import LETTERS, Lowered, program
from nncompile.backends.onnx.native.recurrences import recurrent_calls
from nncompile.backends.onnx.native.scatters import scatter_calls
from nncompile.ir.graph import Graph
from nncompile.ir.op import Op, Value
from nncompile.ir.types import DType, Type


def with_native_calls(graph: Graph, opset: int) -> Graph:
    """The graph with ops for which there are native kernels, where it has parts that are such."""
    known: dict[Any, bool] = {}

    def supports(value: Value) -> bool:
        dtypes = tuple(a.dtype for a in value.args)
        key = value.op, dtypes
        if key not in known:
            known[key] = _has_program(value.op, dtypes, value.dtype, opset)
        return known[key]

    graph = loss_calls(scatter_calls(recurrent_calls(graph)))
    return elementwise_calls(graph, supports)


def _has_program(op: Op, dtypes: tuple[DType, ...], dtype: DType, opset: int) -> bool:
    """Whether the kernel `Elementwise` has the operations of an elementwise op."""
    if any(d not in LETTERS for d in (*dtypes, dtype)):
        return False
    emitter = Emitter(opset)
    types = tuple(Type(d, (2,)) for d in dtypes)
    inputs = emitter.formals("value", types, sized=False)
    emitter.types, emitter.type = types, Type(dtype, (2,))
    result = op.onnx(emitter, *inputs)
    lowered = Lowered(inputs, emitter.nodes, emitter.constants, [result], emitter.element_types)
    return program(lowered) is not None
