"""What numpy has for arrays beside the ops that networks are made of; all of it is public."""

from nncompile.ops.arranging import diff, meshgrid, roll, rot90
from nncompile.ops.determinants import det, logdet, slogdet
from nncompile.ops.distances import cdist
from nncompile.ops.matrices import cross, diag, diagonal, kron, trace, tril, triu
from nncompile.ops.order import kthvalue, median, quantile
from nncompile.ops.running import cummax, cummin, cumprod, logcumsumexp
from nncompile.ops.scattering import put_along_axis, scatter
from nncompile.ops.searching import bincount, histogram, isin, searchsorted
from nncompile.ops.selecting import argwhere, flatnonzero, masked_select, nonzero
from nncompile.ops.systems import eye, inv, matrix_power, solve
from nncompile.ops.triangular import cholesky, solve_triangular

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
