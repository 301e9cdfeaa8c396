"""Optimizers in plain jax, with torch's defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Optimizer = tuple[Callable[[Any], Any], Callable[[Any, Any, Any], tuple[Any, Any]]]
BETAS, EPS = (0.9, 0.999), 1e-8


def optimizer(name: str, rate: float) -> Optimizer:
    """What makes the slots of parameters, and what makes the next parameters and slots of them and
    their gradients."""
    return {
        "sgd": _descent(rate, 0.0),
        "momentum": _descent(rate, 0.9),
        "adam": _adam(rate, 0.0),
        "adamw": _adam(rate, 0.01),
    }[name]


def _descent(rate: float, momentum: float) -> Optimizer:
    def initial(parameters: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, parameters) if momentum else ()

    def update(parameters: Any, slopes: Any, slots: Any) -> tuple[Any, Any]:
        if momentum:
            slots = jax.tree.map(lambda v, g: momentum * v + g, slots, slopes)
            slopes = slots
        return jax.tree.map(lambda w, g: w - rate * g, parameters, slopes), slots

    return initial, update


def _adam(rate: float, decay: float) -> Optimizer:
    first, second = BETAS

    def initial(parameters: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        return zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.zeros((), jnp.int32)

    def update(parameters: Any, slopes: Any, slots: Any) -> tuple[Any, Any]:
        m, v, count = slots
        count = count + 1
        m = jax.tree.map(lambda m, g: first * m + (1 - first) * g, m, slopes)
        v = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, v, slopes)
        step = rate / (1 - first**count)
        root = jnp.sqrt(1 - second**count)

        def moved(w: Any, m: Any, v: Any) -> Any:
            return w * (1 - rate * decay) - step * m / (jnp.sqrt(v) / root + EPS)

        return jax.tree.map(moved, parameters, m, v), (m, v, count)

    return initial, update
