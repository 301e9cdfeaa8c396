"""Files in onnxruntime's own format, which its smallest builds read."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from nncompile.diagnostics.errors import BackendError
from nncompile.runtime.session import OPTIMIZATIONS, RUN_ERRORS, reason_of_runtime


def write_ort(model: bytes, file: Path) -> None:
    """Writes an ONNX model in the format of `.ort` files, optimized for any processor. Raises
    `BackendError` where onnxruntime cannot."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # The level above lays tensors out for this processor.
    options.graph_optimization_level = OPTIMIZATIONS["extended"]
    options.optimized_model_filepath = str(file)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except RUN_ERRORS as error:
        reason = reason_of_runtime(error)
        raise BackendError(f"onnxruntime cannot write its own format: {reason}") from error
