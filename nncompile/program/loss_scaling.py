"""Losses that are multiplied before they are differentiated, so that gradients of 16 bits are not
too small for them; and updates that are left out where that was too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Annotated

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import Check, Count, Options, real
from nncompile.elementwise import abs, isfinite, logical_and, where
from nncompile.ir.basic import cast, const
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, boolean, f32, i64
from nncompile.ops.reduction.sums import sum
from nncompile.optim.schedules import TRAINING
from nncompile.program.updated_state import Forms, UpdatedState

SCALE, TRACKER, SKIPPED = (f"{TRAINING}{x}" for x in ("loss_scale", "growth_tracker", "skipped"))
"""The states: the factor, the updates in a row that were finite, and how many were left out."""
_STATES = frozenset((SCALE, TRACKER, SKIPPED))


def _within(description: str, fits: Callable[[float], bool]) -> Check:
    def check(name: str, x: object) -> float:
        number = real(name, x)
        if not fits(number):
            raise ModelError(f"{name} must be {description}, got {number}")
        return number

    return check


def _is_positive_float32(x: float) -> bool:
    smallest, largest = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    return bool(smallest <= x <= largest)


class grad_scaler(Options):
    """Dynamic loss scaling, as `torch.amp.GradScaler` does it: gradients are those of the loss
    times a factor, divided by it again in float32. Where one is infinite or NaN, the step changes
    nothing but the factor, which is multiplied by `backoff_factor`; after `growth_interval` updates
    in a row without any, it is multiplied by `growth_factor`, unless it would be infinite then.

    The factor is the state `training.loss_scale`, `training.skipped` counts the updates that were
    left out, and `training.growth_tracker` those made since the factor changed.
    """

    init_scale: Annotated[float, _within("a positive float32", _is_positive_float32)] = 65536.0
    growth_factor: Annotated[float, _within("above 1", lambda x: x > 1)] = 2.0
    backoff_factor: Annotated[float, _within("above 0 and below 1", lambda x: 0 < x < 1)] = 0.5
    growth_interval: Count = 2000


@dataclass
class LossScaling:
    """The scaling of one step: of its losses, and of what its updates change."""

    scaler: grad_scaler
    updated: UpdatedState
    is_finite: Value | None = None
    _flags: list[Value] = field(default_factory=list)
    _batch: list[Forms] = field(default_factory=list)

    def __post_init__(self) -> None:
        init = const(self.scaler.init_scale, f32)
        for path, dtype in ((SCALE, f32), (TRACKER, i64), (SKIPPED, i64)):
            self.updated.slots[path] = Input(path, Type(dtype, ()), "state")()
        self.updated.first[SCALE] = init
        self.scale, self.tracker, self.skipped = (
            self.updated.slots[path] for path in (SCALE, TRACKER, SKIPPED)
        )
        self.updated.skipped = self.skipped

    def scaled(self, loss: Value) -> Value:
        """The loss times the factor."""
        return loss * cast(self.scale, loss.dtype)

    def unscaled(self, gradients: Iterable[Value]) -> list[Value]:
        """The gradients of the loss itself, in float32 at least."""
        return [
            wide / cast(self.scale, wide.dtype)
            for wide in (cast(g, g.dtype.computed) for g in gradients)
        ]

    def checked(self, gradients: Mapping[str, Value]) -> dict[Value, Value]:
        """What follows with an update: whether its gradients, of all batches since the last one,
        are finite."""
        flag = Input(f"{TRAINING}finite.{len(self._flags)}", Type(boolean, ()), "state")()
        self._flags.append(flag)
        return {flag: finite(gradients.values())}

    def check_batch(self, gradients: Forms) -> None:
        """Takes the gradients of this batch alone into what `of_batch` goes by."""
        self._batch.append(Forms(*([finite(form)] for form in gradients)))

    def of_batch(self, new: Value, old: Value) -> Forms:
        """`new`, which follows from the batch alone (running statistics), or `old` where its
        gradients are not finite."""
        forms = zip(*self._batch, strict=True)  # of all updates
        flags = (reduce(logical_and, [flag for (flag,) in form]) for form in forms)
        return Forms(*([where(flag, new, old)] for flag in flags))

    def settle(self) -> None:
        """Takes back what the updates changed where a gradient was not finite, and lets the
        factor follow. `is_finite` is by what it goes then in the update half."""
        updated, scaling = self.updated, {self.scale, self.tracker, self.skipped}
        for values in (updated.now, updated.split):
            is_finite = reduce(logical_and, [values.pop(flag) for flag in self._flags])
            self.is_finite = is_finite
            for leaf in values.keys() - updated.accumulators - scaling:
                if values[leaf] is not leaf:
                    values[leaf] = where(is_finite, values[leaf], leaf)
            values |= self._following(is_finite)

    def _following(self, is_finite: Value) -> dict[Value, Value]:
        """The next factor and counts."""
        scaler, due = self.scaler, self.updated.due
        grown = self.scale * scaler.growth_factor
        is_long = self.tracker + 1 >= scaler.growth_interval
        after = where(logical_and(is_long, isfinite(grown)), grown, self.scale)
        count = where(is_long, 0, self.tracker + 1)
        following = {
            self.scale: where(is_finite, after, self.scale * scaler.backoff_factor),
            self.tracker: where(is_finite, count, 0),
            self.skipped: where(is_finite, self.skipped, self.skipped + 1),
        }
        return {leaf: due(new, leaf) for leaf, new in following.items()}


def finite(gradients: Iterable[Value]) -> Value:
    """Whether every element of the gradients is finite: one boolean. Their magnitudes are added up,
    which takes a twentieth of the time of looking at each; sums beyond the largest float count as
    infinite."""
    sums = [sum(abs(g)) for g in gradients]
    result: Value = isfinite(reduce(lambda a, b: a + b, sums))
    return result


def in_scaling_of(
    tensors: Mapping[str, Array], state: Mapping[str, Type], scaler: grad_scaler | None
) -> dict[str, Array]:
    """The tensors of a state as a step takes them that scales its loss where the one that they are
    of did not, or the other way round: a training may go on, or be evaluated, in another
    precision. The factor and the counts are then those of a new training, or left out."""
    kept = {name: x for name, x in tensors.items() if name in state or name not in _STATES}
    if scaler is None or SCALE not in state or not _STATES.isdisjoint(tensors):
        return kept
    zero = np.zeros((), np.int64)
    return {**kept, SCALE: np.array(scaler.init_scale, np.float32), TRACKER: zero, SKIPPED: zero}
