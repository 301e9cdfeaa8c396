"""Losses: how far predictions are from targets, a mean over the batch unless `reduction` says
"sum" or "none"."""

from __future__ import annotations

from typing import Any, Literal

from nncompile.dims import same_shape
from nncompile.elementwise import log, maximum, minimum, relu, softplus, where
from nncompile.errors import DTypeError, ModelError, ShapeError
from nncompile.formula import formula
from nncompile.graph import Value
from nncompile.ops import (
    cast,
    expand_dims,
    log_softmax,
    mean,
    squeeze,
    take_along_axis,
)
from nncompile.ops import sum as total
from nncompile.ops.basic import as_value

Reduction = Literal["mean", "sum", "none"]


def reduced(losses: Value, reduction: Reduction) -> Value:
    """The mean, the sum, or the losses themselves. Raises `ModelError` for another word."""
    match reduction:
        case "mean":
            return mean(losses)
        case "sum":
            return total(losses)
        case "none":
            return losses
    raise ModelError(f'reduction is "mean", "sum" or "none", got {reduction!r}')


def matched(what: str, prediction: Any, target: Any) -> tuple[Value, Value]:
    """Both as values of one floating type and shape. Raises `ShapeError` where the shapes differ:
    broadcast, f32[batch, 1] against f32[batch] would compare everything with everything."""
    prediction = as_value(prediction)
    target = as_value(target, like=prediction)
    if not prediction.dtype.is_float:
        raise DTypeError(f"{what}: the prediction is {prediction.type}, not floating")
    if target.rank and same_shape(prediction.shape, target.shape) is not True:
        raise ShapeError(
            f"{what}: prediction and target have different shapes",
            rows=[("prediction", str(prediction.type)), ("target", str(target.type))],
            hint="squeeze or reshape one of them: x[:, 0], x.reshape(...)",
        )
    return prediction, cast(target, prediction.dtype)


@formula
def _squared(prediction: Any, target: Any) -> Any:
    return (prediction - target) ** 2


def mean_squared_error(prediction: Any, target: Any, reduction: Reduction = "mean") -> Value:
    """(p − t)²; a target is of the prediction's shape, or one number."""
    return reduced(_squared(*matched("mean_squared_error", prediction, target)), reduction)


mse = mean_squared_error


@formula
def _absolute(prediction: Any, target: Any) -> Any:
    return abs(prediction - target)


def mean_absolute_error(prediction: Any, target: Any, reduction: Reduction = "mean") -> Value:
    """|p − t|"""
    return reduced(_absolute(*matched("mean_absolute_error", prediction, target)), reduction)


mae = mean_absolute_error


@formula
def _huber(prediction: Any, target: Any, delta: Any) -> Any:
    error = abs(prediction - target)
    within = minimum(error, delta)
    return within * (error - 0.5 * within)


def huber(prediction: Any, target: Any, delta: float = 1.0, reduction: Reduction = "mean") -> Value:
    """(p − t)²/2 where the error is within δ, else δ(|p − t| − δ/2) (Huber 1964)."""
    prediction, target = matched("huber", prediction, target)
    return reduced(_huber(prediction, target, delta), reduction)


@formula
def _log_cosh(prediction: Any, target: Any) -> Any:
    error = prediction - target
    return abs(error) + softplus(-2 * abs(error)) - log(2.0)


def log_cosh(prediction: Any, target: Any, reduction: Reduction = "mean") -> Value:
    """log cosh(p − t): quadratic near 0, linear far away."""
    return reduced(_log_cosh(*matched("log_cosh", prediction, target)), reduction)


@formula
def _hinge(prediction: Any, target: Any, margin: Any) -> Any:
    return relu(margin - prediction * target)


def hinge(
    prediction: Any, target: Any, margin: float = 1.0, reduction: Reduction = "mean"
) -> Value:
    """max(0, margin − p·t), the targets being −1 and 1."""
    prediction, target = matched("hinge", prediction, target)
    return reduced(_hinge(prediction, target, margin), reduction)


