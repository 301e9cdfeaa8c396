"""ONNX files as ONNX files of fewer nodes: rules on the nodes of a file, which keep its numbers."""
