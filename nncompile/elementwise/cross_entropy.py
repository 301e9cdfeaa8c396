"""The cross-entropy of two classes, of a probability or its logit, with declared derivatives."""

from __future__ import annotations

from typing import Any

from nncompile.elementwise import abs, log, maximum, relu, sigmoid, softplus, where
from nncompile.elementwise.formula import formula


def _derivatives_at_probability(probability: Any, target: Any) -> Any:
    p, t = probability, target
    at_target = where(1 - p > 0, maximum(log(1 - p), -100), -100) - where(
        p > 0, maximum(log(p), -100), -100
    )
    return (p - t) / maximum(p * (1 - p), 1e-12), at_target


@formula(derivative=_derivatives_at_probability)
def cross_entropy_of_probability(probability: Any, target: Any) -> Any:
    """−t·log p − (1 − t)·log(1 − p); as torch's, logarithms are at least −100, and the derivative
    divides by at least 10⁻¹²."""
    at_one, at_zero = maximum(log(probability), -100), maximum(log(1 - probability), -100)
    return -(target * at_one + (1 - target) * at_zero)


def _derivatives_at_logit(logit: Any, target: Any) -> Any:
    return sigmoid(logit) - target, -logit


@formula(derivative=_derivatives_at_logit)
def cross_entropy_of_logit(logit: Any, target: Any) -> Any:
    """−t·log σ(z) − (1 − t)·log(1 − σ(z)), finite for every z."""
    # softplus(z) − z·t loses what is small beside z; here nothing cancels but the kinks, and so
    # the derivative is declared.
    at_margin = relu(logit) * (1 - target) + relu(-logit) * target
    return at_margin + softplus(-abs(logit))
