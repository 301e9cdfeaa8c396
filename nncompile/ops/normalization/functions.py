"""Batch normalization as a function."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value
from nncompile.ir.graph import items
from nncompile.ir.op import Value
from nncompile.ops.normalization.batch import BatchNorm, positive_epsilon
from nncompile.ops.normalization.shared import SharedBatchNorm


@suggests_names
def batch_norm(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    momentum: float = 0.1,
    eps: float = 1e-5,
    track_running_stats: bool = True,
    sync: bool = False,
) -> tuple[Value, Value, Value]:
    """x[N, C, *sizes] normalized over all but the channels while training, with the running
    statistics `mean` and `variance` in inference, unless `track_running_stats` is False; and what
    these become after this batch: `(y, next_mean, next_variance)`, see `BatchNorm`. With `sync`,
    processes that train together normalize by the statistics of all their rows.

    Raises `ShapeError` where x has no channels or the others are not one number for each,
    `DTypeError` where x is not floating or the others are of another type, `ModelError` for a
    momentum outside 0 … 1 or an eps that is not positive.
    """
    x = as_value(x)
    if not 0 <= momentum <= 1:
        raise ModelError(
            f"the momentum of batch normalization must be in [0, 1], got {momentum!r}",
            hint="it is the weight of the new batch, as in torch: momentum 0.99 in Keras is "
            "0.01 here",
        )
    epsilon = positive_epsilon("batch normalization", eps)
    kind = SharedBatchNorm if sync else BatchNorm
    op = kind(float(momentum), epsilon, bool(track_running_stats))
    y, next_mean, next_variance, *_ = items(
        op(x, *(as_value(v, x) for v in (scale, bias, mean, variance)))
    )
    return y, next_mean, next_variance
