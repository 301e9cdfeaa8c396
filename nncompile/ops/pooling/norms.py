"""Norms of windows: over space as pooling, over neighbouring channels as normalization."""

from __future__ import annotations

import math
from typing import Any

from nncompile.diagnostics.errors import ModelError, ShapeError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import power, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import floating, in_single
from nncompile.ir.dims import product
from nncompile.ir.op import Value, described
from nncompile.ops.pooling.average import average_pool
from nncompile.ops.pooling.maximum import max_pool
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.windows.pooling import per_axis
from nncompile.ops.windows.space import LEAD


@suggests_names
@in_single
def lp_pool(
    x: Any,
    norm_type: float,
    kernel_size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
    *,
    rank: int | None = None,
    what: str = "lp_pool",
) -> Value:
    """(Σ xᵖ)^(1/p) of each window over `x` [batch, channels, *space], with p = `norm_type`; torch's
    `lp_pool2d`, along any number of axes.

    1 sums, and infinity is `max_pool`. As in torch it is xᵖ and not |x|ᵖ: of an odd or broken p
    elements are not negative (`lp_pool(abs(x), …)` is the norm). Where a sum is 0 the gradient is
    0. Options and errors are those of `average_pool`; what hangs over the end with `ceil_mode` is
    made up for by the mean of the others. Raises `ModelError` for a p of 0 or less.
    """
    x = floating(what, x)
    rank = x.rank - LEAD if rank is None else rank
    p = check_norm_type(what, norm_type)
    if p == math.inf:
        return max_pool(x, kernel_size, stride, ceil_mode=ceil_mode, rank=rank, what=what)
    powers = x if p == 1 else power(x, p)
    means = average_pool(powers, kernel_size, stride, 0, ceil_mode, rank=rank, what=what)
    total = means * math.prod(per_axis(what, "the kernel_size", kernel_size, rank))
    return total if p == 1 else _root(total, 1 / p)


def check_norm_type(what: str, norm_type: Any) -> float:
    """p as a number. Raises `ModelError` for anything but a number above 0."""
    if isinstance(norm_type, bool) or not isinstance(norm_type, int | float) or not norm_type > 0:
        raise ModelError(f"{what}: norm_type must be a positive number, got {norm_type!r}")
    return norm_type


@formula
def _root(total: Any, exponent: Any) -> Any:
    """The root, whose gradient at 0 is 0."""
    return where(total == 0, 0, power(total, exponent))


@suggests_names
@in_single
def local_response_norm(
    x: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    what: str = "local_response_norm",
) -> Value:
    """x/(k + α·m)^β over [batch, channels, *space], m the mean of the squares of the `size`
    channels around each, of which there are ⌊size/2⌋ before it; those that do not exist are zeros
    (A. Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012).
    torch's `local_response_norm` and ONNX's `LRN`.

    Raises `ShapeError`, which begins with `what`, where x has no axis of channels, `ModelError` for
    a size below 1.
    """
    x = floating(what, x)
    width = whole_number(f"{what}: size", size, 1)
    if x.rank < LEAD:
        raise ShapeError(
            f"{what} needs [batch, channels, *space], x is {x.type}", rows=[("x", *described(x))]
        )
    squares = reshape(x * x, (x.shape[0], 1, x.shape[1], product(x.shape[LEAD:])))
    pads = ((width // 2, (width - 1) // 2), (0, 0))
    means = reshape(average_pool(squares, (width, 1), 1, pads), x.shape)
    result: Value = x / power(k + alpha * means, beta)
    return result
