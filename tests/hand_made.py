"""ONNX models that are made by hand, for the runtime."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Info = tuple[str, int, list[Any]]


def build(
    nodes: list[onnx.NodeProto],
    inputs: list[Info],
    outputs: list[Info],
    constants: dict[str, np.ndarray] | None = None,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*x) for x in inputs],
        [helper.make_tensor_value_info(*x) for x in outputs],
        [numpy_helper.from_array(x, name) for name, x in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    return model


def affine() -> onnx.ModelProto:
    """y = x·2 + b, and the mean of y."""
    return build(
        [
            helper.make_node("Mul", ["x", "two"], ["scaled"]),
            helper.make_node("Add", ["scaled", "b"], ["y"]),
            helper.make_node("ReduceMean", ["y"], ["mean"], keepdims=0),
        ],
        [("x", FLOAT, ["batch", 3]), ("b", FLOAT, [3])],
        [("y", FLOAT, ["batch", 3]), ("mean", FLOAT, [])],
        {"two": np.float32(2)},
    )


def halving_step(**changed: Any) -> onnx.ModelProto:
    """w halves (through transposes, which break when read and written in place) and step counts;
    y = x·w is a result with the batch's size, `kept` one whose size depends on the data."""
    return build(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ReduceMean", ["y"], ["loss"], keepdims=0),
            helper.make_node("Compress", ["x", "mask"], ["kept"], axis=0),
            helper.make_node("Transpose", ["w"], ["turned"]),
            helper.make_node("Mul", ["turned", "rate"], ["halved"]),
            helper.make_node("Transpose", ["halved"], ["w.next"]),
            helper.make_node("Add", ["step", "one"], ["step.next"]),
        ],
        [
            ("x", FLOAT, ["batch", 300]),
            ("w", FLOAT, [300, 200]),
            ("step", INT64, []),
            ("rate", FLOAT, []),
            ("mask", BOOL, ["batch"]),
        ],
        [
            ("loss", FLOAT, []),
            ("w.next", FLOAT, [300, 200]),
            ("y", FLOAT, ["batch", 200]),
            ("step.next", INT64, []),
            ("kept", FLOAT, [None, 300]),
        ],
        {"one": np.array(1)},
        {"nncompile.state": json.dumps({"w": "w.next", "step": "step.next"})} | changed,
    )
