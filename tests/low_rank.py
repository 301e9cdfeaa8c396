"""A small network to adapt, and data for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl import Dense, MultiHeadAttention, f32, mean_squared_error, model, relu
from nncompile.program.model import Model


def network(adapt: Any = None) -> Model:
    """A small network, its layers made by way of `adapt`."""
    wrap = adapt or (lambda layer: layer)

    @model
    def net(x=f32["batch", "time", 6], target=f32["batch", "time", 4]):
        y = x >> wrap(Dense(8, relu, name="stem")) >> wrap(MultiHeadAttention(2, name="mix"))
        y = y >> wrap(Dense(4, name="head"))
        return {"y": y, "loss": mean_squared_error(y, target)}

    return net


def data(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(32, 3, 6)).astype(np.float32)
    return {"x": x, "target": np.tanh(x[..., :4] + x[:, :1, 2:])}