def _cross_entropy_slope(probability: Any, target: Any) -> Any:
    p, t = probability, target
    at_target = where(1 - p > 0, maximum(log(1 - p), -100), -100) - where(
        p > 0, maximum(log(p), -100), -100
    )
    return (p - t) / maximum(p * (1 - p), 1e-12), at_target


@formula(slope=_cross_entropy_slope)
def _binary_cross_entropy(probability: Any, target: Any) -> Any:
    at_one, at_zero = maximum(log(probability), -100), maximum(log(1 - probability), -100)
    return -(target * at_one + (1 - target) * at_zero)


def binary_cross_entropy(probability: Any, target: Any, reduction: Reduction = "mean") -> Value:
    """−t·log p − (1 − t)·log(1 − p) of probabilities. As torch's: logarithms are at least −100,
    and the slope divides by at least 10⁻¹², so that p = 0 and p = 1 are finite."""
    probability, target = matched("binary_cross_entropy", probability, target)
    return reduced(_binary_cross_entropy(probability, target), reduction)


@formula
def _binary_cross_entropy_with_logits(logit: Any, target: Any) -> Any:
    return softplus(logit) - logit * target


def binary_cross_entropy_with_logits(
    logit: Any, target: Any, reduction: Reduction = "mean"
) -> Value:
    """−t·log σ(z) − (1 − t)·log(1 − σ(z)) = softplus(z) − t·z, finite for every z."""
    logit, target = matched("binary_cross_entropy_with_logits", logit, target)
    return reduced(_binary_cross_entropy_with_logits(logit, target), reduction)


def cross_entropy(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Value:
    """−Σ t·log softmax(logits) along `axis`.

    `label` is the number of the class, of the shape of the logits without the axis; or
    probabilities, of their shape. Smoothing by ε gives every class ε/n of the target. A label
    equal to `ignore_index` counts neither in the sum nor in the mean. Raises `ShapeError` where
    the shapes do not fit, `DTypeError` for class numbers that are not integers.
    """
    logits, label = as_value(logits), as_value(label)
    axis = _class_axis("cross_entropy", logits, axis)
    log_probability = log_softmax(logits, axis)
    smooth = -mean(log_probability, axis) if label_smoothing else None
    if label.rank == logits.rank:
        _, target = matched("cross_entropy", logits, label)
        if ignore_index is not None:
            raise ModelError("ignore_index is a class number, the labels are probabilities")
        losses = -total(target * log_probability, axis)
    else:
        class_numbers("cross_entropy", logits, label, axis)
        counted = None if ignore_index is None else label != ignore_index
        index = label if counted is None else where(counted, label, 0)
        picked = take_along_axis(log_probability, expand_dims(index, axis), axis)
        losses = -squeeze(picked, axis)
        if counted is not None:
            return _of_counted(_smoothed(losses, smooth, label_smoothing), counted, reduction)
    return reduced(_smoothed(losses, smooth, label_smoothing), reduction)


def _smoothed(losses: Value, smooth: Value | None, amount: float) -> Value:
    return losses if smooth is None else (1 - amount) * losses + amount * smooth


def _of_counted(losses: Value, counted: Value, reduction: Reduction) -> Value:
    losses = where(counted, losses, 0.0)
    if reduction != "mean":
        return reduced(losses, reduction)
    share: Value = total(losses) / total(cast(counted, losses.dtype))
    return share


def _class_axis(what: str, logits: Value, axis: int) -> int:
    if not -logits.rank <= axis < logits.rank:
        raise ShapeError(f"{what}: the logits {logits.type} have no axis {axis}")
    return axis % logits.rank


def class_numbers(what: str, logits: Value, label: Value, axis: int) -> None:
    """Raises where `label` does not hold one class number for each row of logits."""
    rows = [("logits", str(logits.type)), ("label", str(label.type))]
    expected = logits.shape[:axis] + logits.shape[axis + 1 :]
    if same_shape(label.shape, expected) is not True:
        raise ShapeError(
            f"{what}: the labels do not fit the logits",
            rows=rows,
            hint="class numbers have the shape of the logits without the classes, "
            "probabilities the same shape",
        )
    if not label.dtype.is_integer:
        raise DTypeError(f"{what}: class numbers are integers", rows=rows, hint="label.astype(i64)")
