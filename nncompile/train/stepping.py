"""Steps of a training: how far it is, what their metrics add up to, and who is told of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import TrainingError
from nncompile.runtime.ahead import AheadStepRunner
from nncompile.runtime.runner import StepRunner
from nncompile.train.data import Batch, Feeder
from nncompile.train.divergence import diverged
from nncompile.train.epoch import Epoch
from nncompile.train.locate import NonFinite, locate_nonfinite
from nncompile.train.sums import Added
from nncompile.train.unread import Made, Unread
from nncompile.train.watchers import Ticks, Watchers


class Steps:
    """Makes the steps of a training with a runner, and knows where it is: the epoch under way and
    the number of the step. Where the runner makes steps ahead, their metrics are read together."""

    def __init__(self, compiled: CompiledStep, runner: StepRunner) -> None:
        self.compiled = compiled
        self._runner = runner
        self.epoch = Epoch.of(compiled)
        # Of the fit that is running, or the last one.
        self.watchers: Watchers | None = None
        self._feeder: Feeder | None = None
        self._unread = Unread()
        self._is_reading = False
        self._earlier = 0  # steps made before the runner's first
        source = compiled.source
        self._metrics, self._losses = tuple(source.recipe.model.metrics), source.recipe.losses

    @property
    def step(self) -> int:
        """The number of steps made."""
        # From the runner's own count, so that an interrupt cannot come between the two.
        return self._earlier + self._runner.steps

    @property
    def ahead(self) -> int:
        """How many steps are made before their metrics are read."""
        return self._runner.ahead

    @property
    def runner(self) -> StepRunner:
        """What makes the steps; all metrics of those that it made are read. See `fetch`."""
        self.fetch()
        return self._runner

    def settle(self) -> None:
        """Undoes a step whose metrics were not added to those of the epoch, which is what an error
        or an interrupt between the two leaves. Where steps are made in place, it stays made. See
        `fetch` for what is raised."""
        self.fetch()
        made, added = self.step - self.epoch.start, self.epoch.sums.added
        if made > added.batches + 1 and isinstance(self._runner, AheadStepRunner):
            self._runner.go_back()  # to where metrics were last read
        elif made > added.batches and not self._runner.undo() and self._runner.in_place:
            self.epoch.sums.added = added._replace(batches=made)

    def fetch(self, to_all: bool = False) -> dict[str, float]:
        """Reads the metrics that are still on the device, adds them to those of the epoch, and
        tells of the steps, in order, who may be told late; of the last one, all watchers, if it is
        `to_all`. Its metrics. Raises `TrainingError` where a loss is not finite: the state is then
        that before its step."""
        if not self._unread or self._is_reading:
            return {}
        try:
            self._is_reading = True
            return self._read(to_all)
        finally:
            self._is_reading = False

    def _read(self, to_all: bool) -> dict[str, float]:
        outputs = [made.results.read() for made in self._unread]
        metrics = [self._numbers(x) for x in outputs]
        bad = next((i for i, x in enumerate(metrics) if self._lost(x)), None)
        if bad is not None:
            self._retrace(bad, outputs)
        failed = None
        for x in outputs:
            if not self._unread:  # a callback went on from another state
                break
            made = self._unread[0]
            if to_all and len(self._unread) == 1:
                mark = self.epoch.sums.added
                self._add(made.batch, x, metrics[-1])
                self._unread.next()
                self._tell(metrics[-1], made.batch, mark)
                break
            try:
                self._count(made, x)
            except Exception as error:  # the steps after it were made, too
                failed = failed or error
            self._unread.next()
        if failed is not None:
            raise failed
        return metrics[-1]

    def _count(self, made: Made, outputs: dict[str, Any]) -> None:
        """Adds the metrics of a step, and tells of it late."""
        epoch, metrics = self.epoch, self._numbers(outputs)
        if made.step - epoch.start > epoch.sums.added.batches:
            self._add(made.batch, outputs, metrics)
        assert self.watchers is not None  # of the fit that made it
        self.watchers.tell_late(made, epoch.number + 1, metrics)

    def _retrace(self, bad: int, outputs: Sequence[dict[str, Any]]) -> None:
        """Raises the error of a loss that is not finite. The steps up to it are made again, from
        the state before all of them: it is located, and undone, as if no other had been made."""
        batches, steps = self._unread.batches_of(bad), self._unread.taken()
        assert isinstance(self._runner, AheadStepRunner)
        self._runner.go_back()
        try:
            for made, x in zip(steps[:bad], outputs, strict=False):
                self._runner.step(made.batch)
                self._count(made, x)
            self._runner.step(steps[bad].batch)
            self._check(self._numbers(outputs[bad]), steps[bad].batch, batches)
        finally:
            self.settle()

    def _advance(self, batch: Batch, watchers: Watchers, ticks: Ticks) -> None:
        """One step, reported to the watchers, now or later; it is undone where one of them raises
        `TrainingError`."""
        epoch, mark = self.epoch, self.epoch.sums.added
        try:
            metrics = self._stepped(batch, watchers)
        except BaseException:
            self.settle()
            raise
        is_due = ticks.is_due()
        if self._unread:
            at_once = watchers.wants_step(self.step)
            if at_once or is_due or self._unread.is_full(self._runner.ahead):
                metrics = self.fetch(to_all=at_once)
        else:
            self._tell(metrics, batch, mark)
        if is_due and self.epoch is epoch:
            ticks.tell(epoch.number + 1, metrics, batch)

    def _tell(self, metrics: dict[str, float], batch: Batch, mark: Added) -> None:
        """Tells all watchers of the last step; what was added up before it is `mark`."""
        epoch, watchers = self.epoch, self.watchers
        assert watchers is not None
        try:
            watchers.tell("step", epoch.number + 1, metrics, batch, epoch.sums.added.batches)
        except TrainingError:
            if self.epoch is epoch and self._runner.can_undo:
                epoch.sums.added = mark
                self.settle()
                watchers.forget()
            raise

    def _stepped(self, batch: Batch, watchers: Watchers) -> dict[str, float]:
        """One step; its metrics, which are added to the totals of the epoch, or none where they are
        left on the device. Raises `TrainingError` where a loss is not finite; the step is then to
        be undone."""
        runner = self._runner
        if isinstance(runner, AheadStepRunner):
            if not self._unread:
                runner.begin()
            runner.step(batch)
            self._unread.append(Made(self.step, batch, runner.held(), watchers.seconds))
            return {}
        runner.step(batch)
        outputs = runner.metrics()
        metrics = self._numbers(outputs)
        if self._lost(metrics) is not None:
            self._check(metrics, batch)
        self._add(batch, outputs, metrics)
        return metrics

    def _numbers(self, outputs: Mapping[str, Any]) -> dict[str, float]:
        """The metrics of a step."""
        return {name: float(outputs[name]) for name in self._metrics}

    def _lost(self, metrics: Mapping[str, float]) -> str | None:
        """The first loss that is not finite."""
        for name in self._losses:
            if not math.isfinite(metrics[name]):
                return name
        return None

    def _check(
        self, metrics: Mapping[str, float], batch: Batch, batches: Sequence[Batch] | None = None
    ) -> None:
        """Raises `TrainingError` where a loss of the last step is not finite; `batches` are that
        one and the one before, where others were read since."""
        name = self._lost(metrics)
        if name is None:
            return
        assert self._feeder is not None
        infinite = self._feeder.infinite(batches)
        origin = None if infinite else self.locate(batch, (name,))
        moment = f"step {self.step} (epoch {self.epoch.number + 1})"
        rows = [*self._runner.trouble, *(infinite or (origin.rows if origin else ()))]
        loss, data = f"{name} is {metrics[name]}", self._feeder.searched_data
        raise diverged(loss, moment, data, rows, bool(infinite), origin)

    def _add(self, batch: Batch, outputs: dict[str, Any], metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step, among other results, to the totals of the epoch."""
        assert self._feeder is not None
        computed = self._runner.computed(batch)
        outputs.update(metrics)
        self.epoch.sums.add(computed, outputs, self._feeder.examples(computed))

    def locate(self, batch: Batch, outputs: Sequence[str] = ()) -> NonFinite | None:
        """See `nncompile.train.trainer.Trainer.locate`."""
        runner = self.runner
        if not runner.knows_before:
            return None
        return locate_nonfinite(self.compiled.step, {**runner.before(), **batch}, outputs)
