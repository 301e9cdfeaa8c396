"""Writing an ONNX file, with its weights beside it where they were before or are too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from nncompile.frontends.onnx.tensors import array_of

LIMIT = 2**31 - 2**20
"""Bytes of weights above which a model does not fit in one file, with room for its graph."""


def write_model(model: onnx.ModelProto, path: Path, directory: str) -> list[Path]:
    """Writes a model, whose weights in other files are in `directory`, and returns the files. They
    get a file of their own, `OUT.onnx.data`, where they had one."""
    total, is_external = 0, False
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            is_external = True
            stored = numpy_helper.from_array(np.asarray(array_of(tensor, directory)), tensor.name)
            tensor.CopyFrom(stored)
        total += len(tensor.raw_data)
    if not is_external and total <= LIMIT:
        path.write_bytes(model.SerializeToString())
        return [path]
    data = path.with_name(f"{path.name}.data")
    convert_model_to_external_data(model, location=data.name)
    onnx.save_model(model, path)
    return [path, data]
