"""onnx's own node cases, through the importer and onnxruntime: `python -m tests.onnx_cases`."""
