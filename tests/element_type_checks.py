"""The types of 16 bits, and what onnxruntime computes."""

from __future__ import annotations

import numpy as np

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.types import bf16, f16
from nncompile.runtime.session import Session

HALVES = [f16, bf16]


def computed(graph: Graph, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    return Session(to_model(graph)).run(feeds)
