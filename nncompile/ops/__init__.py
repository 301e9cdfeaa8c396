"""The ops: one class knows all of an operation. The functions here apply them, under numpy's
names. Importing this package registers every op, operator and method."""

from nncompile.ir.barriers import barrier
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.broadcasting import broadcast_to, full, ones_like, zeros_like
from nncompile.ir.dispatch import register
from nncompile.ops import array_functions as arrays
from nncompile.ops import image_functions as images
from nncompile.ops.array_functions import *  # noqa: F403
from nncompile.ops.contraction.attention import attention
from nncompile.ops.contraction.einsum import dot, einsum, outer, tensordot
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.convolution.functions import conv, conv_transpose
from nncompile.ops.core.annotations import custom_gradient
from nncompile.ops.core.counting import iota
from nncompile.ops.core.modes import while_training
from nncompile.ops.image_functions import *  # noqa: F403
from nncompile.ops.images.resize import resize
from nncompile.ops.loops.scan import scan
from nncompile.ops.normalization.batch import batch_norm
from nncompile.ops.normalization.layer import group_norm, instance_norm, layer_norm, rms_norm
from nncompile.ops.pooling.adaptive import (
    adaptive_average_pool,
    adaptive_max_pool,
    global_average_pool,
    global_max_pool,
)
from nncompile.ops.pooling.average import average_pool
from nncompile.ops.pooling.maximum import max_pool
from nncompile.ops.random.generator import (
    bernoulli,
    dropout,
    normal,
    permutation,
    randint,
    random_bits,
    random_key,
    seed_leaf,
    step_leaf,
    truncated_normal,
    uniform,
)
from nncompile.ops.reduction.cumulative import cumsum
from nncompile.ops.reduction.extremes import argmax, argmin, max, min
from nncompile.ops.reduction.products import prod
from nncompile.ops.reduction.softmax import log_softmax, softmax
from nncompile.ops.reduction.statistics import all, any, mean, norm, std, var
from nncompile.ops.reduction.sums import logsumexp, sum
from nncompile.ops.reduction.totals import pooled, ratio, total
from nncompile.ops.shape.gathering import (
    add_along_axis,
    one_hot,
    scatter_add,
    take,
    take_along_axis,
)
from nncompile.ops.shape.getitem import getitem
from nncompile.ops.shape.joining import concatenate, shape_value, split, stack
from nncompile.ops.shape.padding import pad
from nncompile.ops.shape.reshape import (
    expand_dims,
    flatten,
    moveaxis,
    ravel,
    repeat,
    reshape,
    squeeze,
    swapaxes,
    tile,
    transpose,
)
from nncompile.ops.shape.slicing import flip
from nncompile.ops.shape.sorting import argsort, sort, top_k

__all__ = [
    "adaptive_average_pool",
    "adaptive_max_pool",
    "add_along_axis",
    "all",
    "any",
    "argmax",
    "argmin",
    "argsort",
    "attention",
    "average_pool",
    "barrier",
    "batch_norm",
    "bernoulli",
    "broadcast_to",
    "cast",
    "concatenate",
    "const",
    "conv",
    "conv_transpose",
    "cumsum",
    "custom_gradient",
    "dot",
    "dropout",
    "einsum",
    "expand_dims",
    "flatten",
    "flip",
    "full",
    "gemm",
    "getitem",
    "global_average_pool",
    "global_max_pool",
    "group_norm",
    "instance_norm",
    "iota",
    "layer_norm",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "max_pool",
    "mean",
    "min",
    "moveaxis",
    "norm",
    "normal",
    "one_hot",
    "ones_like",
    "outer",
    "pad",
    "permutation",
    "pooled",
    "prod",
    "randint",
    "random_bits",
    "random_key",
    "ratio",
    "ravel",
    "repeat",
    "reshape",
    "resize",
    "rms_norm",
    "scan",
    "scatter_add",
    "seed_leaf",
    "shape_value",
    "size_value",
    "softmax",
    "sort",
    "split",
    "squeeze",
    "stack",
    "std",
    "step_leaf",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "tensordot",
    "tile",
    "top_k",
    "total",
    "transpose",
    "truncated_normal",
    "uniform",
    "var",
    "while_training",
    "zeros_like",
]
__all__ += arrays.__all__
__all__ += images.__all__

for _name in __all__:  # so that a value knows that they are functions where it is asked for them
    register(_name, globals()[_name])
