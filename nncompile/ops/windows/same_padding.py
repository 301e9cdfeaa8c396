"""Padding "same": as many windows along an axis as the stride fits into it, rounded up."""

from __future__ import annotations

import sympy as sp

from nncompile.ir.dims import Dim, dim, floordiv


def same_padding(size: Dim, extent: int, stride: int) -> tuple[Dim, Dim, Dim]:
    """What is padded before and after an axis, and how many windows there are then:
    max((⌈size/stride⌉ − 1)·stride + extent − size, 0) in all, of an odd number the last one after,
    as in Keras (and, without a stride, in torch).

    Numbers where they do not depend on a symbolic size. Where the stride is larger than the extent
    of the window and the size is symbolic, `after` may be negative: elements behind the last window
    are removed, so that the number of windows is ⌈size/stride⌉ as an expression, too.
    """
    count = floordiv(dim(size + stride - 1), stride)
    # The last window covers of the axis what the strides before it leave: 1 … stride elements.
    rest = dim(size - stride * floordiv(size, stride))
    left = [rest] if isinstance(rest, int) else range(stride)
    totals = {max(extent - (number or stride), 0) for number in left}
    if len(totals) == 1:
        total = totals.pop()
        return total // 2, total - total // 2, count
    missing = dim((count - 1) * stride + extent - size)
    padded = missing if extent >= stride else dim(sp.Max(missing, 0))
    before = floordiv(padded, 2)
    return before, dim(missing - before), count
