"""The file of a model that holds its training step: see `nncompile.backends.onnx.training_info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.backends.onnx import add_training_info, check, combined, to_model
from nncompile.compiler.compile import CompiledModel, CompiledStep
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array
from nncompile.program.initialization import initial_expressions
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.recipe import Recipe
from nncompile.program.step import Step


def trainable_model(
    compiled: CompiledModel, step: CompiledStep, state: Mapping[str, Array], seed: int
) -> Any:
    """The inference model, whose weights stay as they are trained, with the step that trains them
    and the nodes that draw the first ones from `seed`. Raises `BackendError` for what the checker
    of onnx refuses."""
    graph, source = compiled.graph, step.source
    weights = {name: state[name] for name in graph.leaves if name in state}
    model = to_model(graph, compiled.opset, weights, compiled.source.metadata)
    first = {f"{path}.first": value for path, value in first_values(source).items()}
    numbers = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    initialization = to_model(Graph("initialization", first), step.opset, numbers)
    optimized = step.step
    add_training_info(
        model,
        step.step_model,
        initialization,
        state,
        {p: n for p, n in source.state_map.items() if p in optimized.leaves},
        {name.removesuffix(".first"): name for name in first},
    )
    check(model)
    check(combined(model))
    return model


def check_training_info(source: Model | Recipe, to: str, external_data: Any) -> None:
    """Raises `ModelError` where a file can hold no step."""
    if to != "onnx":
        raise ModelError(f"training_info is of the target onnx, not of {to}")
    if isinstance(source, Model):
        raise ModelError(
            f"training_info of model {source.name} needs a recipe",
            hint=f"say how it is trained: recipe = training({source.name}, optimizer=adam(1e-3))",
        )
    if external_data:
        raise ModelError(
            "a file with training_info holds its weights", hint="leave external_data out"
        )


def first_values(step: Step) -> dict[str, Value]:
    """The first value of each state of the step that its graph takes, of the leaves `seed` and
    `step` alone, as `Step.initial` computes it."""
    drawn = initial_expressions(step.model)
    leaves = {**step.model.parameters, **step.model.states}
    slots = replace(list(step.first.values()), {leaves[path]: x for path, x in drawn.items()})
    values = {**drawn, **dict(zip(step.first, slots, strict=True))}
    random = {n: v for n, v in step.step.leaves.items() if n in RANDOM_STATE}
    values |= random
    return {
        path: values[path] if path in values else full(type_.shape, 0, type_.dtype)
        for path, type_ in step.state.items()
        if path in step.step.leaves
    }
