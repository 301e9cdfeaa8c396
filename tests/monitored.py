"""Trainings to measure, and the lines of their models."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl import Dense, cross_entropy, f32, i64, model, sgd, training
from nncompile.ir.types import Array
from nncompile.program.recipe import Recipe
from nncompile.train import Probe
from nncompile.train.measurement import Measurement


def deep(activation: Any, init: Any, layers: int = 20, dtype: Any = f32, **options: Any) -> Recipe:
    """A classifier of so many hidden layers of 16 units."""

    @model
    def net(x=dtype["batch", 8], label=i64["batch"]):
        hidden = x
        for i in range(layers):
            hidden = hidden >> Dense(16, activation, init=init, name=f"layer{i}")
        logits = hidden >> Dense(4, init=init, name="out")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return training(net, **{"optimizer": sgd(0.1), **options})


def labelled(count: int = 64, dtype: str = "float32") -> dict[str, Array]:
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 8)).astype(dtype)
    return {"x": x, "label": random.integers(0, 4, count)}


def measured(recipe: Recipe, batch: dict[str, Array], seed: int = 0) -> Measurement:
    probe = Probe(recipe)
    return probe.measure(probe.compiled.source.initial(seed), batch)
