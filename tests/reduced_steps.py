"""What several processes make of a step together, in numpy: each computes the gradient half of its
rows of a batch, and all the update half of what was reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.program.half_stages import stages_of
from nncompile.program.reductions import Reduction
from nncompile.program.step import Step

Tensors = dict[str, Any]


def parts_of(batch: Tensors, sizes: Sequence[int]) -> list[Tensors]:
    """The rows of each process, and the number of the first; None of those that get none."""
    ends = np.cumsum(sizes)
    assert ends[-1] == len(next(iter(batch.values())))
    return [
        {n: x[end - size : end] for n, x in batch.items()} | {"first_row": np.int64(end - size)}
        for size, end in zip(sizes, ends, strict=True)
        if size
    ]


def reduced(rules: Mapping[str, Reduction], results: Sequence[Tensors], state: Tensors) -> Tensors:
    """The tensors of the whole batch, of those of its parts."""
    return {name: _reduced(name, rule, results, state) for name, rule in rules.items()}


def _reduced(name: str, rule: Reduction, results: Sequence[Tensors], state: Tensors) -> Any:
    parts = [np.asarray(r[name]) for r in results]
    match rule.kind:
        case "sum":
            return np.sum(parts, axis=0)
        case "max":
            return np.max(parts, axis=0)
        case "concatenate":
            return np.concatenate(parts)
        case "change":
            old = state[name.removesuffix(".next").removesuffix(".assigned")]
            return old + np.sum([x - old for x in parts], axis=0)
    weights = [1.0 if rule.weight is None else float(r[rule.weight]) for r in results]
    pairs = zip(weights, parts, strict=True)
    total = sum((w * x for w, x in pairs if w), np.zeros_like(parts[0]))
    return total / (sum(weights) or 1.0)


def graphs_of(step: Step) -> list[tuple[Graph, tuple[str, ...]]]:
    """The stages of the gradient half, each with what is reduced for the next ones."""
    stages = [(stage.graph, stage.reduced) for stage in stages_of(step)]
    return stages or [(step.gradient_of_rows, ())]


def step_of_several(step: Step, state: Tensors, batch: Tensors, sizes: Sequence[int]) -> Tensors:
    """The state after one step of processes with so many rows each. What a later stage of the
    gradient half takes is reduced before."""
    parts = parts_of(batch, sizes)
    known: list[Tensors] = [{} for _ in parts]
    given: Tensors = {}
    for graph, names in graphs_of(step):
        for part, own in zip(parts, known, strict=True):
            own |= evaluate(graph, {**state, **part, **own, **given})
        rules = {n: r for n, r in step.reductions.by_name.items() if n in known[0]}
        given = reduced({n: rules[n] for n in names}, known, state) | given
    whole = reduced(rules, known, state) | given
    outputs = {**whole, **evaluate(step.update, {**state, **whole})}
    return state | {path: outputs[name] for path, name in step.state_map.items()}
