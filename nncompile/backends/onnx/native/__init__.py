"""Native kernels in ONNX files: calls that say what they mean in standard operators."""
