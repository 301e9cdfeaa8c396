"""Metrics of an order: whether true examples score higher than others."""

from __future__ import annotations

from typing import Any

from dsl.losses.reduction import matched, rows_of
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.op import Value
from nncompile.ir.types import boolean, f32, i64
from nncompile.ops import (
    argsort,
    cast,
    concatenate,
    cumsum,
    pooled,
    ratio,
    ravel,
    scatter_add,
    take,
    zeros_like,
)
from nncompile.ops import sum as sum_of


@suggests_names
def roc_auc(score: Any, target: Any, mask: Any = None) -> Value:
    """The area under the receiver operating characteristic: how probable it is that of a true and
    a false example the true one has the higher score, an equal score counting half (J. Hanley and
    B. McNeil, 1982). Targets are 0 and 1, of the shape of the scores; 0 where all are alike.

    It is that of all examples in `Trainer.evaluate` and in validation, which keep all scores. The
    mean over an epoch of training is of pairs within the batches.
    """
    score, target = matched("roc_auc", score, target)
    true = cast(target > 0.5, f32)
    counted = 1.0 if mask is None else cast(cast(rows_of(mask, score), boolean), f32)
    ranked = pooled(ravel(score))
    positive = pooled(ravel(true * counted))
    negative = pooled(ravel((1 - true) * counted))
    order = argsort(ranked)
    ranked, positive, negative = (take(x, order, 0) for x in (ranked, positive, negative))
    # Examples of equal score are one group, which is numbered by its place in the order.
    first = concatenate([zeros_like(ranked[:1]), cast(ranked[1:] != ranked[:-1], f32)], 0)
    group = cast(cumsum(first, 0), i64)
    positive, negative = (scatter_add(zeros_like(x), group, x) for x in (positive, negative))
    below = cumsum(negative, 0) - negative
    pairs = sum_of(positive * (below + 0.5 * negative))
    return ratio(pairs, sum_of(positive) * sum_of(negative))
