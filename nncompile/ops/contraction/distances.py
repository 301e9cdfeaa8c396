"""Distances between all points of two sets."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import in_single
from nncompile.ir.dims import same
from nncompile.ir.op import Value
from nncompile.ops.contraction.operands import promoted
from nncompile.ops.reduction.statistics import norm
from nncompile.ops.shape.reshape import expand_dims


@suggests_names
@in_single
def cdist(x1: Any, x2: Any, p: float = 2.0) -> Value:
    """The distances of the points x1[…, n, d] from the points x2[…, m, d], in the norm of order p:
    […, n, m]. Leading axes broadcast.

    They are computed from n·m·d differences, not from products: near points lose no digits. The
    gradient is 0 where two points are one, as torch's.

    Raises `ShapeError` where the points have not the same number of coordinates, or no norm has
    that order.
    """
    x1, x2 = promoted(x1, x2)
    if min(x1.rank, x2.rank) < 2 or same(x1.shape[-1], x2.shape[-1]) is not True:
        raise ShapeError(
            f"cdist: points must be […, n, d] and […, m, d], got {x1.type} and {x2.type}",
            hint="expand_dims(x, 0) turns a vector into one point",
        )
    if not isinstance(p, int | float) or not p >= 0:
        raise ShapeError(f"cdist: the order p must be a non-negative number, got {p!r}")
    return norm(expand_dims(x1, -2) - expand_dims(x2, -3), p, axis=-1)
