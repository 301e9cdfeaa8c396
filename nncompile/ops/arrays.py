"""What numpy has for arrays beside the ops that networks are made of; all of it is public."""

from nncompile.ops.arranging import diff, meshgrid, roll, rot90
from nncompile.ops.matrices import cross, diag, diagonal, kron, trace, tril, triu
from nncompile.ops.order import kthvalue, median, quantile
from nncompile.ops.running import cummax, cummin, cumprod, logcumsumexp

__all__ = [
    "cross",
    "cummax",
    "cummin",
    "cumprod",
    "diag",
    "diagonal",
    "diff",
    "kron",
    "kthvalue",
    "logcumsumexp",
    "median",
    "meshgrid",
    "quantile",
    "roll",
    "rot90",
    "trace",
    "tril",
    "triu",
]
