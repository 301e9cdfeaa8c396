"""What sessions on CUDA need: which kernels onnxruntime has there, models spelled in them, and the
nodes that it leaves to the CPU nevertheless."""
