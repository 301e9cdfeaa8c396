"""What each ONNX operator is here, a file a family; importing this fills the table."""

from nncompile.frontends.onnx.entries import (  # noqa: F401  # each fills the table
    activations,
    classic,
    contraction,
    control,
    convolution,
    deformable,
    differentiating,
    elementwise,
    images,
    indexing,
    normalization,
    optimizing,
    quantization,
    randomness,
    recurrent,
    reduction,
    regions,
    sequences,
    shape,
    signals,
)
