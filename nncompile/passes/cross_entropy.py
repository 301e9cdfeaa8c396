"""The cross-entropy of a probability that is the sigmoid of a logit, as that of the logit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy as sp

from nncompile.elementwise import exp, maximum, sigmoid
from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.cross_entropy import (
    cross_entropy_of_logit,
    cross_entropy_of_probability,
)
from nncompile.elementwise.map import Map, body_of, is_plain, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.shape.moves import through_moves
from nncompile.passes.rewriter import on

_BOUND = sp.Integer(-100)  # torch's bound of the logarithms


@on(Map)
def cross_entropy_of_sigmoid(value: Value) -> Value | None:
    """The sigmoid of 17 is 1 in float32, and so would be that of more, where the loss may be
    greatest. The elements of the sigmoid may have been moved since, or be those of 1 − σ(−z)."""
    if len(value.args) > 2 or not body_of(value).has(_BOUND):
        return None
    first, last = value.args[0], value.args[-1]
    for probability, target in ((first, last), (last, first)):  # a Map sorts its arguments
        loss: Value = cross_entropy_of_probability(probability, target)
        # With its declared derivatives, or without them, once gradients are taken.
        if loss.args == value.args and body_of(loss) == body_of(value):
            logit = _logit_of(probability)
            return None if logit is None else cross_entropy_of_logit(logit, target)
    return None


@cross_entropy_of_sigmoid.refuses(f32[3], f32[3])
def _(x: Value, target: Value) -> Iterator[Any]:
    yield exp(x)
    yield maximum(x, -100)
    yield cross_entropy_of_probability(x, target)
    yield cross_entropy_of_probability(1 - x, target)
    yield cross_entropy_of_probability(2 * sigmoid(x), target)


def _logit_of(probability: Value) -> Value | None:
    """The z that all elements of a probability are the sigmoids of."""
    return through_moves(probability, _own_logit)


def _own_logit(p: Value) -> Value | None:
    if not is_plain(p):
        return None
    body = body_of(p)
    if body == 1 - placeholder(0):
        logit = _logit_of(p.args[0])
        return None if logit is None else -logit
    logit = mapped(body.args[0], p.args) if isinstance(body, h.sigmoid) else None
    return logit if logit is not None and logit.type == p.type else None
