"""Models of other formats as models of ours: `onnx`, the counterpart of the backends."""
