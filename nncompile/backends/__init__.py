"""Lowerings of a graph: `onnx` and `torchscript`, the only importers of those packages."""
