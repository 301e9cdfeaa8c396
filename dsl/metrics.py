"""Metrics: how good predictions are, each a mean over the batch."""

from __future__ import annotations

from typing import Any

from dsl.losses import class_numbers, matched
from nncompile.graph import Value
from nncompile.ops import argmax, cast, expand_dims, mean, take_along_axis
from nncompile.ops import sum as total
from nncompile.ops.basic import as_value
from nncompile.types import f32


def accuracy(logits: Any, label: Any, axis: int = -1) -> Value:
    """The share of rows whose greatest logit (or probability) is that of the label: its number, or
    the most probable of a distribution over the classes."""
    logits, label = as_value(logits), as_value(label)
    if label.rank == logits.rank:
        label = argmax(matched("accuracy", logits, label)[1], axis)
    else:
        class_numbers("accuracy", logits, label, axis % logits.rank)
    return mean(cast(argmax(logits, axis) == label, f32))


def top_k_accuracy(logits: Any, label: Any, k: int = 5, axis: int = -1) -> Value:
    """The share of rows where fewer than k logits are greater than that of the label's class."""
    logits, label = as_value(logits), as_value(label)
    axis = axis % logits.rank
    class_numbers("top_k_accuracy", logits, label, axis)
    own = take_along_axis(logits, expand_dims(label, axis), axis)
    above = total(cast(logits > own, f32), axis)
    return mean(cast(above < k, f32))


def binary_accuracy(prediction: Any, target: Any, threshold: float = 0.5) -> Value:
    """The share of predictions that are above the threshold where the target is (0.5 for
    probabilities; logits want threshold=0)."""
    prediction, target = matched("binary_accuracy", prediction, target)
    return mean(cast((prediction > threshold) == (target > 0.5), f32))
