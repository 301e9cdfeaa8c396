"""The functions that networks are made of; all of them are public."""

from nncompile.ir.barriers import barrier
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.convolution.functions import conv, conv_transpose
from nncompile.ops.core.annotations import custom_gradient
from nncompile.ops.core.modes import while_training
from nncompile.ops.images.resize import resize
from nncompile.ops.loops.scan import scan
from nncompile.ops.normalization.functions import batch_norm
from nncompile.ops.normalization.layer import group_norm, instance_norm, layer_norm, rms_norm
from nncompile.ops.pooling.adaptive import (
    adaptive_average_pool,
    adaptive_max_pool,
    global_average_pool,
    global_max_pool,
)
from nncompile.ops.pooling.average import average_pool
from nncompile.ops.pooling.maximum import max_pool
from nncompile.ops.reduction.softmax import log_softmax, softmax
from nncompile.ops.reduction.sums import logsumexp
from nncompile.ops.reduction.totals import pooled, ratio, total
from nncompile.ops.shape.gathering import one_hot, scatter_add
from nncompile.ops.shape.sorting import top_k

__all__ = [
    "adaptive_average_pool",
    "adaptive_max_pool",
    "average_pool",
    "barrier",
    "batch_norm",
    "conv",
    "conv_transpose",
    "custom_gradient",
    "gemm",
    "global_average_pool",
    "global_max_pool",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "one_hot",
    "pooled",
    "ratio",
    "resize",
    "rms_norm",
    "scan",
    "scatter_add",
    "softmax",
    "top_k",
    "total",
    "while_training",
]
