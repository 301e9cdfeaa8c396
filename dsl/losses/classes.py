"""Losses of several classes: a logit (or log probability) for each class along one axis.

Labels are class indices, of the shape of the logits without that axis, or probabilities of their
shape. `weight` and `mask` are of one entry a row.
"""

from __future__ import annotations

from typing import Any, Unpack

from dsl.losses.declaration import Counted, Losses, Reducing, loss
from dsl.losses.reduction import claimed, matched, wide, within
from dsl.losses.suspects import warn_of_probabilities, without_log_softmax
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.elementwise import exp, log, maximum, relu, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value
from nncompile.ir.dims import is_one, same_shape
from nncompile.ir.interpreter import constant_value
from nncompile.ir.op import Value, described
from nncompile.ops import (
    cast,
    expand_dims,
    log_softmax,
    mean,
    one_hot,
    reshape,
    squeeze,
    take,
    take_along_axis,
)
from nncompile.ops import sum as sum_of

LOGITS = "pass the logits, it applies the softmax itself"
LOGARITHMS = "pass log_softmax(logits), or use cross_entropy(logits, label)"
PROBABILITIES = "pass probabilities or counts; mask=… leaves rows out"


@loss
def cross_entropy(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    class_weight: Any = None,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−Σ t·log softmax(logits) along `axis`.

    `label` is the number of the class, of the shape of the logits without the axis; or
    probabilities, of their shape, which are not negative. Smoothing by ε gives every class ε/n of
    the target. A label equal to `ignore_index` counts neither in the sum nor in the mean, which is
    0 where all are ignored (torch's is NaN). `class_weight` has a number for each class, which
    multiplies its term; as torch's, the mean then divides by the weights of the labels, by the
    number of rows where the labels are probabilities. Raises `ShapeError` where the shapes do not
    fit or there is one class only, `DTypeError` for class indices that are not integers,
    `ModelError` for constant ones that are not class numbers.
    """
    logits, label = _scores("cross_entropy", logits, label)
    axis = class_axis("cross_entropy", logits, axis)
    label = _claimed("cross_entropy", logits, label, **reducing)
    logits = without_log_softmax(logits, axis)
    warn_of_probabilities("cross_entropy", "logits", logits, LOGITS)
    return _negative_log_likelihood(
        "cross_entropy",
        log_softmax(logits, axis),
        label,
        axis,
        within("cross_entropy", "label_smoothing", label_smoothing, 0.0, 1.0),
        ignore_index,
        class_weight,
    )


@loss
def negative_log_likelihood(
    log_probability: Any,
    label: Any,
    *,
    axis: int = -1,
    ignore_index: int | None = None,
    class_weight: Any = None,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−Σ t·log p along `axis` of logarithms of probabilities, as `log_softmax` gives them: all else
    as `cross_entropy`, which is this of log softmax."""
    log_probability, label = _scores("negative_log_likelihood", log_probability, label)
    axis = class_axis("negative_log_likelihood", log_probability, axis)
    label = _claimed("negative_log_likelihood", log_probability, label, **reducing)
    warn_of_probabilities("negative_log_likelihood", "logarithms", log_probability, LOGARITHMS)
    return _negative_log_likelihood(
        "negative_log_likelihood", log_probability, label, axis, 0.0, ignore_index, class_weight
    )


def _scores(caller: str, logits: Any, label: Any) -> tuple[Value, Value]:
    """The logits (or logarithms), which are real, and the label. Raises `DTypeError` where they are
    not, or where an integer a row stands beside a number a row, which has no classes."""
    scores, label = wide(logits), as_value(label)
    rows = [("logits", *described(as_value(logits))), ("label", *described(label))]
    if not scores.dtype.is_float:
        swapped = label.dtype.is_float and label.rank == scores.rank + 1
        raise DTypeError(
            f"{caller}: the logits must be floating-point, got {scores.type}",
            rows=rows,
            hint=f"the logits come first: {caller}(logits, label)"
            if swapped
            else "logits are the output of a layer; x.astype(f32) converts",
        )
    if scores.rank == label.rank == 1 and label.dtype.is_integer:
        raise DTypeError(
            f"{caller}: the logits need a class axis that the class indices do not have",
            rows=rows,
            hint="logits are [batch, classes]; for one number per row: "
            "binary_cross_entropy_with_logits(x, label)",
        )
    return scores, label


def _claimed(caller: str, logits: Value, label: Value, **reducing: Unpack[Reducing]) -> Value:
    """The label, whose probabilities (or counts, as of words in a text) are not negative."""
    if label.rank != logits.rank:
        return label
    return claimed(caller, label, 0, None, PROBABILITIES, **reducing)


def _negative_log_likelihood(
    caller: str,
    log_probability: Value,
    label: Value,
    axis: int,
    smoothing: float,
    ignore_index: int | None,
    class_weight: Any,
) -> Losses:
    """The loss of each row, and what it counts in the divisor of a mean where that is not 1."""
    weight_of_class = None
    if class_weight is not None:
        weight_of_class = class_weights(caller, class_weight, log_probability, axis)
    if label.rank == log_probability.rank:
        has_one_class = label.dtype.is_integer and is_one(label.shape[axis])
        if has_one_class and not is_one(log_probability.shape[axis]):
            raise ShapeError(
                f"{caller}: class indices have no class axis, label is {label.type}",
                rows=[("logits", str(log_probability.type)), ("label", *described(label))],
                hint=f"squeeze(label, {axis}) removes it",
            )
        _, target = matched(caller, log_probability, label)
        several_classes(caller, log_probability, label, axis)
        if ignore_index is not None:
            raise ModelError("ignore_index needs class indices, the labels are probabilities")
        weighted = weighed(log_probability, weight_of_class, axis)
        losses = -sum_of(target * weighted, axis)
        return _smoothed(losses, weighted, axis, smoothing)
    class_numbers(caller, log_probability, label, axis, ignore_index=ignore_index)
    counted = None if ignore_index is None else label != ignore_index
    index = label if counted is None else where(counted, label, 0)
    losses = -_picked(log_probability, index, axis)
    counts = None
    if weight_of_class is not None:
        counts = take(weight_of_class, index)
        losses = losses * counts
    if smoothing:
        losses = _smoothed(losses, weighed(log_probability, weight_of_class, axis), axis, smoothing)
    if counted is not None:
        losses = where(counted, losses, 0.0)
        ones = cast(counted, losses.dtype)
        counts = ones if counts is None else counts * ones
    return Counted(losses, counts)


def _smoothed(losses: Value, terms: Value, axis: int, amount: float) -> Value:
    return (1 - amount) * losses + amount * -mean(terms, axis) if amount else losses


def _picked(x: Value, index: Value, axis: int) -> Value:
    """The element of each row that is that of its class."""
    return squeeze(take_along_axis(x, expand_dims(index, axis), axis), axis)


def weighed(x: Value, of_class: Value | None, axis: int) -> Value:
    """`x` times the weight of each class along `axis`; `x` itself without weights."""
    if of_class is None:
        return x
    along = [size if i == axis else 1 for i, size in enumerate(x.shape)]
    return x * reshape(of_class, along)


def class_weights(caller: str, class_weight: Any, logits: Value, axis: int) -> Value:
    """The class weights as a value of one number for each class. Raises `ShapeError` otherwise."""
    value = as_value(class_weight)
    if same_shape(value.shape, (logits.shape[axis],)) is not True:
        raise ShapeError(
            f"{caller}: class_weight needs one number for each class",
            rows=[("class_weight", str(value.type)), ("logits", str(logits.type))],
        )
    return cast(value, logits.dtype)


@formula
def _focused(log_probability: Any, gamma: Any) -> Any:
    return -(maximum(1 - exp(log_probability), 0.0) ** gamma) * log_probability


@loss
def focal_loss(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    gamma: float = 2.0,
    class_weight: Any = None,
    ignore_index: int | None = None,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−(1 − q)^γ·log q, q the softmax probability of the label's class (T.-Y. Lin and others,
    2017). `class_weight`, that paper's α, multiplies the losses of each class, and does not count
    in the divisor of the mean. γ = 0 is `cross_entropy`; others are at least 1."""
    logits, label, axis = class_numbers(
        "focal_loss", logits, label, axis, "binary_focal_loss", ignore_index
    )
    logits = without_log_softmax(logits, axis)
    warn_of_probabilities("focal_loss", "logits", logits, LOGITS)
    if gamma and gamma < 1:
        raise ModelError(f"focal_loss: gamma must be 0 or at least 1, got {gamma!r}")
    counted = None if ignore_index is None else label != ignore_index
    index = label if counted is None else where(counted, label, 0)
    losses = _focused(_picked(log_softmax(logits, axis), index, axis), gamma)
    if class_weight is not None:
        losses = losses * take(class_weights("focal_loss", class_weight, logits, axis), index)
    counts = None if counted is None else cast(counted, losses.dtype)
    losses = losses if counted is None else where(counted, losses, 0.0)
    return Counted(losses, counts)


@loss
def multiclass_hinge(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    margin: float = 1.0,
    p: int = 1,
    **reducing: Unpack[Reducing],
) -> Losses:
    """Σ max(0, margin − z[label] + z[j])^power / n over the n classes j but the label's (J. Weston
    and C. Watkins, 1999), as torch's `multi_margin_loss`; `power` is 1 or 2."""
    logits, label, axis = class_numbers("multiclass_hinge", logits, label, axis, "hinge")
    if p not in (1, 2):
        raise ModelError(f"multiclass_hinge: p must be 1 or 2, got {p!r}")
    label_logit = take_along_axis(logits, expand_dims(label, axis), axis)
    is_other = one_hot(label, logits.shape[axis], logits.dtype, axis) == 0
    return mean(where(is_other, relu(margin - label_logit + logits) ** p, 0.0), axis)


@formula
def _divergence(log_probability: Any, target: Any) -> Any:
    positive = target > 0
    return where(positive, target * (log(where(positive, target, 1.0)) - log_probability), 0.0)


@formula
def _divergence_of_logs(log_probability: Any, log_target: Any) -> Any:
    return exp(log_target) * (log_target - log_probability)


@loss
def kl_divergence(
    log_probability: Any,
    target: Any,
    *,
    axis: int = -1,
    log_target: bool = False,
    **reducing: Unpack[Reducing],
) -> Losses:
    """Σ t·(log t − log p) along `axis`: the Kullback–Leibler divergence of the predicted
    distribution, whose logarithms are given, from the target, given by its probabilities or, with
    `log_target`, their logarithms. 0·log 0 is 0.

    The mean is over the rows, as torch's "batchmean" of a matrix (torch's "mean" divides by the
    number of classes too).
    """
    log_probability, target = matched("kl_divergence", log_probability, target)
    warn_of_probabilities("kl_divergence", "logarithms", log_probability, LOGARITHMS)
    if not log_target:
        target = claimed("kl_divergence", target, 0, None, PROBABILITIES, **reducing)
    axis = class_axis("kl_divergence", log_probability, axis)
    terms = (_divergence_of_logs if log_target else _divergence)(log_probability, target)
    return sum_of(terms, axis)


def class_axis(caller: str, logits: Value, axis: int) -> int:
    """The axis of the classes, counted from the front."""
    if not -logits.rank <= axis < logits.rank:
        raise ShapeError(
            f"{caller}: {logits.type} has no class axis {axis}",
            rows=[("logits", *described(logits))],
            hint="logits are [batch, classes], one number for each class, before any mean",
        )
    return axis % logits.rank


def several_classes(
    caller: str,
    logits: Value,
    label: Value,
    axis: int,
    binary: str = "binary_cross_entropy_with_logits",
) -> None:
    """Raises `ShapeError` where there is one class only, which always has the greatest logit and
    all of the probability; `binary` is then the one to use instead."""
    if is_one(logits.shape[axis]):
        raise ShapeError(
            f"{caller}: axis {axis} has only one class, which is right whatever its logit",
            rows=[("logits", str(logits.type)), ("label", str(label.type))],
            hint=f"for a yes-or-no class with one number per row: {binary}(x[:, 0], label)",
        )


def class_numbers(
    caller: str,
    logits: Any,
    label: Any,
    axis: int,
    binary: str = "binary_cross_entropy_with_logits",
    ignore_index: int | None = None,
) -> tuple[Value, Value, int]:
    """The logits, one class number for each row of them, and the axis of the classes, counted from
    the front. Raises `ShapeError` or `DTypeError` where `label` does not hold such numbers,
    `ModelError` where it is a constant that holds others; see `several_classes` for `binary`."""
    logits, label = wide(logits), as_value(label)
    axis = class_axis(caller, logits, axis)
    rows = [("logits", str(logits.type)), ("label", str(label.type))]
    expected = logits.shape[:axis] + logits.shape[axis + 1 :]
    if same_shape(label.shape, expected) is not True:
        raise ShapeError(
            f"{caller}: the labels do not fit the logits",
            rows=rows,
            hint="class indices have the shape of the logits without the class axis, "
            "probabilities have the same shape",
        )
    several_classes(caller, logits, label, axis, binary)
    if not label.dtype.is_integer:
        raise DTypeError(
            f"{caller}: class indices must be integers", rows=rows, hint="label.astype(i64)"
        )
    count, numbers = logits.shape[axis], constant_value(label)
    if numbers is not None:
        wrong = (numbers < 0) | (numbers >= count) if isinstance(count, int) else numbers < 0
        wrong &= numbers != ignore_index if ignore_index is not None else True
        if wrong.any():
            raise ModelError(
                f"{caller}: the label {numbers[wrong][0]} is out of range for {count} classes",
                rows=rows,
                hint="labels are counted from 0; cross_entropy(…, ignore_index=-1) leaves "
                "examples out",
            )
    return logits, label, axis
