"""Metrics of classes: what share of predictions is right, and in which way they are wrong.

Predictions are logits or probabilities with the classes along `axis`, of which the greatest counts,
and labels class numbers; or both are of one shape, a number for each truth that may hold (one in
all, or one for each class of several that may hold at once), which is predicted where it is above
the threshold (0.5 of probabilities; logits want threshold=0).

Rows that `mask` leaves out, of the shape of the rows or of its first axes, count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from dsl.losses import class_numbers, cross_entropy, matched, reduced
from dsl.losses.reduction import rows_of
from nncompile.elementwise import exp, logical_and, maximum, where
from nncompile.errors import ModelError, ShapeError
from nncompile.graph import Value
from nncompile.ops import (
    argmax,
    broadcast_to,
    cast,
    expand_dims,
    mean,
    moveaxis,
    one_hot,
    ratio,
    reshape,
    take_along_axis,
    total,
)
from nncompile.ops import sum as sum_of
from nncompile.ops.basic import as_value
from nncompile.types import boolean, f32, i64

Averaging = Literal["binary", "macro", "micro", "weighted", "none"]


def accuracy(
    logits: Any, label: Any, axis: int = -1, weight: Any = None, mask: Any = None
) -> Value:
    """The share of rows whose greatest logit (or probability) is that of the label: its number, or
    the most probable of a distribution over the classes."""
    logits, label = as_value(logits), as_value(label)
    if label.rank == logits.rank:
        label = argmax(matched("accuracy", logits, label)[1], axis)
    else:
        class_numbers("accuracy", logits, label, _axis("accuracy", logits, axis))
    right = cast(argmax(logits, axis) == label, f32)
    return reduced(right, "mean", weight, mask)


def top_k_accuracy(
    logits: Any, label: Any, k: int = 5, axis: int = -1, weight: Any = None, mask: Any = None
) -> Value:
    """The share of rows where fewer than k logits are greater than that of the label's class."""
    logits, label = as_value(logits), as_value(label)
    axis = _axis("top_k_accuracy", logits, axis)
    class_numbers("top_k_accuracy", logits, label, axis)
    own = take_along_axis(logits, expand_dims(label, axis), axis)
    above = sum_of(cast(logits > own, f32), axis)
    return reduced(cast(above < k, f32), "mean", weight, mask)


def binary_accuracy(
    prediction: Any, target: Any, threshold: float = 0.5, weight: Any = None, mask: Any = None
) -> Value:
    """The share of predictions that are above the threshold where the target is (0.5 for
    probabilities; logits want threshold=0)."""
    prediction, target = matched("binary_accuracy", prediction, target)
    right = cast((prediction > threshold) == (target > 0.5), f32)
    return reduced(right, "mean", weight, mask)


