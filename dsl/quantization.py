"""Models that learn as quantized ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.program.model import Model
from nncompile.program.quantization_aware import with_quantization

M = TypeVar("M", bound=Model)


@suggests_names
def quantization_aware(
    model: M,
    params: str | Sequence[str] = "*",
    momentum: float = 0.1,
    per_channel: bool = True,
) -> M:
    """The model with its matrix products and convolutions as 8-bit integers will compute them, so
    that it learns to do with these (B. Jacob et al., "Quantization and training of neural networks
    for efficient integer-arithmetic-only inference", 2018).

    Weights that `params` matches are rounded to whole numbers from −127 to 127, with a scale for
    each channel, or for the whole of them without `per_channel`; what enters such a product, to
    numbers from 0 to 255 over the range that was seen so far: the states `LAYER.input_low` and
    `LAYER.input_high`, which move by `momentum` towards the range of each batch. Gradients go
    straight through the rounding where nothing is cut off. Products of two activations, and those
    within loops, stay as they are.

    Paths of parameters stay the same, so that `trainer.load_params(other)` begins with what was
    trained in floats. The exported file holds the integers, and the ranges, in pairs of
    QuantizeLinear and DequantizeLinear. Raises `ModelError` where no product has a weight that is
    matched.
    """
    if not isinstance(model, Model):
        raise ModelError(
            f"quantization_aware takes a model, got {type(model).__name__}",
            hint="recipe = training(quantization_aware(net), optimizer=adam(1e-3))",
        )
    return with_quantization(model, params, momentum, per_channel)


__all__ = ["quantization_aware"]
