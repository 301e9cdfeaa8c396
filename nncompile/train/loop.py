"""The loop of a training: one step after the other, epochs, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import FeedError, ModelError, TrainingError
from nncompile.ir.types import Array
from nncompile.runtime.runner import StepRunner
from nncompile.train.callback_state import CallbackStates
from nncompile.train.data import Batch, Feeder
from nncompile.train.divergence import diverged
from nncompile.train.history import History
from nncompile.train.locate import NonFinite, locate_nonfinite
from nncompile.train.sums import Sums
from nncompile.train.watchers import Ticks, Watchers

Validate = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""What gives the metrics of held-out data at a state."""


@dataclass
class Epoch:
    """The epoch under way: how many came before it, the step it began with, and what its metrics
    are computed of, over the batches so far."""

    number: int
    start: int
    sums: Sums
    data: Mapping[str, Any] = field(default_factory=dict)  # what its batches are cut from
    may_be_left: bool = False  # fit ended within it as it was asked to

    @classmethod
    def of(
        cls,
        compiled: CompiledStep,
        number: int = 0,
        start: int = 0,
        data: Mapping[str, Any] | None = None,
        **sums: Any,
    ) -> Epoch:
        """An epoch with what its metrics are computed of so far. Raises `TypeError` or
        `ValueError` for anything else."""
        source = compiled.source
        inputs = source.recipe.model.inputs
        restored = Sums.restored(source.accumulation, inputs, **sums)
        return cls(int(number), int(start), restored, dict(data or {}))

    def position(self) -> dict[str, Any]:
        """What a file holds of it."""
        position = {"number": self.number, "start": self.start, "data": dict(self.data)}
        return {**position, **self.sums.stored()}

    def continued(self, compiled: CompiledStep, step: int) -> Epoch:
        """The same epoch at that step of another compilation; a new one, where its metrics are put
        together of other parts."""
        # Of a file, they may be those of the other compilation already.
        if self.sums.names != compiled.source.accumulation.parts.keys():
            return Epoch.of(compiled, self.number, step)
        epoch = Epoch.of(compiled, batches=self.sums.added.batches, **self.position())
        epoch.may_be_left = self.may_be_left
        return epoch

    def mismatch(self, data: Mapping[str, Any]) -> FeedError | None:
        """The error of an epoch that cannot be finished on such data, as batches of others were
        trained on already, or with other metrics (those of weighted examples)."""
        done = self.sums.added.batches
        then, now = sorted(self.sums.names), sorted(self.sums.plan.parts)
        if then != now:
            return FeedError(
                f"epoch {self.number + 1} was interrupted after {done} batches whose metrics add "
                "up otherwise, such as with or without weights of examples",
                rows=[("then", ", ".join(then)), ("now", ", ".join(now))],
                hint=_FINISHED,
            )
        names = dict.fromkeys((*self.data, *data)) if done and self.data else ()
        rows = [
            (name, f"{self.data.get(name, 'unknown')} then", f"{data.get(name, 'unknown')} now")
            for name in names
            if self.data.get(name) != data.get(name)
        ]
        if not rows:
            return None
        return FeedError(
            f"epoch {self.number + 1} was interrupted after {done} batches of other data "
            "or in another order, and cannot be finished on these",
            rows=rows,
            hint=_FINISHED,
        )


_FINISHED = "fit as then finishes it; trainer.begin_epoch() leaves it unfinished"


