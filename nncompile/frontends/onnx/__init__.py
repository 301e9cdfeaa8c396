"""ONNX files as models: what a file holds becomes parameters, states and a graph of ours."""