def perplexity(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """exp of the mean cross-entropy: among how many equally probable classes the choice would be as
    hard. Over several batches it is that of their common mean, and not a mean of perplexities."""
    losses = cross_entropy(
        logits, label, axis=axis, ignore_index=ignore_index, weight=weight, mask=mask
    )
    return exp(losses)  # type: ignore[no-any-return]


class _Counts(NamedTuple):
    """How often each class was predicted rightly, predicted, and true: numbers, or vectors."""

    both: Value
    predicted: Value
    true: Value


def precision(
    prediction: Any,
    target: Any,
    averaging: Averaging = "binary",
    *,
    threshold: float = 0.5,
    axis: int = -1,
    mask: Any = None,
) -> Value:
    """Of what is predicted, the share that is true: tp / (tp + fp), 0 where nothing is predicted.

    `averaging` is scikit-learn's `ratio`: "binary" counts all truths of predictions and targets
    of one shape; "macro" is the mean over the classes, those that never occur included (as with
    scikit-learn's labels=range(n)); "weighted" by how often each is true; "micro" counts all
    classes together; "none" gives a vector.
    """
    return _scored(
        "precision",
        lambda c: ratio(c.both, c.predicted),
        prediction, target, averaging, threshold, axis, mask,
    )  # fmt: skip


def recall(
    prediction: Any,
    target: Any,
    averaging: Averaging = "binary",
    *,
    threshold: float = 0.5,
    axis: int = -1,
    mask: Any = None,
) -> Value:
    """Of what is true, the share that is predicted: tp / (tp + fn), 0 where nothing is true; see
    `precision` for `averaging`."""
    return _scored(
        "recall",
        lambda c: ratio(c.both, c.true),
        prediction, target, averaging, threshold, axis, mask,
    )  # fmt: skip


def f1_score(
    prediction: Any,
    target: Any,
    averaging: Averaging = "binary",
    *,
    threshold: float = 0.5,
    axis: int = -1,
    mask: Any = None,
) -> Value:
    """The harmonic mean of precision and recall, 2·tp / (2·tp + fp + fn), also called Dice's
    coefficient; 0 where nothing is true or predicted. See `precision` for `averaging`."""
    return _scored(
        "f1_score",
        lambda c: ratio(2 * c.both, c.predicted + c.true),
        prediction, target, averaging, threshold, axis, mask,
    )  # fmt: skip


def iou(
    prediction: Any,
    target: Any,
    averaging: Averaging = "binary",
    *,
    threshold: float = 0.5,
    axis: int = -1,
    mask: Any = None,
) -> Value:
    """Intersection over union (Jaccard's index), tp / (tp + fp + fn); 0 where nothing is true or
    predicted. See `precision` for `averaging`; of images, `axis` is that of the channels."""
    return _scored(
        "iou",
        lambda c: ratio(c.both, c.predicted + c.true - c.both),
        prediction, target, averaging, threshold, axis, mask,
    )  # fmt: skip


def confusion_matrix(prediction: Any, label: Any, *, axis: int = -1, mask: Any = None) -> Value:
    """How many rows of each class (row) were taken for each class (column): i64[n, n]; labels that
    are no class number below n count nowhere. `Trainer.evaluate` adds it up."""
    prediction, label = as_value(prediction), as_value(label)
    axis = _axis("confusion_matrix", prediction, axis)
    class_numbers("confusion_matrix", prediction, label, axis)
    count = prediction.shape[axis]
    true = _by_class(one_hot(label, count, f32, axis=-1), count)
    predicted = one_hot(argmax(prediction, axis), count, f32, axis=-1)
    predicted = _by_class(_masked(predicted, mask), count)
    return total(cast(true.T @ predicted, i64))


def _scored(
    what: str,
    score: Callable[[_Counts], Value],
    prediction: Any,
    target: Any,
    averaging: Averaging,
    threshold: float,
    axis: int,
    mask: Any,
) -> Value:
    if averaging not in ("binary", "macro", "micro", "weighted", "none"):
        raise ModelError(
            f'{what}: averaging is "binary", "macro", "micro", "weighted" or "none", '
            f"got {averaging!r}"
        )
    predicted, true = _truths(what, prediction, target, averaging, threshold, axis, mask)
    over = tuple(range(predicted.rank if averaging == "binary" else predicted.rank - 1))
    counts = _Counts(*(sum_of(x, over) for x in (predicted * true, predicted, true)))
    if averaging == "micro":
        return score(_Counts(*map(sum_of, counts)))
    scores = score(counts)
    if averaging == "macro":
        return mean(scores)
    if averaging == "weighted":
        support = total(counts.true)
        return sum_of(scores * support) / maximum(sum_of(support), 1)  # type: ignore[no-any-return]
    return scores


def _truths(
    what: str,
    prediction: Any,
    target: Any,
    averaging: Averaging,
    threshold: float,
    axis: int,
    mask: Any,
) -> tuple[Value, Value]:
    """What is predicted and what is true, as 0 and 1, the classes last."""
    prediction, target = as_value(prediction), as_value(target)
    if averaging == "binary" or prediction.rank == target.rank:
        prediction, target = matched(what, prediction, target)
        predicted = cast(prediction > threshold, f32)
        true = cast(broadcast_to(target, prediction.shape) > 0.5, f32)
        if averaging != "binary":
            place = _axis(what, prediction, axis)
            predicted, true = (moveaxis(x, place, -1) for x in (predicted, true))
    else:
        place = _axis(what, prediction, axis)
        class_numbers(what, prediction, target, place)
        count = prediction.shape[place]
        predicted = one_hot(argmax(prediction, place), count, f32)
        true = one_hot(target, count, f32)
    return _masked(predicted, mask), _masked(true, mask)


def _masked(x: Value, mask: Any) -> Value:
    """`x`, 0 where the mask is False; it has the first axes of `x`."""
    if mask is None:
        return x
    counted = cast(rows_of(mask, x), boolean)
    return where(logical_and(counted, x > 0), 1.0, 0.0)  # type: ignore[no-any-return]


def _by_class(x: Value, count: Any) -> Value:
    return reshape(x, (-1, count))


def _axis(what: str, prediction: Value, axis: int) -> int:
    if not -prediction.rank <= axis < prediction.rank:
        raise ShapeError(f"{what}: the prediction {prediction.type} has no axis {axis}")
    return axis % prediction.rank
