"""A learning rate that falls where a metric no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import (
    Count,
    CountFromZero,
    Fraction,
    NotNegative,
    Options,
)
from nncompile.elementwise import maximum, where
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.optim.schedules import TRAINING, LearningRate, Stateful

NAME = "plateau"
STATES = ("factor", "best", "waited", "rested", "total")


class plateau(Options, Stateful):
    """A rate that falls where a metric no longer improves: `lr`, times `factor` whenever the metric
    has not improved for more than `patience` looks in a row (torch's ReduceLROnPlateau, with its
    cooldown and both kinds of threshold).

    `monitor` names an output of the model, of which the mean over each `every` steps (updates, of
    whose batches it is the mean, where the recipe accumulates) is looked at, within the training
    step itself. Without it, that is the output that the rate's own update minimizes or maximizes.
    The loss of one batch is noisy: torch and Keras look once an epoch, which is `every=` the steps
    of one. With `monitor=False` the step looks at nothing: the program that trains says what it
    measured, a validation loss for example, and puts the answer into the state:
    `trainer.set_params(rate.after(trainer.state, loss))`.

    An improvement is a metric below best·(1 − threshold), or below best − threshold where
    `threshold_mode` is "abs"; above best·(1 + threshold) in mode "max", which is the default
    for an output that the update maximizes. The rate never falls below `min_lr`.

    States, float32 numbers, are `training.NAME.factor` (what `lr` is multiplied by), `.best`,
    `.waited`, `.rested` and `.total`. The name is "plateau" unless another is given; where a recipe
    minimizes several losses, that of a rate that watches its own update's is "plateau.LOSS".
    """

    lr: LearningRate = 0.1
    monitor: str | Literal[False] | None = None
    every: Count = 1
    factor: Fraction = 0.1
    patience: CountFromZero = 10
    threshold: NotNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    mode: Literal["min", "max"] | None = None
    cooldown: CountFromZero = 0
    min_lr: NotNegative = 0.0
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.lr, Stateful):
            raise ModelError(
                "the learning rate of a plateau must be a number or a schedule, got "
                f"{type(self.lr).__name__}",
                hint="adjustable(plateau(0.1)) can be set",
            )
        if self.monitor is not False and not isinstance(self.monitor, str | None):
            raise ModelError(
                f"monitor must be the name of an output, got {self.monitor!r}",
                hint='monitor="loss"; monitor=False if the program drives it, see Plateau.after',
            )
        if self.threshold_mode not in ("rel", "abs"):
            raise ModelError(f"threshold_mode must be 'rel' or 'abs', got {self.threshold_mode!r}")
        if self.mode not in ("min", "max", None):
            raise ModelError(f"mode must be 'min' or 'max', got {self.mode!r}")

    @property
    def initial(self) -> dict[str, Value]:
        worst = -math.inf if self.mode == "max" else math.inf
        first = {"factor": 1.0, "best": worst}
        return {self._path(state): const(first.get(state, 0.0), f32) for state in STATES}

    @property
    def monitors(self) -> tuple[str, ...]:
        return (self.monitor,) if self.monitor else ()

    def of_loss(self, loss: str, maximized: bool, alone: bool) -> plateau:
        if self.monitor is not None:
            return self
        mode = self.mode or ("max" if maximized else "min")
        name = self.name or (None if alone else f"{NAME}.{loss}")
        return replace(self, monitor=loss, mode=mode, name=name)

    def __call__(self, step: Value) -> Value:
        base = cast(self.lr(step), f32) if callable(self.lr) else self.lr
        rate: Value = maximum(base * self._leaf("factor"), self.min_lr)
        return rate

    def following(self, outputs: Mapping[str, Value], step: Value) -> dict[str, Value]:
        if not self.monitor:
            return {}
        now = {state: self._leaf(state) for state in STATES}
        total = now["total"] + cast(outputs[self.monitor], f32)
        due = (step + 1) % self.every == 0 if self.every > 1 else None
        updated = self._advanced(now, total / self.every) | {"total": as_value(0.0, total)}
        if due is not None:
            late = {**now, "total": total}
            updated = {state: where(due, updated[state], late[state]) for state in STATES}
        return {self._path(state): updated[state] for state in STATES}

    def after(self, state: Mapping[str, Any], metric: float) -> dict[str, Any]:
        """The states of this schedule once `metric` was seen, from a whole state of the training;
        for a program that measures it itself. Raises `ModelError` where the step does."""
        if self.monitor is not False:
            watched = "the loss" if self.monitor is None else repr(self.monitor)
            raise ModelError(
                f"this plateau watches {watched} within the training step",
                hint="plateau(..., monitor=False) is driven by the program",
            )
        now = {s: np.float32(state[self._path(s)]) for s in STATES}
        updated = self._advanced(now, np.float32(metric))
        return {self._path(s): np.asarray(x, np.float32) for s, x in updated.items()}

    def _advanced(self, now: Mapping[str, Any], metric: Any) -> dict[str, Any]:
        """What a look at the metric makes of the states, values or arrays."""
        best = now["best"]
        least = self.mode != "max"
        sign = -1 if least else 1
        relative = self.threshold_mode == "rel"
        bound = best * (1 + sign * self.threshold) if relative else best + sign * self.threshold
        better = metric < bound if least else metric > bound
        waited = where(better, 0.0, now["waited"] + 1)
        waited = where(now["rested"] > 0, 0.0, waited)
        falls = waited > self.patience
        return {
            **now,
            "factor": where(falls, now["factor"] * self.factor, now["factor"]),
            "best": where(better, metric, best),
            "waited": where(falls, 0.0, waited),
            "rested": where(falls, float(self.cooldown), maximum(now["rested"] - 1, 0.0)),
        }

    def _leaf(self, state: str) -> Value:
        return Input(self._path(state), f32[()], "state")()

    def _path(self, state: str) -> str:
        return f"{TRAINING}{self.name or NAME}.{state}"
