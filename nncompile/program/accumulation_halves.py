"""A step in two that any number of batches, of any number of processes, may stand between.

`accumulate(state, batch) → (metrics, sums')` adds what a batch gives to sums in the state;
`apply(state) → state'` updates with them, and begins them anew. As many calls of the first as the
recipe accumulates batches, and one of the second, are so many of its steps; what processes have
summed up is added up between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nncompile.diagnostics.errors import ModelError
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.transform import replace as replaced
from nncompile.ops.random.generator import step_leaf
from nncompile.program.composition import compose
from nncompile.program.first_row import with_first_row
from nncompile.program.model import leaves_of
from nncompile.program.recipe import Recipe, assign
from nncompile.program.reductions import SUM, Reductions
from nncompile.program.step import Step
from nncompile.program.updated_state import Window


@dataclass(frozen=True)
class AccumulationHalves:
    """The graphs `accumulate` and `apply`, and how what the first gives is reduced."""

    accumulate: Graph
    apply: Graph
    reductions: Reductions


def accumulation_halves(recipe: Recipe) -> AccumulationHalves:
    """The two graphs of a recipe. Raises `ModelError` for one with rules beside gradients, which
    follow each batch in their turn."""
    rules = [update.path for update in recipe.updates if isinstance(update, assign)]
    if rules:
        raise ModelError(
            f"the rule for {rules[0]!r} is made at every step, and cannot be accumulated",
            hint="to='gradient' and to='update' are halves of a recipe with rules, too",
        )
    opened, applied = compose(recipe, Window.OPEN), compose(recipe, Window.APPLY)
    return AccumulationHalves(_accumulate(opened), _apply(applied), _shared(opened))


def _accumulate(step: Step) -> Graph:
    """Metrics, what a batch weighs, and the next value of what a batch changes."""
    changed = _changing(step)
    unchanged = {*step.state_map.values()} - changed
    outputs = {n: v for n, v in step.step.outputs.items() if n not in unchanged}
    outputs |= step.reductions.weights
    graph = _of(step, "accumulate", outputs)
    return with_first_row(graph, step.recipe.trained_model.examples)


def _apply(step: Step) -> Graph:
    """The next value of what an update changes. `accumulate` has counted the step, whose number is
    that before."""
    batch = set(step.recipe.trained_model.inputs.values())
    outputs = {
        name: v
        for name, v in step.step.outputs.items()
        if name in _changing(step) and name != "step.next" and batch.isdisjoint(leaves_of([v]))
    }
    number = step_leaf()
    values = replaced(list(outputs.values()), {number: number - 1})
    return _of(step, "apply", dict(zip(outputs, values, strict=True)))


def _shared(step: Step) -> Reductions:
    """The sums are those of all processes; what else follows a batch, as in the gradient half."""
    model, changing = step.recipe.model, _changing(step)
    owned = {"step", *model.parameters, *model.states}
    sums = [path for path, name in step.state_map.items() if path not in owned and name in changing]
    rules = dict.fromkeys([*sums, *(step.state_map[path] for path in sums)], SUM)
    return replace(step.reductions, by_name={**step.reductions.by_name, **rules})


def _changing(step: Step) -> set[str]:
    """The outputs that are the next value of a state, and not that itself."""
    leaves = step.step.leaves
    pairs = step.state_map.items()
    return {name for path, name in pairs if step.step.outputs[name] is not leaves[path]}


def _of(step: Step, stage: str, outputs: dict[str, Value]) -> Graph:
    graph = step.step
    needed = leaves_of(outputs.values())
    inputs = tuple(leaf for leaf in graph.inputs if leaf in needed)
    name = f"{step.recipe.model.name}_{stage}"
    return replace(graph, name=name, outputs=outputs, inputs=inputs)
