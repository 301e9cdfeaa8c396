"""What a mask leaves out of a loss stays out of its gradient, whatever the prediction is there.

The loss of an element that does not count is 0 by `where`, and so is its gradient, times the
derivative at the prediction: 0·NaN, where that is NaN or infinite. So the prediction itself is
taken where it counts only, and is 0 elsewhere, before any loss is computed of it.
"""

from __future__ import annotations

from typing import Any

from nncompile.elementwise import where
from nncompile.elementwise.map import Map
from nncompile.ir.basic import as_value
from nncompile.ir.dims import broadcasts_to, is_one, same_shape
from nncompile.ir.op import Value
from nncompile.ops import expand_dims, reshape
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax

_DEPTH = 8  # functions of one value that are looked through


def counted_alone(x: Any, mask: Any, axis: int | None) -> Any:
    """`x` where the mask is True, 0 elsewhere; `x` itself where it is no floating value, or the
    mask does not fit it. The mask has the shape of the losses or of its first axes, which is that
    of `x` without the `axis` of the classes, if there is one."""
    if not isinstance(x, Value) or not x.dtype.is_float or not x.rank:
        return x
    counted = as_value(mask)
    if not counted.dtype.is_bool:
        return x  # an error soon
    if axis is not None:
        if not -x.rank <= axis < x.rank:
            return x
        axis %= x.rank
        if counted.rank > axis:
            counted = expand_dims(counted, axis)
    if counted.rank > x.rank:
        return x
    counted = reshape(counted, (*counted.shape, *(1 for _ in range(x.rank - counted.rank))))
    return _chosen(x, counted) if broadcasts_to(counted.shape, x.shape) else x


def _chosen(x: Value, counted: Value, depth: int = _DEPTH) -> Value:
    """What `where(counted, x, 0)` is where it counts, chosen below the functions that `x` is made
    by: `log(sigmoid(y))` is made stable by a rule, which sees no `where` in between. A function of
    several values, such as the sum with a bias, is left as other ops take it."""
    op = x.op
    is_row_by_row = isinstance(op, Softmax | LogSoftmax) and is_one(counted.shape[op.axis])
    if depth and len(x.args) == 1 and (isinstance(op, Map) or is_row_by_row):
        (below,) = x.args
        if below.dtype.is_float and same_shape(below.shape, x.shape) is True:
            return op.rebuild(_chosen(below, counted, depth - 1))
    result: Value = where(counted, x, 0.0)
    return result
