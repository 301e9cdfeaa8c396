"""Metrics of classes: what share of predictions is right, and in which way they are wrong.

Predictions are logits or probabilities with the classes along `axis`, of which the greatest counts,
and labels class indices; or both are of one shape, a number for each truth that may hold (one in
all, or one for each class of several that may hold at once), which is predicted where it is above
the threshold (0.5 of probabilities; logits want threshold=0).

Where the greatest counts, there are two classes at least, and their axis is not that of the rows.

Rows that `mask` leaves out, of the shape of the rows or of its first axes, count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

from dsl.losses.classes import class_axis, class_numbers, cross_entropy, several_classes
from dsl.losses.reduction import matched, reduced, rows_of
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import exp, logical_and, maximum, where
from nncompile.ir.basic import as_value
from nncompile.ir.op import Value
from nncompile.ir.types import boolean, f32, i64
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

Averaging = Literal["binary", "macro", "micro", "weighted", "none"]


@suggests_names
def accuracy(
    logits: Any, label: Any, axis: int = -1, weight: Any = None, mask: Any = None
) -> Value:
    """The share of rows whose greatest logit (or probability) is that of the label: its number, or
    the most probable of a distribution over the classes, one-hot rows among them. Of labels that
    may hold several at once, and of one number for two classes, `binary_accuracy` is the share that
    is right. Raises `ShapeError` where there is one class, or no axis of rows beside that of the
    classes."""
    logits, label = as_value(logits), as_value(label)
    axis = _axis_of_classes("accuracy", logits, label, axis, "binary_accuracy")
    if label.rank == logits.rank:
        matched("accuracy", logits, label)
        several_classes("accuracy", logits, label, axis, "binary_accuracy")
        label = argmax(label, axis)
    else:
        class_numbers("accuracy", logits, label, axis, "binary_accuracy")
    right = cast(argmax(logits, axis) == label, f32)
    return reduced(right, "mean", weight, mask)


@suggests_names
def top_k_accuracy(
    logits: Any, label: Any, k: int = 5, axis: int = -1, weight: Any = None, mask: Any = None
) -> Value:
    """The share of rows where fewer than k logits are greater than that of the label's class."""
    logits, label = as_value(logits), as_value(label)
    axis = _axis_of_classes("top_k_accuracy", logits, label, axis, "binary_accuracy")
    class_numbers("top_k_accuracy", logits, label, axis, "binary_accuracy")
    label_logit = take_along_axis(logits, expand_dims(label, axis), axis)
    above = sum_of(cast(logits > label_logit, f32), axis)
    return reduced(cast(above < k, f32), "mean", weight, mask)


@suggests_names
def binary_accuracy(
    prediction: Any, target: Any, threshold: float = 0.5, weight: Any = None, mask: Any = None
) -> Value:
    """The share of predictions that are above the threshold where the target is (0.5 for
    probabilities; logits want threshold=0)."""
    prediction, target = matched("binary_accuracy", prediction, target)
    right = cast((prediction > threshold) == (target > 0.5), f32)
    return reduced(right, "mean", weight, mask)


@suggests_names
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
    return exp(losses)


class _Counts(NamedTuple):
    """How often each class was predicted rightly, predicted, and true: numbers, or vectors."""

    hits: Value
    predicted: Value
    true: Value


class Averaged(Protocol):
    """A score of each class or of all, for whatever predictions `precision` takes."""

    def __call__(
        self,
        prediction: Any,
        target: Any,
        average: Averaging = "binary",
        *,
        threshold: float = 0.5,
        axis: int = -1,
        mask: Any = None,
    ) -> Value: ...


def _averaged(score: Callable[[_Counts], Value]) -> Averaged:
    """The metric that counts, and then averages the score as `average` says."""
    caller = score.__name__

    def metric(
        prediction: Any,
        target: Any,
        average: Averaging = "binary",
        *,
        threshold: float = 0.5,
        axis: int = -1,
        mask: Any = None,
    ) -> Value:
        if average not in get_args(Averaging):
            raise ModelError(
                f'{caller}: average must be "binary", "macro", "micro", "weighted" or "none", '
                f"got {average!r}"
            )
        predicted, true = _truths(caller, prediction, target, average, threshold, axis, mask)
        axes = tuple(range(predicted.rank if average == "binary" else predicted.rank - 1))
        counts = _Counts(*(sum_of(x, axes) for x in (predicted * true, predicted, true)))
        if average == "micro":
            return score(_Counts(*map(sum_of, counts)))
        scores = score(counts)
        if average == "macro":
            return mean(scores)
        if average == "weighted":
            support = total(counts.true)
            return sum_of(scores * support) / maximum(sum_of(support), 1)
        return scores

    metric.__name__, metric.__qualname__, metric.__doc__ = caller, caller, score.__doc__
    metric.__code__ = metric.__code__.replace(co_name=caller)  # what messages call it
    return suggests_names(metric)


