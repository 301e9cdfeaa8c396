"""What each ONNX operator is here, a file a family; importing this fills the table."""

from nncompile.frontends.onnx.entries import (
    activations,
    classic,
    contraction,
    control,
    convolution,
    elementwise,
    images,
    indexing,
    normalization,
    optimizing,
    quantization,
    recurrent,
    reduction,
    sequences,
    shape,
    signals,
)

__all__ = [
    "activations",
    "classic",
    "contraction",
    "control",
    "convolution",
    "elementwise",
    "images",
    "indexing",
    "normalization",
    "optimizing",
    "quantization",
    "recurrent",
    "reduction",
    "sequences",
    "shape",
    "signals",
]
