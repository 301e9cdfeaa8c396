"""What each ONNX operator is here, a file a family; importing this fills the table."""

from nncompile.frontends.onnx.entries import (
    classic,
    contraction,
    control,
    convolution,
    elementwise,
    images,
    indexing,
    normalization,
    quantization,
    recurrent,
    reduction,
    sequences,
    shape,
)

__all__ = [
    "classic",
    "contraction",
    "control",
    "convolution",
    "elementwise",
    "images",
    "indexing",
    "normalization",
    "quantization",
    "recurrent",
    "reduction",
    "sequences",
    "shape",
]
