"""What numpy has for arrays beside the ops that networks are made of; all of it is public."""

from nncompile.ops.contraction.distances import cdist
from nncompile.ops.indexing.scattering import put_along_axis, scatter
from nncompile.ops.indexing.searching import bincount, histogram, isin, searchsorted
from nncompile.ops.linear_algebra.determinants import det, logdet, slogdet
from nncompile.ops.linear_algebra.matrices import cross, diag, diagonal, kron, trace, tril, triu
from nncompile.ops.linear_algebra.systems import eye, inv, matrix_power, solve
from nncompile.ops.linear_algebra.triangular import cholesky, solve_triangular
from nncompile.ops.loops.running import cummax, cummin, cumprod, logcumsumexp
from nncompile.ops.reduction.order_statistics import kthvalue, median, quantile
from nncompile.ops.shape.arranging import diff, meshgrid, roll, rot90
from nncompile.ops.shape.selecting import argwhere, flatnonzero, masked_select, nonzero

__all__ = [
    "argwhere",
    "bincount",
    "cdist",
    "cholesky",
    "cross",
    "cummax",
    "cummin",
    "cumprod",
    "det",
    "diag",
    "diagonal",
    "diff",
    "eye",
    "flatnonzero",
    "histogram",
    "inv",
    "isin",
    "kron",
    "kthvalue",
    "logcumsumexp",
    "logdet",
    "masked_select",
    "matrix_power",
    "median",
    "meshgrid",
    "nonzero",
    "put_along_axis",
    "quantile",
    "roll",
    "rot90",
    "scatter",
    "searchsorted",
    "slogdet",
    "solve",
    "solve_triangular",
    "trace",
    "tril",
    "triu",
]
