"""The functions of arrays, under numpy's names; all of them are public."""

from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import broadcast_to, full, ones_like, zeros_like
from nncompile.ops.contraction.distances import cdist
from nncompile.ops.contraction.einsum import dot, einsum, outer, tensordot
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.counting import iota
from nncompile.ops.indexing.scattering import put_along_axis, scatter
from nncompile.ops.indexing.searching import bincount, histogram, isin, searchsorted
from nncompile.ops.linear_algebra.determinants import det, logdet, slogdet
from nncompile.ops.linear_algebra.matrices import cross, diag, diagonal, kron, trace, tril, triu
from nncompile.ops.linear_algebra.systems import eye, inv, matrix_power, solve
from nncompile.ops.linear_algebra.triangular import cholesky, solve_triangular
from nncompile.ops.loops.running import cummax, cummin, cumprod, logcumsumexp
from nncompile.ops.reduction.cumulative import cumsum
from nncompile.ops.reduction.extremes import argmax, argmin
from nncompile.ops.reduction.order_statistics import kthvalue, median, quantile
from nncompile.ops.reduction.products import prod
from nncompile.ops.reduction.statistics import mean, norm, std, var
from nncompile.ops.shape.arranging import diff, meshgrid, roll, rot90
from nncompile.ops.shape.gathering import take, take_along_axis
from nncompile.ops.shape.joining import concatenate, split, stack
from nncompile.ops.shape.padding import pad
from nncompile.ops.shape.reshape import (
    expand_dims,
    moveaxis,
    ravel,
    repeat,
    reshape,
    squeeze,
    swapaxes,
    tile,
    transpose,
)
from nncompile.ops.shape.selecting import argwhere, flatnonzero, masked_select, nonzero
from nncompile.ops.shape.slicing import flip
from nncompile.ops.shape.sorting import argsort, sort

__all__ = [
    "argmax",
    "argmin",
    "argsort",
    "argwhere",
    "bincount",
    "broadcast_to",
    "cast",
    "cdist",
    "cholesky",
    "concatenate",
    "const",
    "cross",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "det",
    "diag",
    "diagonal",
    "diff",
    "dot",
    "einsum",
    "expand_dims",
    "eye",
    "flatnonzero",
    "flip",
    "full",
    "histogram",
    "inv",
    "iota",
    "isin",
    "kron",
    "kthvalue",
    "logcumsumexp",
    "logdet",
    "masked_select",
    "matmul",
    "matrix_power",
    "mean",
    "median",
    "meshgrid",
    "moveaxis",
    "nonzero",
    "norm",
    "ones_like",
    "outer",
    "pad",
    "prod",
    "put_along_axis",
    "quantile",
    "ravel",
    "repeat",
    "reshape",
    "roll",
    "rot90",
    "scatter",
    "searchsorted",
    "slogdet",
    "solve",
    "solve_triangular",
    "sort",
    "split",
    "squeeze",
    "stack",
    "std",
    "swapaxes",
    "take",
    "take_along_axis",
    "tensordot",
    "tile",
    "trace",
    "transpose",
    "tril",
    "triu",
    "var",
    "zeros_like",
]
