"""Graphs as ONNX models of standard operators."""

from nncompile.backends.onnx.emitter import Emitter
from nncompile.backends.onnx.model import (
    OPSET,
    ExternalTensor,
    check,
    from_bytes,
    to_model,
    to_text,
)
from nncompile.backends.onnx.serialized import pieces, without_weights, write
from nncompile.backends.onnx.training_info import add_training_info, combined

__all__ = [
    "OPSET",
    "Emitter",
    "ExternalTensor",
    "add_training_info",
    "check",
    "combined",
    "from_bytes",
    "pieces",
    "to_model",
    "to_text",
    "without_weights",
    "write",
]
