"""Networks of vectors in jax."""

from __future__ import annotations

from typing import Any

import jax

from benchmarks.networks.in_jax.layers import Scope, dense, dropout


def perceptron(p: Scope, x: Any, widths: tuple[int, ...], drop: float = 0.0) -> Any:
    """`in_dsl.perceptron`."""
    for i in range(len(widths) - 2):
        x = dropout(p, jax.nn.relu(dense(p, f"hidden{i}", x)), drop)
    return dense(p, "head", x)


def bag(p: Scope, x: Any, words: int, width: int, length: int, classes: int = 4) -> Any:
    """`in_dsl.bag`."""
    x = p["words.weight"][x].mean(1)
    return dense(p, "head", jax.nn.relu(dense(p, "hidden", x)))
