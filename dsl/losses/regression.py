"""Losses of real predictions: how far they are from real targets of the same shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

from dsl.losses.declaration import Losses, Reducing, loss, pointwise
from dsl.losses.reduction import claimed, floating, matched, wide, within
from nncompile.diagnostics.errors import ShapeError
from nncompile.elementwise import (
    exp,
    log,
    log1p,
    maximum,
    minimum,
    softplus,
    stop_gradient,
    tanh,
    where,
)
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value
from nncompile.ops import expand_dims, mean


@pointwise
def mean_squared_error(prediction: Any, target: Any, **reducing: Unpack[Reducing]) -> Any:
    """(p − t)²; a target is of the prediction's shape, or one number."""
    return (prediction - target) ** 2


mse = mean_squared_error


@pointwise
def mean_absolute_error(prediction: Any, target: Any, **reducing: Unpack[Reducing]) -> Any:
    """|p − t|, with a gradient of 0 where they are equal."""
    return abs(prediction - target)


mae = mean_absolute_error


@pointwise
def huber(prediction: Any, target: Any, delta: float = 1.0, **reducing: Unpack[Reducing]) -> Any:
    """(p − t)²/2 where the error is within δ, else δ(|p − t| − δ/2) (Huber 1964)."""
    error = abs(prediction - target)
    within = minimum(error, delta)
    return within * (error - 0.5 * within)


def _log_cosh_gradient(prediction: Any, target: Any) -> Any:
    gradient = tanh(prediction - target)
    return gradient, -gradient


@pointwise(derivative=_log_cosh_gradient)
def log_cosh(prediction: Any, target: Any, **reducing: Unpack[Reducing]) -> Any:
    """log cosh(p − t): quadratic near 0, linear far away."""
    # cosh² = 1/(1 − tanh²), which loses nothing near 0, and is infinite far away; there cosh is
    # e^|x|·(1 + e^−2|x|)/2, of which near 0 nothing but rounding is left.
    error = abs(prediction - target)
    near = -0.5 * log1p(-(tanh(error) ** 2))
    return where(error < 1, near, error + softplus(-2 * error) - log(2.0))


@formula
def _pinball(prediction: Any, target: Any, quantile: Any) -> Any:
    error = target - prediction
    return maximum(quantile * error, (quantile - 1) * error)


@loss
def quantile_loss(
    prediction: Any,
    target: Any,
    quantile: float | Sequence[float] = 0.5,
    **reducing: Unpack[Reducing],
) -> Losses:
    """max(q·(t − p), (q − 1)·(t − p)), least where the prediction is the q-quantile of the target
    (R. Koenker and G. Bassett, "Regression Quantiles", 1978); "pinball loss" of scikit-learn.

    Of several quantiles, `quantile=(0.1, 0.5, 0.9)`, the predictions lie along the last axis, in
    that order; the target has no such axis, and the loss of a row is the mean of theirs. Raises
    `ModelError` for a quantile that is not from 0 to 1, `ShapeError` where the last axis is of
    another size.
    """
    if not isinstance(quantile, Sequence):
        prediction, target = matched("quantile_loss", prediction, target)
        quantile = within("quantile_loss", "quantile", quantile, 0.0, 1.0)
        return _pinball(prediction, target, quantile)
    levels = [within("quantile_loss", "quantile", q, 0.0, 1.0) for q in quantile]
    prediction = wide(prediction)
    if not levels or not prediction.rank or prediction.shape[-1] != len(levels):
        raise ShapeError(
            f"quantile_loss: the last axis of the prediction must hold the {len(levels)} quantiles",
            rows=[("prediction", str(prediction.type)), ("quantiles", str(tuple(levels)))],
            hint="Dense(3) predicts quantile=(0.1, 0.5, 0.9)",
        )
    _, target = matched("quantile_loss", prediction[..., 0], target)
    several = target if not target.rank else expand_dims(target, -1)
    return mean(_pinball(prediction, several, as_value(levels, like=prediction)), -1)


@formula
def _poisson_of_log(prediction: Any, target: Any) -> Any:
    return exp(prediction) - target * prediction


@formula
def _poisson(prediction: Any, target: Any, eps: Any) -> Any:
    return prediction - target * log(prediction + eps)


@formula
def _stirling(target: Any) -> Any:
    t = maximum(target, 1.0)
    return where(target > 1, t * log(t) - t + 0.5 * log(2 * math.pi * t), 0.0)


@loss
def poisson_loss(
    prediction: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    **reducing: Unpack[Reducing],
) -> Losses:
    """The negative logarithm of the Poisson probability of a count t, but for log t!, as torch's
    `poisson_nll_loss`: eᵖ − t·p where the prediction is the logarithm of the rate, else
    p − t·log(p + ε). `full` adds Stirling's t·log t − t + log(2πt)/2 for t > 1.

    A rate beyond the greatest number of its type is infinite: in f32, from p = 88.73 on.
    """
    prediction, target = matched("poisson_loss", prediction, target)
    hint = "counts are not negative; mask=… leaves missing ones out"
    target = claimed("poisson_loss", target, 0, None, hint, **reducing)
    losses = _poisson_of_log(prediction, target) if log_input else _poisson(prediction, target, eps)
    return losses + _stirling(target) if full else losses


@formula
def _gaussian(prediction: Any, target: Any, variance: Any, eps: Any) -> Any:
    # Bounded as torch's: the gradient at the bound is that of the variance there, not zero.
    v = where(variance < eps, variance + stop_gradient(eps - variance), variance)
    return 0.5 * (log(v) + (prediction - target) ** 2 / v)


@loss
def gaussian_nll(
    prediction: Any,
    target: Any,
    variance: Any,
    full: bool = False,
    eps: float = 1e-6,
    **reducing: Unpack[Reducing],
) -> Losses:
    """(log v + (p − t)²/v)/2, the negative logarithm of the normal density of t, but for
    log(2π)/2, which `full` adds (D. Nix and A. Weigend, 1994). The variance is of the
    prediction's shape, or one number.

    As torch's: the variance is at least ε, and its gradient is as if it were ε where it is less.
    """
    p, t, v = floating("gaussian_nll", prediction=prediction, target=target, variance=variance)
    losses = _gaussian(p, t, v, eps)
    return losses + 0.5 * math.log(2 * math.pi) if full else losses
