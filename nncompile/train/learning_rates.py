"""Learning rates that are read and set while a model is trained."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.diagnostics.options import not_negative
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.optim import adjustable
from nncompile.optim.adjustable import AS_DECLARED
from nncompile.program.model import Model
from nncompile.program.rate_groups import RateGroup, adjusted, groups_of, rate_groups
from nncompile.program.recipe import Recipe
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import StepRunner
from nncompile.train.loop import Loop
from nncompile.train.metrics_every import steps_ahead
from nncompile.train.parallel import Parallel
from nncompile.train.rates import rate_at

Rate = float | Mapping[str, float | None] | None
"""A number, None for what the recipe says, or one for each group by its label."""


@dataclass
class Adjustments:
    """The step of a recipe as it was `declared`, and those of which some rates can be set, each
    compiled when it is first needed, for all trainers that share the declared one."""

    declared: CompiledStep

    def __post_init__(self) -> None:
        self.groups = rate_groups(self.declared.source.recipe)

    def chosen(self, group: str | None) -> list[RateGroup]:
        """The group of that label, those of that loss, or all. Raises `ModelError` where there is
        none."""
        every = list(self.groups.values())
        if not every:
            raise ModelError("the recipe has no learning rate: no update follows a gradient")
        if group is None:
            return every
        found = [self.groups[group]] if group in self.groups else []
        found = found or [g for g in every if g.loss == group]
        if not found:
            raise ModelError(
                f"the recipe has no group {group!r} of a learning rate",
                rows=[("group", g.label, str(g.rate)) for g in every],
                hint=did_you_mean(group, self.groups),
            )
        return found

    def of_state(self, names: Collection[str], more: Collection[RateGroup] = ()) -> CompiledStep:
        """The step whose state has those of these names that hold rates, and can set `more`."""
        able = groups_of({*names, *(g.settable.path for g in more)}, self.groups.values())
        if not able:
            return self.declared
        key = tuple(g.label for g in able)
        variants = self.declared.variants
        if key not in variants:
            recipe = adjusted(self.declared.source.recipe, able)
            variants[key] = compile_step(recipe, self.declared.without)
        return variants[key]


class SettableRates:
    """What a trainer has of learning rates. A step is compiled again when one is first set: it then
    has the rate as a state, beside those it had."""

    compiled: CompiledStep
    recipe: Recipe
    model: Model
    providers: Provider | Sequence[Provider]
    threads: int | None
    native: bool | None
    in_place: bool
    metrics_every: int | None
    parallel: Parallel | None
    _loop: Loop
    _adjustments: Adjustments

    @property
    def declared(self) -> CompiledStep:
        """The step of the recipe as it was declared, whatever rates were set."""
        return self._adjustments.declared

    @property
    def steps_ahead(self) -> int:
        """How many steps are made before their metrics are read."""
        return self._loop.ahead

    @property
    def learning_rate(self) -> float | dict[str, float]:
        """The rate of the next step; where optimizers have rates of their own, those of the groups
        by their labels, such as the patterns of a recipe. Setting it is `set_learning_rate`."""
        rates = {g.label: self._rate(g) for g in self._adjustments.chosen(None)}
        return rates if len(rates) > 1 else next(iter(rates.values()))

    @learning_rate.setter
    def learning_rate(self, rate: Rate) -> None:
        self.set_learning_rate(rate)

    def set_learning_rate(self, rate: Rate, group: str | None = None) -> None:
        """Makes the next steps with this rate: of all parameters, or of one `group`, which is the
        label of `learning_rate`, or the loss that several of them minimize; a dict has rates by
        group. None is what the recipe says again: a schedule is then where it would be without.

        It stays until another is set, also in checkpoints, copies and exported steps. A callback
        may set it. The first time, the step is compiled again; `adjustable` in the recipe does
        without. A schedule in the recipe is part of what is exported, and needs no program.

        Raises `ModelError` for a rate that is negative or not finite, and for an unknown group.
        """
        by_group = rate if isinstance(rate, Mapping) else {group: rate}
        if isinstance(rate, Mapping) and group is not None:
            raise ModelError("give either a group, or rates by group")
        chosen = [
            (g, _checked(x)) for n, x in by_group.items() for g in self._adjustments.chosen(n)
        ]
        # What is as the recipe has it needs no other step.
        new = [(g, x) for g, x in chosen if self._can_set(g) or x not in (None, g.rate)]
        self._go_on_with(
            self._adjustments.of_state(self.compiled.source.state, [g for g, _ in new])
        )
        self._loop.runner.put({g.settable.path: _number(g.settable, x) for g, x in new})

    def _can_set(self, group: RateGroup) -> bool:
        return group.settable.path in self.compiled.source.state

    def _rate(self, group: RateGroup) -> float:
        rate = group.settable if self._can_set(group) else group.rate
        names = [p for p in group.settable.initial if p in self.compiled.source.state]
        updates = self._loop.step // self.recipe.accumulate
        now = rate_at(rate, updates, self._loop.runner.views(names))
        assert now is not None  # the state has all that it follows
        return now

    def _runner(
        self, compiled: CompiledStep, state: Mapping[str, Any], after: StepRunner | None = None
    ) -> StepRunner:
        """A runner of that step, which may take the place of another: of this process, or of
        several."""
        options = after, self.native, self.in_place
        if self.parallel is not None:
            return self.parallel.runner(compiled, state, self.providers, self.threads, *options)
        ahead = steps_ahead(self.metrics_every, self.providers, state, self.in_place)
        return compiled.runner(state, self.providers, self.threads, None, *options, ahead)

    def _go_on_with(self, compiled: CompiledStep, state: Mapping[str, Array] | None = None) -> None:
        """Makes the next steps with that step, of which other rates can be set, from the present
        state or from this one."""
        if compiled is self.compiled:
            return
        loop = self._loop
        source = compiled.source
        known = loop.runner.state() if state is None else state
        first = {p: evaluate(x, {}) for p, x in source.first.items() if p not in known}
        whole = {path: known[path] if path in known else first[path] for path in source.state}
        loop.exchange(compiled, self._runner(compiled, whole, loop.runner))
        vars(self).update(compiled=compiled, recipe=source.recipe, model=source.recipe.model)


def _checked(rate: Any) -> float | None:
    if rate is None:
        return None
    number = not_negative("a learning rate", rate)
    if math.isinf(number):
        raise ModelError(f"a learning rate must be finite, got {number}")
    return number


def _number(rate: adjustable, number: float | None) -> Array:
    """What the state of the rate is for that number; for None, what it begins with."""
    declared = AS_DECLARED if rate.declared is None else rate.declared
    return np.array(declared if number is None else number, np.float64)
