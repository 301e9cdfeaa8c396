"""A model of one function or layer, and what a model gives with its first weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from dsl import f32, model, parameter
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model


def outputs(of: Model, seed: int = 0, **inputs: Any) -> dict[str, Array]:
    """What the model gives with its first weights."""
    feeds = {"seed": np.int64(seed), "step": np.int64(0), **initial_values(of, seed), **inputs}
    known = of.graph.leaves
    return evaluate(of.graph, {n: x for n, x in feeds.items() if n in known})  # type: ignore[return-value]


def model_of(function: Callable[..., Any], **types: Type) -> Model:
    """The model whose output `y` is the function of inputs of those names and types."""

    def net(**inputs: Value) -> dict[str, Any]:
        return {"y": function(*inputs.values())}

    declared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=type_)
        for name, type_ in types.items()
    ]
    net.__signature__ = inspect.Signature(declared)  # type: ignore[attr-defined]  # which is read
    return model(net)


def built(layer: Any, type_: Type = f32["batch", 4, 8, 8]) -> Model:
    """A model of this layer."""
    return model_of(layer, x=type_)


def first_value(
    init: Any, shape: tuple[int, ...], seed: int = 0, dtype: Any = f32, **options: Any
) -> Any:
    """The first value of a parameter of that shape."""

    def scaled(x: Value) -> Value:
        return x * parameter("weight", shape, init, dtype, **options).sum().astype(f32)

    return initial_values(model_of(scaled, x=f32[()]), seed)["weight"]
