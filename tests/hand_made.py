"""ONNX models that are made by hand, for the runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from tests.onnx_files import parsed


def build(
    graph: str, constants: Mapping[str, Any] = {}, metadata: Mapping[str, str] = {}
) -> onnx.ModelProto:
    """The model of a graph in the textual syntax of onnx, in the opset that is exported."""
    model = parsed(graph, constants, opset=21)
    onnx.helper.set_model_props(model, dict(metadata))
    return model


def affine() -> onnx.ModelProto:
    """y = x·2 + b, and the mean of y."""
    text = """
        test (float[batch, 3] x, float[3] b) => (float[batch, 3] y, float mean) {
            scaled = Mul (x, two)
            y = Add (scaled, b)
            mean = ReduceMean <keepdims = 0> (y)
        }"""
    return build(text, {"two": np.float32(2)})


def halving_step(**changed: Any) -> onnx.ModelProto:
    """w halves (through transposes, which break when read and written in place) and step counts;
    y = x·w is a result with the batch's size, `kept` one whose size depends on the data."""
    text = """
        test (float[batch, 300] x, float[300, 200] w, int64 step, float rate, bool[batch] mask)
            => (float loss, float[300, 200] "w.next", float[batch, 200] y, int64 "step.next",
                float[?, 300] kept) {
            y = MatMul (x, w)
            loss = ReduceMean <keepdims = 0> (y)
            kept = Compress <axis = 0> (x, mask)
            turned = Transpose (w)
            halved = Mul (turned, rate)
            "w.next" = Transpose (halved)
            "step.next" = Add (step, one)
        }"""
    state = json.dumps({"w": "w.next", "step": "step.next"})
    return build(text, {"one": np.array(1)}, {"nncompile.state": state} | changed)
