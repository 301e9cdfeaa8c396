"""The learning rate of a recipe at a step, for people to read."""

from __future__ import annotations

from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, i64
from nncompile.optim import Optimizer
from nncompile.optim.schedules import Schedule, Stateful, resolve
from nncompile.program.recipe import Recipe, minimize


def optimizers_of(recipe: Recipe) -> list[Optimizer]:
    """All optimizers of a recipe, in order."""
    several = [u.optimizer for u in recipe.updates if isinstance(u, minimize)]
    return [o for x in several for o in ([x] if isinstance(x, Optimizer) else x.values())]


def learning_rate(recipe: Recipe, step: int) -> float | None:
    """The rate that step number `step` learns with, counted from 0. None where the recipe has
    several or none, and where it follows what the training measures, which the step does not
    tell."""
    rates = {optimizer.lr for optimizer in optimizers_of(recipe)}
    if len(rates) != 1:
        return None
    (rate,) = rates
    if isinstance(rate, int | float):
        return float(rate)
    updates = step // recipe.accumulate
    if isinstance(rate, Schedule):
        return float(rate(float(updates)))
    if isinstance(rate, Stateful):
        return None
    value = resolve(rate, Input("step", i64[()], "state")(), f32)
    return value if isinstance(value, float) else float(evaluate(value, {"step": updates}))
