"""How good the predictions of an exported model are, which has no metrics, by their kind."""

from __future__ import annotations

import numpy as np

from nncompile.diagnostics.errors import FeedError
from nncompile.ir.types import Array

_SUMS_TO_ONE = 1e-3


def measured(prediction: Array, target: Array) -> dict[str, float]:
    """Metrics of predictions of shape [n], [n, 1] or [n, k], against targets of one for each.

    Scores of k classes and the number of the right one: accuracy, and where the scores are
    probabilities `cross_entropy`, −log p of it. A class and the right one: accuracy. Probabilities
    and 0 or 1: accuracy at one half, `cross_entropy`, and `roc_auc`, the probability that one of
    the ones is ranked before one of the zeros. Other numbers: mean absolute error, root mean
    squared error, and R². Raises `FeedError` for targets of other shapes, or that are no numbers.
    """
    p, t = np.asarray(prediction), np.asarray(target)
    if t.dtype.kind not in "biuf" or (t.dtype.kind == "f" and not np.isfinite(t).all()):
        raise FeedError("a target must be a number in every example", rows=[("got", str(t.dtype))])
    if p.ndim == 2 and p.shape[1] == 1:
        p = p[:, 0]
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    t = t.astype(np.float64)
    is_whole = bool((t == np.round(t)).all())
    if p.ndim == 2 and t.ndim == 1 and len(p) == len(t) and is_whole:
        return _of_classes(p.astype(np.float64), t.astype(np.int64))
    if p.shape != t.shape:
        raise FeedError(
            "predictions cannot be compared with these targets",
            rows=[("predictions", str(list(p.shape))), ("targets", str(list(t.shape)))],
        )
    if p.dtype.kind in "biu" and is_whole:
        return {"accuracy": float((p == t).mean())}
    p = p.astype(np.float64)
    if np.isin(t, (0, 1)).all() and p.min() >= 0 and p.max() <= 1:
        return _of_probabilities(p, t)
    spread = float(((t - t.mean(0)) ** 2).sum())
    squares = float(((p - t) ** 2).sum())
    return {
        "mean_absolute_error": float(np.abs(p - t).mean()),
        "root_mean_squared_error": float(np.sqrt(((p - t) ** 2).mean())),
        "r2_score": 1 - squares / spread if spread else float("nan"),
    }


def _of_classes(p: Array, t: Array) -> dict[str, float]:
    if t.min() < 0 or t.max() >= p.shape[1]:
        raise FeedError(
            f"a target is not one of the {p.shape[1]} classes",
            rows=[("targets", f"{t.min()} to {t.max()}")],
        )
    metrics = {"accuracy": float((p.argmax(1) == t).mean())}
    if p.min() >= 0 and np.abs(p.sum(1) - 1).max() < _SUMS_TO_ONE:
        metrics["cross_entropy"] = _mean_surprisal(p[np.arange(len(t)), t])
    return metrics


def _of_probabilities(p: Array, t: Array) -> dict[str, float]:
    metrics = {
        "accuracy": float(((p >= 0.5) == t).mean()),
        "cross_entropy": _mean_surprisal(np.where(t == 1, p, 1 - p)),
    }
    ones, zeros = int(t.sum()), int((1 - t).sum())
    if ones and zeros:
        # Equal probabilities share the mean of their ranks.
        _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
        metrics["roc_auc"] = float((ranks[t == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    return metrics


def _mean_surprisal(p: Array) -> float:
    """The mean of −log p, finite where p is zero, too."""
    return float(-np.log(np.maximum(p, np.finfo(np.float32).tiny)).mean())
