"""The loop of a training: one step after the other, epochs, and what is told of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.ir.types import Array
from nncompile.runtime.runner import StepRunner
from nncompile.train.callback_state import CallbackStates
from nncompile.train.data import Batch, Feeder
from nncompile.train.epoch import Epoch
from nncompile.train.history import History
from nncompile.train.stepping import Steps
from nncompile.train.watchers import Ticks, Watchers

Validate = Callable[[Mapping[str, Array]], Mapping[str, Any]]
"""What gives the metrics of held-out data at a state."""


class Loop(Steps):
    """Makes the steps of a training, epoch by epoch, and goes on where it was."""

    def __init__(self, compiled: CompiledStep, runner: StepRunner) -> None:
        super().__init__(compiled, runner)
        self.model = compiled.source.recipe.model
        self.stopping = False
        self._earlier_states: CallbackStates | None = None  # of a file, for the next fit
        self._running = False
        self._fits: dict[str, object] = {}  # the fit that is running, under one key

    def load(
        self, state: Mapping[str, Any], epoch: Epoch, callbacks: CallbackStates | None = None
    ) -> None:
        """Goes on from that state within that epoch; the callbacks of the next fit from theirs,
        unless this is called by one of a fit that is running. Raises `FeedError` for a state that
        does not fit."""
        self.runner.load(state)
        self._earlier = int(state["step"]) - self._runner.steps
        self.epoch = epoch
        self._unread.clear()
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
        self.compiled, self._runner = compiled, runner
        self.model = compiled.source.recipe.model

    def exchange(self, compiled: CompiledStep, runner: StepRunner) -> None:
        """Goes on with another step of the same model and metrics, whose runner takes the place of
        the present one."""
        self.compiled, self._runner = compiled, runner
        self.model = compiled.source.recipe.model

    def begin_epoch(self) -> None:
        """Leaves the epoch under way; its number is that of the next one."""
        self.fetch()
        self._forget()
        self.epoch = Epoch.of(self.compiled, self.epoch.number, self.step)

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
        self._is_reading, self._unread.before = False, {}
        try:
            return self._run(feeder, watchers, ends, seed, validate)
        except BaseException:
            self._is_reading = False
            self.fetch()  # who may be told late is told of what was made
            raise

    def _run(
        self,
        feeder: Feeder,
        watchers: Watchers,
        ends: tuple[float, float],
        seed: int | None,
        validate: Validate | None,
    ) -> History:
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
            self.fetch()
            if self.epoch is not epoch:  # a callback went on from another state
                continue
            latest = self._whole(epoch, feeder, order, latest)
            means = self._runner.concluded(epoch.sums).results()
            if validate is not None:
                watchers.tell("validation", epoch.number + 1, dict(means), latest)
                validated = validate(self._runner.views(self.compiled.source.trained_paths))
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
                self._advance(examples, watchers, ticks)
                latest = examples
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
        self._feeder = feeder
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


def _batch(feeder: Feeder, order: tuple[int, int] | None, number: int) -> Batch:
    """The batch of that number of an epoch, counted from one; none where it cannot be read."""
    with closing(feeder.epoch(order, max(0, number - 1), 1)) as batches:
        return next(iter(batches), {})
