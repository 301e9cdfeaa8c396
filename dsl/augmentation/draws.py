"""Random numbers as values of a model: the noise of a variational autoencoder, the latent points of
a generator, the times of a diffusion. What is drawn follows from the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.layers.noise import draw_key
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32
from nncompile.ops import normal, randint, uniform


@suggests_names
def random_normal(
    shape: Sequence[Any], mean: Any = 0.0, std: Any = 1.0, dtype: DType = f32
) -> Value:
    """Independent normal numbers, others at every call and in every step.

    `shape` may have symbolic sizes: `random_normal(x.shape)`. They are drawn after training too,
    where a checkpoint's seed and step decide them; an exported model has them fixed, so what is to
    differ there is an input of the model. `mean` and `std` are numbers or values that broadcast:
    with `std=exp(0.5 * log_variance)` gradients reach both (D. Kingma and M. Welling,
    "Auto-Encoding Variational Bayes", 2014). Raises `ModelError` outside a model.

    >>> from dsl import f32, model
    >>> @model
    ... def noisy(x=f32["batch", 3]):
    ...     return x + random_normal(x.shape, std=0.1)
    """
    return normal(draw_key("random_normal"), tuple(shape), mean, std, dtype)


@suggests_names
def random_uniform(
    shape: Sequence[Any], low: float = 0.0, high: float = 1.0, dtype: DType = f32
) -> Value:
    """Independent numbers, uniform over low ≤ x < high; see `random_normal`."""
    return uniform(draw_key("random_uniform"), tuple(shape), low, high, dtype)


@suggests_names
def random_integers(shape: Sequence[Any], low: int, high: int) -> Value:
    """Independent whole numbers, i64, uniform over low ≤ x < high; see `random_normal`."""
    return randint(draw_key("random_integers"), tuple(shape), low, high)


__all__ = [
    "random_integers",
    "random_normal",
    "random_uniform",
]
