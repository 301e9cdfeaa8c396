"""Whole ONNX files through the importer: `python -m tests.onnx_models FILE...`."""
