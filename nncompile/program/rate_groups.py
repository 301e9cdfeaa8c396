"""The learning rates of a recipe by group, and the recipe of which some can be set."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nncompile.optim import Optimizer, adjustable
from nncompile.optim.adjustable import NAME
from nncompile.optim.schedules import LearningRate
from nncompile.program.recipe import Recipe, minimize

Place = tuple[int, str | None, str | None]
"""Where an optimizer stands: the number of the update, the pattern, and the option of another
optimizer that holds it."""


@dataclass(frozen=True)
class RateGroup:
    """The parameters that follow one optimizer: what they are called, the loss that they descend,
    where the optimizer stands, and its rate. `settable` is that rate as one that can be set."""

    label: str
    loss: str
    place: Place
    rate: LearningRate
    settable: adjustable


def rate_groups(recipe: Recipe) -> dict[str, RateGroup]:
    """The groups of a recipe, by label: the pattern of the optimizer, the loss, or both, as far as
    they tell the groups apart. An optimizer within another is a group of its own where its rate is
    another one."""
    found = list(_found(recipe))
    groups: dict[str, RateGroup] = {}
    for update, label, place, optimizer in found:
        # Two updates alike are told apart by their numbers.
        name = label if label not in groups else f"{label} {place[0]}"
        path = None if len(found) == 1 else f"{NAME}.{_slug(name, groups)}"
        rate = optimizer.lr
        settable = rate if isinstance(rate, adjustable) else adjustable(rate, path)
        groups[name] = RateGroup(name, update.loss, place, rate, settable)
    return groups


def _found(recipe: Recipe) -> Iterator[tuple[minimize, str, Place, Optimizer]]:
    """The optimizers whose rates are their own, each with its update, a label and its place; as
    they are in the step, with rates that watch the loss of the update."""
    updates = {i: u for i, u in enumerate(recipe.updates) if isinstance(u, minimize)}
    losses = Counter(u.loss for u in updates.values())
    for number, update in updates.items():
        names = [update.loss] if len(losses) > 1 else []
        names += [_shown(update.params)] if losses[update.loss] > 1 else []
        for pattern, optimizer in _patterns(update):
            label = " ".join([*names, *([] if pattern is None else [pattern])]) or update.loss
            known = optimizer.of_loss(update.loss, update.maximize, len(losses) == 1)
            for option, inner in _apart(known):
                name = label if option is None else f"{label} {option}"
                yield update, name, (number, pattern, option), inner


def adjusted(recipe: Recipe, groups: Collection[RateGroup]) -> Recipe:
    """The recipe with rates that can be set in those groups; itself for none."""
    if not groups:
        return recipe
    updates = list(recipe.updates)
    for group in groups:
        number, pattern, option = group.place
        update = updates[number]
        assert isinstance(update, minimize)
        several = update.optimizer
        if isinstance(several, Optimizer):
            updates[number] = replace(update, optimizer=_changed(several, option, group))
        else:
            changed = {
                p: _changed(optimizer, option, group) if p == pattern else optimizer
                for p, optimizer in several.items()
            }
            updates[number] = replace(update, optimizer=changed)
    return replace(recipe, updates=tuple(updates))


def groups_of(names: Collection[str], groups: Iterable[RateGroup]) -> list[RateGroup]:
    """Those of the groups whose rate is set by one of the states `names`, and cannot be in the
    recipe as it is declared."""
    return [g for g in groups if not isinstance(g.rate, adjustable) and g.settable.path in names]


def with_rates_of(recipe: Recipe, names: Collection[str]) -> Recipe:
    """The recipe whose step has those of the states `names` that hold a rate that was set."""
    return adjusted(recipe, groups_of(names, rate_groups(recipe).values()))


def _patterns(update: minimize) -> list[tuple[str | None, Optimizer]]:
    optimizers = update.optimizer
    return [(None, optimizers)] if isinstance(optimizers, Optimizer) else [*optimizers.items()]


def inner_optimizers(optimizer: Optimizer) -> Iterator[tuple[str, Optimizer]]:
    """The optimizers that this one hands some parameters on to, by option."""
    for option in dataclasses.fields(optimizer):
        inner = getattr(optimizer, option.name)
        if isinstance(inner, Optimizer):
            yield option.name, inner


def _apart(optimizer: Optimizer) -> Iterator[tuple[str | None, Optimizer]]:
    """The optimizer, and those within it that have another rate."""
    yield None, optimizer
    yield from ((option, x) for option, x in inner_optimizers(optimizer) if x.lr != optimizer.lr)


def _changed(optimizer: Optimizer, option: str | None, group: RateGroup) -> Optimizer:
    """The optimizer with the rate of the group, and those within it that have the same rate; or
    with that one within it as `option`."""
    changes: dict[str, Any] = {
        name: replace(inner, lr=group.settable)
        for name, inner in inner_optimizers(optimizer)
        if (name == option if option is not None else inner.lr == optimizer.lr)
    }
    if option is None:
        changes["lr"] = group.settable
    return replace(optimizer, **changes)


def _shown(patterns: Any) -> str:
    return patterns if isinstance(patterns, str) else ", ".join(patterns)


def _slug(label: str, groups: Mapping[str, RateGroup]) -> str:
    """A label as a part of a path, which no other group has."""
    text = re.sub(r"\W+", "_", label).strip("_") or "all"
    taken = {g.settable.name for g in groups.values()}
    return text if f"{NAME}.{text}" not in taken else f"{text}_{len(groups)}"
