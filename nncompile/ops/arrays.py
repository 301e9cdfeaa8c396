"""What numpy has for arrays beside the ops that networks are made of; all of it is public."""

from nncompile.ops.arranging import diff, meshgrid, roll, rot90
from nncompile.ops.matrices import cross, diag, diagonal, kron, trace, tril, triu
from nncompile.ops.order import kthvalue, median, quantile
from nncompile.ops.running import cummax, cummin, cumprod, logcumsumexp
from nncompile.ops.searching import bincount, histogram, isin, searchsorted

__all__ = [
    "bincount",
    "cross",
    "cummax",
    "cummin",
    "cumprod",
    "diag",
    "diagonal",
    "diff",
    "histogram",
    "isin",
    "kron",
    "kthvalue",
    "logcumsumexp",
    "median",
    "meshgrid",
    "quantile",
    "roll",
    "rot90",
    "searchsorted",
    "trace",
    "tril",
    "triu",
]