@_averaged
def precision(c: _Counts) -> Value:
    """Of what is predicted, the share that is true: tp / (tp + fp), 0 where nothing is predicted.

    `average` is as in scikit-learn: "binary" counts all truths of predictions and targets
    of one shape; "macro" is the mean over the classes, those that never occur included (as with
    scikit-learn's labels=range(n)); "weighted" by how often each is true; "micro" counts all
    classes together; "none" gives a vector.
    """
    return ratio(c.hits, c.predicted)


@_averaged
def recall(c: _Counts) -> Value:
    """Of what is true, the share that is predicted: tp / (tp + fn), 0 where nothing is true; see
    `precision` for `average`."""
    return ratio(c.hits, c.true)


@_averaged
def f1_score(c: _Counts) -> Value:
    """The harmonic mean of precision and recall, 2·tp / (2·tp + fp + fn), also called Dice's
    coefficient; 0 where nothing is true or predicted. See `precision` for `average`."""
    return ratio(2 * c.hits, c.predicted + c.true)


@_averaged
def iou(c: _Counts) -> Value:
    """Intersection over union (Jaccard's index), tp / (tp + fp + fn); 0 where nothing is true or
    predicted. See `precision` for `average`; of images, `axis` is that of the channels."""
    return ratio(c.hits, c.predicted + c.true - c.hits)


@suggests_names
def confusion_matrix(prediction: Any, label: Any, *, axis: int = -1, mask: Any = None) -> Value:
    """How many rows of each class (row) were taken for each class (column): i64[n, n]; labels
    outside 0 … n − 1 count nowhere. `Trainer.evaluate` adds it up."""
    prediction, label = as_value(prediction), as_value(label)
    axis = _axis_of_classes("confusion_matrix", prediction, label, axis, "precision")
    class_numbers("confusion_matrix", prediction, label, axis, "precision")
    count = prediction.shape[axis]
    true = _by_class(one_hot(label, count, f32, axis=-1), count)
    predicted = one_hot(argmax(prediction, axis), count, f32, axis=-1)
    predicted = _by_class(_masked(predicted, mask), count)
    return total(cast(true.T @ predicted, i64))


def _truths(
    caller: str,
    prediction: Any,
    target: Any,
    average: Averaging,
    threshold: float,
    axis: int,
    mask: Any,
) -> tuple[Value, Value]:
    """What is predicted and what is true, as 0 and 1, the classes last."""
    prediction, target = as_value(prediction), as_value(target)
    if average == "binary" or prediction.rank == target.rank:
        if average == "binary" and prediction.rank == target.rank + 1:
            raise ShapeError(
                f"{caller}: prediction and target have different shapes",
                rows=[("prediction", str(prediction.type)), ("target", str(target.type))],
                hint=f'for more than two classes: {caller}(logits, label, average="macro"); '
                "for two, the logit of one: x[:, 0]",
            )
        prediction, target = matched(caller, prediction, target)
        predicted = cast(prediction > threshold, f32)
        true = cast(broadcast_to(target, prediction.shape) > 0.5, f32)
        if average != "binary":
            class_dim = _axis_of_classes(caller, prediction, target, axis, caller)
            predicted, true = (moveaxis(x, class_dim, -1) for x in (predicted, true))
    else:
        class_dim = _axis_of_classes(caller, prediction, target, axis, caller)
        class_numbers(caller, prediction, target, class_dim, caller)
        count = prediction.shape[class_dim]
        predicted = one_hot(argmax(prediction, class_dim), count, f32)
        true = one_hot(target, count, f32)
    return _masked(predicted, mask), _masked(true, mask)


def _axis_of_classes(caller: str, prediction: Value, label: Value, axis: int, binary: str) -> int:
    """The axis of the classes, counted from the front. Raises `ShapeError` where it is that of the
    rows: `binary` takes one number a row."""
    class_dim = class_axis(caller, prediction, axis)
    if prediction.rank == 1 and (label.rank or not isinstance(prediction.shape[0], int)):
        raise ShapeError(
            f"{caller}: {prediction.type} has no class axis beside that of the rows",
            rows=[("prediction", str(prediction.type)), ("label", str(label.type))],
            hint=f"for a yes-or-no class with one number per row: {binary}(x, label)",
        )
    return class_dim


def _masked(x: Value, mask: Any) -> Value:
    """`x`, 0 where the mask is False; it has the first axes of `x`."""
    if mask is None:
        return x
    counted = cast(rows_of(mask, x), boolean)
    return where(logical_and(counted, x > 0), 1.0, 0.0)


def _by_class(x: Value, count: Any) -> Value:
    return reshape(x, (-1, count))
