"""Shapes that meet: what was repeated is summed, and slices take the sizes of what they meet."""

from __future__ import annotations

from collections.abc import Sequence

from nncompile.ir.dims import Dim, is_clipped, is_one, same, same_where_enough
from nncompile.ir.op import Value


def unbroadcast(g: Value, x: Value) -> Value:
    """The sum of `g` over the axes along which `x` was repeated to its shape."""
    lead = g.rank - x.rank
    repeated = (
        i + lead for i in range(x.rank) if is_one(x.shape[i]) and not is_one(g.shape[i + lead])
    )
    axes = (*range(lead), *repeated)
    if not axes:
        return g
    total: Value = g.sum(axes)
    return total if total.rank == x.rank else total.reshape(x.shape)


def fitted(values: Sequence[Value], but: int | None = None) -> list[Value]:
    """The values, of which the slices that have a size of another where they find as much as they
    ask for, Min(3, n) for 3, are given that size; data of less are refused. Axes are counted from
    the last, and that of the number `but` is left as it is."""
    found = list(values)
    if not any(is_clipped(d) for v in values for d in v.shape):
        return found
    for axis in range(-max(v.rank for v in values), 0):
        sizes = [v.shape[axis] for v in values if v.rank >= -axis and not is_one(v.shape[axis])]
        if sizes and axis != but:
            firm = min(sizes, key=lambda d: (is_clipped(d), not isinstance(d, int)))
            found = [fit(v, axis, firm) if v.rank >= -axis else v for v in found]
    return found


def fit(x: Value, axis: int, size: Dim) -> Value:
    """`x`, given that size along the axis where it is a slice that may have it; see `fitted`."""
    own = x.shape[axis]
    if not is_clipped(own) or same(own, size) is not None or not same_where_enough(own, size):
        return x
    place = axis % x.rank
    result: Value = x.reshape((*x.shape[:place], size, *x.shape[place + 1 :]))
    return result