class Loop:
    """Makes the steps of a training with `runner`, and knows where it is: the epoch under way and
    the number of the step."""

    def __init__(self, compiled: CompiledStep, runner: StepRunner) -> None:
        self.compiled = compiled
        self.runner = runner
        self.model = compiled.source.recipe.model
        self._metrics = tuple(self.model.metrics)
        self.epoch = Epoch.of(compiled)
        self.stopping = False
        self.watchers: Watchers | None = None  # of the fit that is running, or the last one
        self._earlier_states: CallbackStates | None = None  # of a file, for the next fit
        self._running = False
        self._fits: dict[str, object] = {}  # the fit that is running, under one key
        self._earlier = 0  # steps made before the runner's first
        self._losses = compiled.source.recipe.losses

    @property
    def step(self) -> int:
        """The number of steps made."""
        # From the runner's own count, so that an interrupt cannot come between the two.
        return self._earlier + self.runner.steps

    def load(
        self, state: Mapping[str, Any], epoch: Epoch, callbacks: CallbackStates | None = None
    ) -> None:
        """Goes on from that state within that epoch; the callbacks of the next fit from theirs,
        unless this is called by one of a fit that is running. Raises `FeedError` for a state that
        does not fit."""
        self.runner.load(state)
        self._earlier = int(state["step"]) - self.runner.steps
        self.epoch = epoch
        self._forget()
        if not self._running:
            self._earlier_states = callbacks or CallbackStates()

    @property
    def callback_states(self) -> CallbackStates:
        """What the callbacks of the running or last fit carry over; what was loaded for those of
        the next one, after that."""
        if self._earlier_states is not None:
            return self._earlier_states
        return self.watchers.states(self.stopping) if self.watchers else CallbackStates()

    def _forget(self) -> None:
        if self.watchers is not None:
            self.watchers.forget()

    def replace(self, state: Mapping[str, Any], moves: bool) -> None:
        """Goes on from that state; where it `moves`, its step is another one, with which a new
        epoch begins. Raises `FeedError` for one that does not fit."""
        if moves:
            self.load(state, Epoch.of(self.compiled, self.epoch.number, int(state["step"])))
        else:
            self.runner.load(state)

    def recompiled(self, compiled: CompiledStep, runner: StepRunner) -> None:
        """Goes on with another step of the same state."""
        step = self.step
        self._earlier = step - runner.steps
        self.epoch = self.epoch.continued(compiled, step)
        self.compiled, self.runner = compiled, runner
        self.model = compiled.source.recipe.model

    def exchange(self, compiled: CompiledStep, runner: StepRunner) -> None:
        """Goes on with another step of the same model and metrics, whose runner takes the place of
        the present one."""
        self.compiled, self.runner = compiled, runner
        self.model = compiled.source.recipe.model

    def begin_epoch(self) -> None:
        """Leaves the epoch under way; its number is that of the next one."""
        self._forget()
        self.epoch = Epoch.of(self.compiled, self.epoch.number, self.step)

    def settle(self) -> None:
        """Undoes a step whose metrics were not added to those of the epoch, which is what an error
        or an interrupt between the two leaves. Where steps are made in place, it stays made."""
        made, added = self.step - self.epoch.start, self.epoch.sums.added
        if made > added.batches and not self.runner.undo() and self.runner.in_place:
            self.epoch.sums.added = added._replace(batches=made)

    def alone(self, fit: Callable[[], History]) -> History:
        """What that fit returns. Raises `ModelError` where another one is running: that of the
        callback that calls this one, or of another thread."""
        token = object()
        try:
            try:
                # One operation both asks and takes, for threads.
                if self._fits.setdefault("running", token) is not token:
                    raise ModelError(
                        "fit is running on this trainer already",
                        hint="another Trainer(recipe) trains beside it; a callback may call "
                        "evaluate, predict, save and stop",
                    )
                return fit()
            finally:
                self._release(token)
        finally:  # for an interrupt within the lines above
            self._release(token)

    def _release(self, token: object) -> None:
        if self._fits.get("running") is token:
            self._running = False
            del self._fits["running"]

    def locate(self, batch: Batch, outputs: Sequence[str] = ()) -> NonFinite | None:
        """See `nncompile.train.trainer.Trainer.locate`."""
        if self.runner.in_place:
            return None
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
        latest: Batch = {}
        stopping, self.stopping = self.stopping, False
        self.settle()
        history = self._resumed(feeder, watchers, seed, stopping)
        ticks = Ticks(watchers)
        while self.epoch.number < last_epoch and self.step < last_step and not self.stopping:
            epoch = self.epoch
            order = None if seed is None else (seed, epoch.number)
            if not self._is_rest(feeder, order):
                continue
            completed, latest = self._made(order, last_step, feeder, watchers, ticks, latest)
            if self.epoch is not epoch:  # a callback went on from another state
                continue
            latest = self._whole(epoch, feeder, order, latest)
            means = self.runner.concluded(epoch.sums).results()
            if validate is not None:
                watchers.tell("validation", epoch.number + 1, dict(means), latest)
                validated = validate(self.runner.views(self.compiled.source.trained_paths))
                means |= {f"val_{name}": validated[name] for name in self.model.metrics}
            history.epochs.append(means)
            number, count = epoch.number + 1, epoch.sums.added.batches
            if completed:  # in one assignment, between whose parts no interrupt can come
                self.epoch = Epoch.of(self.compiled, number, self.step)
            watchers.tell("epoch", number, means, latest, count)
        self.epoch.may_be_left = True
        watchers.tell("end", self.epoch.number, history.last, latest)
        return history

    def _is_rest(self, feeder: Feeder, order: tuple[int, int] | None) -> bool:
        """Whether the epoch under way goes on with these data: one that was interrupted, or that a
        file has, raises `FeedError` where they are others. One in which `fit` ended as it was asked
        to is left, and a new one begins."""
        data = feeder.identity(order)
        error = self.epoch.mismatch(data)
        if error is None:
            self.epoch.data = dict(data)
            return True
        if not self.epoch.may_be_left:
            raise error
        done = self.epoch.sums.added.batches
        feeder.notes.tell(
            f"epoch {self.epoch.number + 1} begins anew: {done} batches of it were of other data, "
            "or in another order"
        )
        self.begin_epoch()
        return False

    def _made(
        self,
        order: tuple[int, int] | None,
        last_step: float,
        feeder: Feeder,
        watchers: Watchers,
        ticks: Ticks,
        latest: Batch,
    ) -> tuple[bool, Batch]:
        """Makes the steps of the epoch that are left; whether it is complete, and the last batch
        (`latest` where there is no step left)."""
        epoch = self.epoch
        # One more than there are steps left says whether the epoch is complete.
        left = None if last_step == math.inf else int(last_step) - self.step + 1
        with closing(feeder.epoch(order, self.step - epoch.start, left)) as batches:
            for examples in batches:
                if self.step >= last_step or self.stopping:
                    return False, latest
                metrics = self._advance(examples, feeder, watchers)
                latest = examples
                ticks.step(epoch.number + 1, metrics, examples)
                if self.epoch is not epoch:
                    return False, latest
        return True, latest

    def _resumed(
        self, feeder: Feeder, watchers: Watchers, seed: int | None, stopping: bool
    ) -> History:
        """Lets the callbacks go on where those of the same fit were when it was interrupted, or
        saved; the history that begins with the epoch that they are told of."""
        earlier, before = self._earlier_states, self.watchers
        told = None
        if earlier is not None:
            told = watchers.resume(earlier)
        elif before is not None and before.has_same(watchers):
            told = before.told(stopping)
        self.watchers, self._earlier_states, self._running = watchers, None, True
        history = History()
        if told is not None:
            self.stopping = told.stopping
            order = None if seed is None else (seed, told.epoch - 1)
            last = _batch(feeder, order, told.batches)
            if told.kind == "epoch":
                history.epochs.append(dict(told.metrics))
            watchers.tell(
                told.kind, told.epoch, dict(told.metrics), last, told.batches, told.places
            )
        return history

    def _whole(
        self, epoch: Epoch, feeder: Feeder, order: tuple[int, int] | None, latest: Batch
    ) -> Batch:
        """The batch of the last step of an epoch that has no more: the latest, or, where all steps
        were made before an interrupt, what is read again. Raises `FeedError` without a step."""
        if self.step == epoch.start:
            raise FeedError(
                f"no batch for epoch {epoch.number + 1}",
                hint="a generator can be read only once: pass a list of batches, or a function "
                "that returns them anew",
            )
        return latest or _batch(feeder, order, epoch.sums.added.batches)

    def _advance(self, batch: Batch, feeder: Feeder, watchers: Watchers) -> dict[str, float]:
        """One step, reported to the watchers; it is undone where one of them raises
        `TrainingError`. Its metrics."""
        epoch = self.epoch
        mark = epoch.sums.added
        try:
            metrics = self._stepped(batch, feeder)
        except BaseException:
            self.settle()
            raise
        try:
            watchers.tell("step", epoch.number + 1, metrics, batch, epoch.sums.added.batches)
        except TrainingError:
            if self.epoch is epoch and self.runner.can_undo:
                epoch.sums.added = mark
                self.settle()
                watchers.forget()
            raise
        return metrics

    def _stepped(self, batch: Batch, feeder: Feeder) -> dict[str, float]:
        """One step; its metrics, which are added to the totals of the epoch. Raises
        `TrainingError` where a loss is not finite; the step is then to be undone."""
        self.runner.step(batch)
        outputs: dict[str, Any] = self.runner.metrics()
        metrics = {name: float(outputs[name]) for name in self._metrics}
        for name in self._losses:
            if not math.isfinite(metrics[name]):
                infinite = feeder.infinite()
                origin = None if infinite else self.locate(batch, (name,))
                moment = f"step {self.step} (epoch {self.epoch.number + 1})"
                loss = f"{name} is {metrics[name]}"
                rows = [*self.runner.trouble, *(infinite or (origin.rows if origin else ()))]
                raise diverged(loss, moment, feeder.searched_data, rows, bool(infinite), origin)
        outputs.update(metrics)
        computed = self.runner.computed(batch)
        self.epoch.sums.add(computed, outputs, feeder.examples(computed))
        return metrics


def _batch(feeder: Feeder, order: tuple[int, int] | None, number: int) -> Batch:
    """The batch of that number of an epoch, counted from one; none where it cannot be read."""
    with closing(feeder.epoch(order, max(0, number - 1), 1)) as batches:
        return next(iter(batches), {})
