"""Losses of two classes: a probability, a logit or a margin for each example."""

from __future__ import annotations

from typing import Any, Unpack

from dsl.losses.declaration import Losses, Reducing, loss
from dsl.losses.reduction import claimed, matched, within
from dsl.losses.suspects import warn_of_probabilities
from nncompile.elementwise import exp, relu, softplus, where
from nncompile.elementwise.cross_entropy import (
    cross_entropy_of_logit,
    cross_entropy_of_probability,
)
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value
from nncompile.ir.op import Value
from nncompile.ops.core.assertions import in_range


@loss
def binary_cross_entropy(
    probability: Any,
    target: Any,
    *,
    label_smoothing: float = 0.0,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−t·log p − (1 − t)·log(1 − p) of probabilities. As torch's: logarithms are at least −100,
    and the derivative divides by at least 10⁻¹², so that p = 0 and p = 1 are finite. A p that is
    the sigmoid of a logit, or elements of one (`p[:, 0]`), needs no such bounds: the pass
    `stabilise` computes the loss of that logit. Targets are 0 and 1, or probabilities, and data
    that hold others are refused unless there is a weight or a mask; smoothing by ε moves them to
    (1 − ε)·t + ε/2."""
    probability, target = matched("binary_cross_entropy", probability, target)
    target = claimed("binary_cross_entropy", target, 0, 1, PARTLY, **reducing)
    target = _smoothed("binary_cross_entropy", target, label_smoothing)
    return cross_entropy_of_probability(probability, target)


@formula
def _with_positive_weight(logit: Any, target: Any, positive: Any) -> Any:
    return positive * target * softplus(-logit) + (1 - target) * softplus(logit)


@loss
def binary_cross_entropy_with_logits(
    logit: Any,
    target: Any,
    *,
    pos_weight: Any = None,
    label_smoothing: float = 0.0,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−w·t·log σ(z) − (1 − t)·log(1 − σ(z)), finite for every logit z. `pos_weight` is w, a number
    or one for each class (the last axis), which trades recall against precision, 1 without. Targets
    are 0 and 1, or probabilities, and data that hold others are refused unless there is a weight
    or a mask; smoothing by ε moves them to (1 − ε)·t + ε/2."""
    caller = "binary_cross_entropy_with_logits"
    logit, target = matched(caller, logit, target)
    warn_of_probabilities(caller, "logits", logit, "pass the logit, or use binary_cross_entropy")
    target = claimed(caller, target, 0, 1, PARTLY, **reducing)
    target = _smoothed("binary_cross_entropy_with_logits", target, label_smoothing)
    return (
        cross_entropy_of_logit(logit, target)
        if pos_weight is None
        else _with_positive_weight(logit, target, pos_weight)
    )


PARTLY = "for −1 and 1: (t + 1) / 2; for 0 … 255: t / 255; mask=… leaves targets out"


def _smoothed(caller: str, target: Value, amount: float) -> Value:
    if not within(caller, "label_smoothing", amount, 0.0, 1.0):
        return target
    return target * (1.0 - amount) + 0.5 * amount


@formula
def _focal(logit: Any, target: Any, gamma: Any) -> Any:
    # (1 − σ(z))^γ is exp(−γ·softplus(z)): no 0^γ, whose gradient is none.
    at_one = exp(-gamma * softplus(logit)) * softplus(-logit)
    at_zero = exp(-gamma * softplus(-logit)) * softplus(logit)
    return target * at_one + (1 - target) * at_zero


@loss
def binary_focal_loss(
    logit: Any,
    target: Any,
    gamma: float = 2.0,
    alpha: float | None = None,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−(1 − q)^γ·log q, q the probability that the logit gives the target (T.-Y. Lin and others,
    "Focal Loss for Dense Object Detection", 2017): examples that are right already count little.
    `alpha` weighs targets of 1, 1 − α those of 0. A target between 0 and 1 mixes both losses."""
    logit, target = matched("binary_focal_loss", logit, target)
    warn_of_probabilities("binary_focal_loss", "logits", logit, "pass the logit")
    target = claimed("binary_focal_loss", target, 0, 1, PARTLY, **reducing)
    losses = _focal(logit, target, float(gamma))
    if alpha is not None:
        alpha = within("binary_focal_loss", "alpha", alpha, 0.0, 1.0)
        losses = losses * (alpha * target + (1 - alpha) * (1 - target))
    return losses


@formula
def _hinge(prediction: Any, target: Any, margin: Any) -> Any:
    return relu(margin - prediction * target)


def _signed(caller: str, prediction: Any, target: Any) -> tuple[Value, Value]:
    """Both as values of one type and shape, the targets 0 as −1."""
    prediction = as_value(prediction)
    target = as_value(target, like=prediction)
    if target.dtype.is_integer:
        hint = "for classes a and b: where(label == a, -1, 1)"
        target = in_range(target, -1, 1, f"the targets of {caller} must be", hint)
    prediction, target = matched(caller, prediction, target)
    return prediction, where(target == 0, -1.0, target)


@loss
def hinge(
    prediction: Any,
    target: Any,
    margin: float = 1.0,
    **reducing: Unpack[Reducing],
) -> Losses:
    """max(0, margin − p·t), the targets being −1 and 1; 0 is taken for −1, as Keras' does, so that
    0 and 1 are targets too. Data that hold other integers are refused."""
    prediction, target = _signed("hinge", prediction, target)
    return _hinge(prediction, target, margin)


@loss
def perceptron_loss(
    prediction: Any,
    target: Any,
    **reducing: Unpack[Reducing],
) -> Losses:
    """max(0, −p·t), the targets being −1 and 1 (or 0 and 1, as with `hinge`): a step down its
    gradient is Rosenblatt's rule (1958), w + η·t·x where the sign is wrong."""
    prediction, target = _signed("perceptron_loss", prediction, target)
    return _hinge(prediction, target, 0.0)
