"""Graphs as ONNX models of standard operators."""

from nncompile.backends.onnx.emitter import Emitter
from nncompile.backends.onnx.model import OPSET, ExternalTensor, check, to_model, to_text

__all__ = ["OPSET", "Emitter", "ExternalTensor", "check", "to_model", "to_text"]
