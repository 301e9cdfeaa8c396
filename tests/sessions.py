"""Sessions of onnxruntime as anybody makes them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort


def plain_session(
    source: Path | onnx.ModelProto, optimized: bool = True, threads: int = 1
) -> ort.InferenceSession:
    """A model on the CPU, by itself or as it is; nothing is printed of what is wrong with it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = source if isinstance(source, Path) else source.SerializeToString()
    return ort.InferenceSession(content, options, ["CPUExecutionProvider"])
