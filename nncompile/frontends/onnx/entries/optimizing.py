"""ai.onnx.preview.training: one step of an optimizer, as ONNX defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncompile import elementwise as e
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const
from nncompile.ir.op import Value

_TRAINING = "ai.onnx.preview.training"


def _groups(tensors: tuple[Value, ...], slots: int) -> list[tuple[Value, ...]]:
    """The tensors of each parameter: itself, its gradient and its slots."""
    count = len(tensors) // slots
    return [tensors[i::count] for i in range(count)]


def _ordered(results: Sequence[tuple[Value, ...]], tensors: Sequence[Value]) -> tuple[Value, ...]:
    """All new parameters, then all new slots; of the types of the parameters, where that of the
    rate is another."""
    rows = [[cast(v, x.dtype) for v in row] for x, row in zip(tensors, results, strict=False)]
    return tuple(v for column in zip(*rows, strict=True) for v in column)


@imports("Adagrad", domain=_TRAINING)
def _adagrad(n: Node, rate: Value, step: Value, *tensors: Value) -> Any:
    decayed = rate / (1 + cast(step, rate.dtype) * const(n["decay_factor"], rate.dtype))
    results = []
    for x, g, h in _groups(tensors, 3):
        g = g + n["norm_coefficient"] * x
        total = h + g * g
        results.append((x - decayed * g / (e.sqrt(total) + n["epsilon"]), total))
    return _ordered(results, tensors)


@imports("Momentum", domain=_TRAINING)
def _momentum(n: Node, rate: Value, step: Value, *tensors: Value) -> Any:
    alpha, beta = n["alpha"], n["beta"]
    results = []
    for x, g, v in _groups(tensors, 3):
        g = g + n["norm_coefficient"] * x
        share = e.where(step > 0, const(beta, rate.dtype), const(1.0, rate.dtype))
        velocity = alpha * v + share * g
        change = g + alpha * velocity if n["mode"] == "nesterov" else velocity
        results.append((x - rate * change, velocity))
    return _ordered(results, tensors)


@imports("Adam", domain=_TRAINING)
def _adam(n: Node, rate: Value, step: Value, *tensors: Value) -> Any:
    alpha, beta = n["alpha"], n["beta"]
    count = cast(step, rate.dtype)
    results = []
    for x, g, v, h in _groups(tensors, 4):
        g = g + n["norm_coefficient"] * x
        first, second = alpha * v + (1 - alpha) * g, beta * h + (1 - beta) * g * g
        one = const(1.0, rate.dtype)
        corrected = (
            rate * e.sqrt(1 - e.power(beta * one, count)) / (1 - e.power(alpha * one, count))
        )
        now = e.where(step > 0, corrected, rate)
        y = x - now * first / (e.sqrt(second) + n["epsilon"])
        results.append(((1 - n["norm_coefficient_post"]) * y, first, second))
    return _ordered(results, tensors)
