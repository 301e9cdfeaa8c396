"""The loop of a training: one step after the other, epochs, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import FeedError, TrainingError
from nncompile.ir.types import Array
from nncompile.program.recipe import minimize
from nncompile.runtime.runner import StepRunner
from nncompile.train.data import Batch, Feeder
from nncompile.train.divergence import diverged
from nncompile.train.events import Watchers
from nncompile.train.history import History
from nncompile.train.locate import NonFinite, locate_nonfinite
from nncompile.train.sums import Sums

Validate = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""What gives the metrics of held-out data at a state."""


@dataclass
class Epoch:
    """The epoch under way: how many came before it, the step it began with, and what its metrics
    are computed of, over the batches so far."""

    number: int
    start: int
    sums: Sums

    @classmethod
    def of(cls, compiled: CompiledStep, number: int = 0, start: int = 0, **sums: Any) -> Epoch:
        """An epoch with what its metrics are computed of so far. Raises `TypeError` for anything
        else."""
        source = compiled.source
        inputs = source.recipe.model.inputs
        return cls(number, start, Sums.restored(source.accumulation, inputs, **sums))

    def position(self) -> dict[str, Any]:
        """What a file holds of it."""
        return {"number": self.number, "start": self.start, **self.sums.stored()}


class Loop:
    """Makes the steps of a training with `runner`, and knows where it is: the epoch under way and
    the number of the step."""

    def __init__(self, compiled: CompiledStep, runner: StepRunner) -> None:
        self.compiled = compiled
        self.runner = runner
        self.model = compiled.source.recipe.model
        self.epoch = Epoch.of(compiled)
        self.stopping = False
        self._earlier = 0  # steps made before the runner's first
        self._losses = [u.loss for u in compiled.source.recipe.updates if isinstance(u, minimize)]

    @property
    def step(self) -> int:
        """The number of steps made."""
        # From the runner's own count, so that an interrupt cannot come between the two.
        return self._earlier + self.runner.steps

    def load(self, state: Mapping[str, Any], epoch: Epoch) -> None:
        """Goes on from that state within that epoch. Raises `FeedError` for one that does not
        fit."""
        self.runner.load(state)
        self._earlier = int(state["step"]) - self.runner.steps
        self.epoch = epoch

    def replace(self, state: Mapping[str, Any], moves: bool) -> None:
        """Goes on from that state; where it `moves`, its step is another one, with which a new
        epoch begins. Raises `FeedError` for one that does not fit."""
        if moves:
            self.load(state, Epoch.of(self.compiled, self.epoch.number, int(state["step"])))
        else:
            self.runner.load(state)

    def locate(self, batch: Batch, outputs: Sequence[str] = ()) -> NonFinite | None:
        """See `nncompile.train.trainer.Trainer.locate`."""
        return locate_nonfinite(self.compiled.step, {**self.runner.before(), **batch}, outputs)

    def run(
        self,
        feeder: Feeder,
        watchers: Watchers,
        ends: tuple[float, float],
        seed: int | None,
        validate: Validate | None,
    ) -> History:
        """Trains until that epoch or step, whichever comes first, and returns the metrics of each
        epoch. `seed` determines the order of the examples; without one, they are in theirs."""
        last_epoch, last_step = ends
        history = History()
        latest: Batch = {}
        self.stopping = False
        while self.epoch.number < last_epoch and self.step < last_step and not self.stopping:
            epoch = self.epoch
            order = None if seed is None else (seed, epoch.number)
            completed = True
            for examples in feeder.epoch(order, skip=self.step - epoch.start):
                if self.step >= last_step or self.stopping:
                    completed = False
                    break
                self._advance(examples, feeder, watchers)
                latest = examples
            if self.step == epoch.start:
                raise FeedError(
                    f"no batch for epoch {epoch.number + 1}",
                    hint="a generator can be read only once: pass a list of batches, or a function "
                    "that returns them anew",
                )
            means = epoch.sums.results()
            if validate is not None:
                watchers.tell("validation", epoch.number + 1, dict(means), latest)
                validated = validate(self.runner.state())
                means |= {f"val_{name}": validated[name] for name in self.model.metrics}
            history.epochs.append(means)
            number = epoch.number + 1
            if completed:  # in one assignment, between whose parts no interrupt can come
                self.epoch = Epoch.of(self.compiled, number, self.step)
            watchers.tell("epoch", number, means, latest)
        watchers.tell("end", self.epoch.number, history.last, latest)
        return history

    def _advance(self, batch: Batch, feeder: Feeder, watchers: Watchers) -> None:
        """One step, reported to the watchers; it is undone where one of them raises
        `TrainingError`."""
        sums = self.epoch.sums
        mark = sums.mark() if watchers.by_kind["step"] else None
        metrics = self._stepped(batch, feeder)
        try:
            watchers.tell("step", self.epoch.number + 1, metrics, batch)
        except TrainingError:
            if self.runner.undo() and mark is not None:
                sums.restore(mark)
            raise

    def _stepped(self, batch: Batch, feeder: Feeder) -> dict[str, float]:
        """One step; its metrics, which are added to the totals of the epoch."""
        self.runner.step(batch)
        outputs = self.runner.metrics()
        metrics = {name: float(outputs[name]) for name in self.model.metrics}
        for name in self._losses:
            if not math.isfinite(metrics[name]):
                infinite = feeder.infinite()
                origin = None if infinite else self.locate(batch, (name,))
                moment = f"step {self.step} (epoch {self.epoch.number + 1})"
                loss = f"{name} is {metrics[name]}"
                error = diverged(loss, moment, feeder.searched_data, infinite, origin)
                self.runner.undo()
                raise error
        self.epoch.sums.add(batch, {**outputs, **metrics}, feeder.examples(batch))
        return metrics
