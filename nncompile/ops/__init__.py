"""The op cards: one class knows all of an operation; the functions here apply them, under numpy's
names. Importing this package registers every card, operator and method."""

import nncompile.ops.scan_slopes  # noqa: F401 (the reverse rule of scan is called by name)
from nncompile.ops import arrays, images
from nncompile.ops.adaptive_pooling import (
    adaptive_average_pool,
    adaptive_max_pool,
    global_average_pool,
    global_max_pool,
)
from nncompile.ops.arrays import *  # noqa: F403
from nncompile.ops.attention import attention
from nncompile.ops.average_pooling import average_pool
from nncompile.ops.basic import (
    barrier,
    broadcast_to,
    cast,
    const,
    full,
    iota,
    ones_like,
    shape_value,
    size_value,
    zeros_like,
)
from nncompile.ops.contract import gemm, matmul
from nncompile.ops.convolution_functions import conv, conv_transpose
from nncompile.ops.cumulative import cumsum
from nncompile.ops.einsum import dot, einsum, outer, tensordot
from nncompile.ops.getitem import getitem
from nncompile.ops.images import *  # noqa: F403
from nncompile.ops.index import (
    add_along_axis,
    argsort,
    one_hot,
    scatter_add,
    sort,
    take,
    take_along_axis,
    top_k,
)
from nncompile.ops.joining import concatenate, split, stack
from nncompile.ops.layer_normalization import (
    group_norm,
    instance_norm,
    layer_norm,
    rms_norm,
)
from nncompile.ops.marks import custom_gradient
from nncompile.ops.modes import while_training
from nncompile.ops.normalization import batch_norm
from nncompile.ops.padding import pad
from nncompile.ops.pooling import max_pool
from nncompile.ops.products import prod
from nncompile.ops.random import (
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
from nncompile.ops.reduce import argmax, argmin, logsumexp, max, min, sum
from nncompile.ops.resize import resize
from nncompile.ops.scan import scan
from nncompile.ops.shape import (
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
from nncompile.ops.slicing import flip
from nncompile.ops.softmax import log_softmax, softmax
from nncompile.ops.statistics import all, any, mean, norm, std, var
from nncompile.ops.totals import pooled, ratio, total
from nncompile.values import register

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
