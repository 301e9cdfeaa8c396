"""Parameters down their gradients, as their optimizers say: one by one, or a group together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.kinds import unfit
from nncompile.ir.basic import as_value, cast
from nncompile.ir.op import Value
from nncompile.ir.transform import Computation
from nncompile.ir.types import AnyType
from nncompile.ops.shape.joining import concatenate, sections
from nncompile.ops.shape.reshape import ravel, reshape
from nncompile.optim import Optimizer, Slots
from nncompile.optim.schedules import TRAINING
from nncompile.program.gradient_transforms import bounded
from nncompile.program.model_checks import check_same_type
from nncompile.program.recipe import Recipe, minimize
from nncompile.program.updated_state import UpdatedState

_PACKAGE = Optimizer.__module__.rpartition(".")[0]


def groups(
    recipe: Recipe, update: minimize, paths: Iterable[str]
) -> Iterable[tuple[Optimizer, list[str]]]:
    """The parameters with their optimizers: one by one, but for those of an optimizer that
    moves all of its own together."""
    by_key: dict[object, tuple[Optimizer, list[str]]] = {}
    for path in paths:
        optimizer = recipe.optimizer_of(update, path)
        key = optimizer if optimizer.together else path
        by_key.setdefault(key, (optimizer, []))[1].append(path)
    return by_key.values()


@dataclass
class Descent:
    """The way of parameters down their gradients, in the state `updated`. What an optimizer of this
    package does to parameters of one type is asked once, and then done to each of them."""

    updated: UpdatedState
    max_norm: float | None
    first: dict[tuple[int, AnyType], _Update] = field(default_factory=dict)

    def of(
        self, optimizer: Optimizer, trained: Mapping[str, Value], gradients: Mapping[str, Value]
    ) -> tuple[dict[Value, Value], dict[str, Value]]:
        """What follows the parameters of a group and their slots, and the slots by name. To an
        optimizer parameters of 16 bits are f32, and so are their slots: squares and small steps are
        lost in fewer bits."""
        updated = self.updated
        (owner, w), *_ = trained.items()
        w, g = wide(w), gradients[owner]
        if optimizer.together:
            owner = f"{TRAINING}{type(optimizer).__name__.lower()}"
            w = _vector(map(wide, trained.values()))
            g = _vector(gradients[path] for path in trained)
        known = self.first.get((id(optimizer), w.type))
        starts = optimizer.initial(w) if known is None else known.starts_of(w)
        slots = {slot: updated.slot(owner, slot, x) for slot, x in starts.items()}
        if known is None:
            new, slots_next = _updated(optimizer, w, g, slots, updated.number)
            if _follows_types(optimizer):
                first = _Update(optimizer, w, g, starts, slots, new, slots_next)
                self.first[id(optimizer), w.type] = first
        else:
            new, slots_next = known.on(w, g, slots)
        tensors = _split_like(new, list(trained.values())) if optimizer.together else [new]
        following = {slots[n]: updated.due(x, slots[n]) for n, x in slots_next.items()}
        for w, w_new in zip(trained.values(), tensors, strict=True):
            w_next = w_new if self.max_norm is None else bounded(w_new, self.max_norm)
            following[w] = updated.due(cast(w_next, w.dtype), w)
        return following, slots


def _follows_types(optimizer: Optimizer) -> bool:
    """Whether it does the same to all parameters of one type: those of this package do. One of
    one's own may look at anything in Python, or draw other numbers each time."""
    return type(optimizer).__module__.startswith(_PACKAGE)


@dataclass(frozen=True)
class _Update:
    """What an optimizer makes of a parameter `w`, its gradient and its slots, which begin with
    `starts`."""

    optimizer: Optimizer
    w: Value
    g: Value
    starts: Slots
    slots: Slots
    new: Value
    following: Mapping[str, Value]

    @cached_property
    def _starting(self) -> Computation:
        return Computation([*self.starts.values()], [self.w])

    @cached_property
    def _updating(self) -> Computation:
        results = [self.new, *self.following.values()]
        return Computation(results, [self.w, self.g, *self.slots.values()])

    def starts_of(self, w: Value) -> Slots:
        """What the slots of another parameter of this type begin with."""
        return dict(zip(self.starts, self._starting.on(w), strict=True))

    def on(self, w: Value, g: Value, slots: Slots) -> tuple[Value, Mapping[str, Value]]:
        """The same of another parameter of this type."""
        new, *following = self._updating.on(w, g, *[slots[name] for name in self.slots])
        return new, dict(zip(self.following, following, strict=True))


def _updated(
    optimizer: Optimizer, w: Value, g: Value, slots: Slots, number: Value
) -> tuple[Value, Mapping[str, Value]]:
    """What follows the parameter and its slots. Raises `ModelError` where `update` gives something
    else than one value for each, of its type."""
    update = f"update of {type(optimizer).__name__}"
    try:
        result: Any = optimizer.update(w, g, slots, number)
    except TypeError:
        problem = unfit(optimizer.update, w, g, slots, number)
        if problem is None:
            raise  # from within
        raise ModelError(
            f"{update} must take the parameter, its gradient, the slots and the step: {problem}",
            hint="def update(self, w, g, slots, step): ...",
        ) from None
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
        raise ModelError(
            f"{update} must return the next parameter and a dict of its slots, got {result!r}",
            hint="return w_next, {}, where there are no slots",
        )
    new, following = result
    if following.keys() != slots.keys():
        kept, given = (", ".join(sorted(names)) or "none" for names in (slots, following))
        raise ModelError(
            f"{update} must return the next value of each slot: {kept}, got {given}",
            hint="the property `slots` names them",
        )
    for role, old, x in (
        ("parameter", w, new),
        *((f"slot {name}", slots[name], x) for name, x in following.items()),
    ):
        check_same_type(f"{role} that {update} returns", old.type, as_value(x).type)
    return new, following


def wide(x: Value) -> Value:
    """The value with room for what training adds up: f32 in place of 16 bits."""
    return cast(x, x.dtype.computed)


def _vector(values: Iterable[Value]) -> Value:
    """All numbers of the tensors as one vector."""
    return concatenate([ravel(x) for x in values], 0)


def _split_like(vector: Value, like: Sequence[Value]) -> list[Value]:
    """The vector cut into tensors like these."""
    pieces = sections(vector, [math.prod(map(int, w.shape)) for w in like], 0)
    return [cast(reshape(x, w.shape), w.dtype) for x, w in zip(pieces, like, strict=True)]
