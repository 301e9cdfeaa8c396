"""What is composed of sums: means, spreads, lengths, and whether any or all are true."""

from __future__ import annotations

import math
from typing import Any

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import abs as absolute
from nncompile.elementwise import equal, maximum, not_equal, sqrt, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast, in_single, size_value
from nncompile.ir.dims import Dim, product
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value
from nncompile.ir.types import Axes, DType, boolean
from nncompile.ops.reduction.extremes import max, min
from nncompile.ops.reduction.moments import distances
from nncompile.ops.reduction.operands import over, real_value
from nncompile.ops.reduction.sums import sum


def _count(x: Value, axes: tuple[int, ...]) -> Dim:
    return product(x.shape[i] for i in axes)


def _divisor(count: Dim, dtype: DType) -> Any:
    """How many to divide by: a number, or a value where that depends on sizes or is zero."""
    return count if isinstance(count, int) and count > 0 else size_value(count, dtype)


@suggests_names
@in_single
def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The mean over one axis, several or all; of integers and truth values in f32."""
    x, axes = over("mean", x, axis)
    total = real_value(sum(x, axes, keepdims))
    result: Value = total / _divisor(_count(x, axes), total.dtype)
    return result


@suggests_names
@in_single
def var(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Value:
    """The mean square distance from the mean, Σ (x − mean)² / (n − ddof)."""
    x, axes = over("var", x, axis)
    x = real_value(x)
    count = _count(x, axes)
    if axes:
        *_, distance = distances(x, axes, _divisor(count, x.dtype), keepdims=True)
    else:
        distance = x - mean(x, axes)
    total = sum(distance * distance, axes, keepdims)
    if isinstance(count, int):
        result: Value = total / _divisor(count - ddof if count > ddof else 0, x.dtype)
        return result
    return total / maximum(size_value(count, x.dtype) - ddof, 0)


@formula
def root(x: Any) -> Any:
    """√x with a finite gradient at zero: that of a length at the origin is zero, as torch's."""
    return where(x > 0, sqrt(x), x)


@suggests_names
@in_single
def std(x: Any, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Value:
    """The standard deviation, √var. Its gradient is zero where the variance is."""
    return root(var(x, axis, ddof, keepdims))


@formula
def _raised_size(x: Any, order: float) -> Any:
    """|x|^order, whose derivatives at 0 are 0, also where they would be infinite."""
    return where(x == 0, 0.0 if order > 0 else math.inf, absolute(x) ** order)


@formula
def _raised_total(total: Any, order: float) -> Any:
    """total^(1/order), whose derivatives at 0 are 0."""
    return where(total == 0, 0.0 if order > 0 else math.inf, total ** (1 / order))


@suggests_names
@in_single
def norm(x: Any, ord: float = 2, axis: Axes = None, keepdims: bool = False) -> Value:
    """The length of the vectors along `axis` (of all elements if None): (Σ |x|^ord)^(1/ord), the
    greatest |x| for infinity, the least for −infinity, and for 0 the number of those that are not
    0; as numpy and torch.

    The gradient is torch's: 0 where the length is, and 0 at a zero element also for an order below
    1, where it would be infinite. Gradients of higher order are finite there, too.

    Raises `ShapeError` where the order is not a number.
    """
    x, axes = over("norm", x, axis)
    x = real_value(x)
    if not isinstance(ord, int | float) or math.isnan(ord):
        raise ShapeError(
            f"norm: the order must be a number, got {ord!r}",
            hint="norm(x, ord=math.inf) is the maximum norm; the default is the Euclidean norm",
        )
    if ord == math.inf:
        return max(absolute(x), axes, keepdims)
    if ord == -math.inf:
        return min(absolute(x), axes, keepdims)
    if ord == 0:
        return sum(cast(not_equal(x, 0), x.dtype), axes, keepdims)
    if ord == 1:
        return sum(absolute(x), axes, keepdims)
    if ord == 2:
        return root(sum(x * x, axes, keepdims))
    is_whole = ord > 0 and ord == int(ord)  # then no derivative of |x|^ord is infinite
    powers = absolute(x) ** int(ord) if is_whole else _raised_size(x, ord)
    return _raised_total(sum(powers, axes, keepdims), ord)


@suggests_names
def any(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """Whether one element at least is true (not zero); False of nothing."""
    return not_equal(sum(cast(x, boolean), axis, keepdims), 0)


@suggests_names
def all(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """Whether no element is false (zero); True of nothing."""
    false = equal(cast(x, boolean), False)
    return equal(sum(false, axis, keepdims), 0)


for _function in (mean, var, std, any, all):
    register(_function.__name__, _function)
