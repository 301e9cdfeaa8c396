"""Metrics: how good predictions are.

Each is of one batch where it is computed, and of all examples where a model is evaluated in
batches, whatever their sizes: see `ratio`, `total` and `pooled`, of which own metrics are made.
"""

from dsl.metrics.classes import (
    accuracy,
    binary_accuracy,
    confusion_matrix,
    f1_score,
    iou,
    perplexity,
    precision,
    recall,
    top_k_accuracy,
)
from dsl.metrics.ranking import roc_auc
from dsl.metrics.regression import r2_score, root_mean_squared_error

__all__ = [
    "accuracy",
    "binary_accuracy",
    "confusion_matrix",
    "f1_score",
    "iou",
    "perplexity",
    "precision",
    "r2_score",
    "recall",
    "roc_auc",
    "root_mean_squared_error",
    "top_k_accuracy",
]
