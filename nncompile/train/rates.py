"""The learning rates of a recipe at a step, for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nncompile.ir.graph import Input, input_of
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f64, i64
from nncompile.optim import Optimizer
from nncompile.optim.schedules import LearningRate, Schedule, Stateful, resolve
from nncompile.program.model import leaves_of
from nncompile.program.recipe import Recipe, minimize


def optimizers_of(recipe: Recipe) -> list[Optimizer]:
    """All optimizers of a recipe, in order."""
    return [optimizer for _, optimizer in _named(recipe)]


def learning_rate(recipe: Recipe, step: int) -> float | None:
    """The rate that step number `step` learns with, counted from 0. None where the recipe has
    several or none, and where it follows what the training measures, which the step does not
    tell."""
    rates = {optimizer.lr for optimizer in optimizers_of(recipe)}
    return rate_at(rates.pop(), step // recipe.accumulate, {}) if len(rates) == 1 else None


def learning_rates(
    recipe: Recipe, step: int, state: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """The rates that step number `step` learns with, by the parameters or the losses that they are
    for; one where all are the same. Of what follows the training, such as a plateau, the rate is
    that of the `state`, and there is none without."""
    several = {name: optimizer.lr for name, optimizer in _named(recipe)}
    if len(set(several.values())) == 1:
        several = {"learning rate": next(iter(several.values()))}
    updates = step // recipe.accumulate
    rates = {name: rate_at(rate, updates, state or {}) for name, rate in several.items()}
    return {name: rate for name, rate in rates.items() if rate is not None}


def follows_training(recipe: Recipe) -> bool:
    """Whether a rate follows what the training measures."""
    return any(isinstance(optimizer.lr, Stateful) for optimizer in optimizers_of(recipe))


def _named(recipe: Recipe) -> Iterator[tuple[str, Optimizer]]:
    """The optimizers by the loss, where there are several, and the parameters that they move."""
    updates = [u for u in recipe.updates if isinstance(u, minimize)]
    for i, update in enumerate(updates):
        losses = [u.loss for u in updates]
        loss = "" if len(updates) == 1 else update.loss
        if losses.count(update.loss) > 1:
            loss = f"{update.loss}, update {i + 1}"
        optimizer = update.optimizer
        if isinstance(optimizer, Optimizer):
            yield loss or "learning rate", optimizer
        else:
            for pattern, one in optimizer.items():
                yield f"{loss}: {pattern}" if loss else str(pattern), one


def rate_at(rate: LearningRate, updates: int, state: Mapping[str, Any]) -> float | None:
    """The rate after so many updates; None where the state lacks what it follows."""
    if isinstance(rate, int | float):
        return float(rate)
    if isinstance(rate, Schedule):
        return float(rate(float(updates)))
    value = resolve(rate, Input("step", i64[()], "state")(), f64)
    if isinstance(value, float):
        return value
    feeds = {**state, "step": np.asarray(updates, np.int64)}
    names = [input_of(leaf).name for leaf in leaves_of([value])]
    if any(name not in feeds for name in names):
        return None
    return float(evaluate(value, {name: feeds[name] for name in names}))
