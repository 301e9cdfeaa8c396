"""A model of one layer, and what a model gives with its first weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl import f32, model
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array, Type
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model


def outputs(of: Model, seed: int = 0, **inputs: Any) -> dict[str, Array]:
    """What the model gives with its first weights."""
    feeds = {"seed": np.int64(seed), "step": np.int64(0), **initial_values(of, seed), **inputs}
    known = of.graph.leaves
    return evaluate(of.graph, {n: x for n, x in feeds.items() if n in known})  # type: ignore[return-value]


def built(layer: Any, type_: Type = f32["batch", 4, 8, 8]) -> Model:
    """A model of this layer."""

    @model
    def net(x=type_):  # type: ignore[no-untyped-def]
        return {"y": x >> layer}

    return net
