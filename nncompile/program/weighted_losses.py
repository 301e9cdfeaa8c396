"""Losses of a model that weigh each example, where it was declared without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.locations import recording_locations
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, same
from nncompile.ir.graph import Input, input_of, toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import replace as substituted
from nncompile.ir.types import Type, f32
from nncompile.ops import mean, ratio, reshape
from nncompile.ops import sum as sum_of
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.reduction.totals import Average
from nncompile.program.model import Model

WEIGHTS = "sample_weight"
"""The input that weighs the examples."""


def weighted(model: Model, losses: Sequence[str]) -> Model:
    """The model with an input `sample_weight`, f32[batch], that weighs the examples in these
    outputs: a mean over the examples, Σ loss / n, becomes Σ weight·loss / Σ weight, and a sum
    Σ weight·loss. What else is in an output, such as a penalty, stays. A model that has such an
    input is returned as it is.

    Raises `ModelError` where an output is made of the data in another way.
    """
    if WEIGHTS in model.inputs:
        return model
    if model.examples is None:
        raise _refused(model, losses[0], model.outputs[losses[0]], "it has no axis of examples")
    leaf = Input(WEIGHTS, Type(f32, (model.examples,)))()
    outputs = dict(model.outputs)
    with recording_locations(model.graph.locations):
        for name in losses:
            outputs[name] = _weighted(model, name, leaf)
    inputs = (*model.graph.inputs, leaf)
    return replace(model, graph=replace(model.graph, outputs=outputs, inputs=inputs))


def _weighted(model: Model, name: str, weights: Value) -> Value:
    """The output with weights in its outermost means and sums over the examples."""
    output = model.outputs[name]
    new: dict[Value, Value] = {}
    waiting, visited = [output], set()
    while waiting:
        value = waiting.pop()
        if value in visited or not _depends_on_data(value):
            continue
        visited.add(value)
        reduced = _reduced(value, weights, model.examples)
        if reduced is not None:
            new[value] = reduced
        elif value.rank or not value.args:
            reason = f"{value.type} is not a mean or a sum over its first axis, {model.examples}"
            raise _refused(model, name, value, reason)
        else:
            waiting += value.args
    (result,) = substituted([output], new)
    return result


def _reduced(value: Value, weights: Value, examples: Dim | None) -> Value | None:
    """A number that is a mean or a sum over the examples, weighted; None for others."""
    if value.rank:
        return None
    if isinstance(value.op, Average):
        total, counts = value.args
        losses, counted = _summed(total, examples), _summed(counts, examples)
        if losses is None or counted is None:
            return None
        return ratio(_total(losses, weights), _total(counted, weights))
    losses = _summed(value, examples)
    if losses is not None:
        return _total(losses, weights)
    for total in value.args:
        losses = _summed(total, examples)
        if losses is not None and mean(losses) is value:
            every = broadcast_to(_rows(weights, losses), losses.shape)
            return ratio(_total(losses, weights), sum_of(every))
    return None


def _summed(value: Value, examples: Dim | None) -> Value | None:
    """What has a row for each example, and is summed over all its axes."""
    if not isinstance(value.op, Sum) or value.rank:
        return None
    losses = value.args[0]
    if losses.rank and same(losses.shape[0], examples or 0) is True:
        return losses
    return None


def _total(losses: Value, weights: Value) -> Value:
    return sum_of(losses * _rows(weights, losses))


def _rows(weights: Value, losses: Value) -> Value:
    """The weights with as many axes as the losses, in their type."""
    shape = (weights.shape[0], *(1 for _ in range(losses.rank - 1)))
    return cast(reshape(weights, shape), losses.dtype)


def _depends_on_data(value: Value) -> bool:
    return any(isinstance(v.op, Input) and input_of(v).kind == "input" for v in toposort([value]))


def _refused(model: Model, name: str, value: Value, reason: str) -> ModelError:
    rows: list[Any] = [(name, str(model.outputs[name].type))]
    return ModelError(
        f"fit cannot weigh the examples in {name!r} of model {model.name}: {reason}",
        rows=rows,
        hint=f'declare an input {WEIGHTS}=f32["batch"], and say where it counts: '
        f"cross_entropy(logits, label, weight={WEIGHTS})",
        location=model.graph.locations.location(value),
    )
