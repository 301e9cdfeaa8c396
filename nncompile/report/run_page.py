"""The page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nncompile.program.recipe import minimize
from nncompile.report.predictions import examples_of
from nncompile.report.writing import Contents, Record, history_of, write_page
from nncompile.train import History, Monitor, Trainer, profile
from nncompile.train.run_pages import Ended
from nncompile.train.run_places import LOG

_STEPS = 20  # that are profiled, if that takes
_SHARE = 0.05  # of the time of the training,
_SECONDS = (0.5, 5.0)  # but so long at least, and at most


class RunPage(Record):
    """Writes `report.html` into a run: its history from its first epoch on, and predictions for
    held-out data where there are some, else for the arrays that were trained on.

    Of a run that measures and reached its end, some states that were kept are measured layer by
    layer, and a step is profiled. To compile that costs about as much as to compile the step.
    """

    def write(self, ended: Ended) -> Path:
        """Writes the page. Raises `CompileError`."""
        trainer: Any = ended.trainer
        fitting, log = ended.fitting, ended.path / LOG
        # Batches that are made while training may end, or never.
        source = fitting.held_out or (fitting.feeder if fitting.feeder.whole is not None else None)
        command, options = ended.config["command"], ended.config.get("options", {})
        contents = Contents(
            history_of(log) if log.exists() else History(),  # none before the first epoch
            {} if source is None else examples_of(source.epoch(), trainer.model),
            configuration={"run": ended.path, "command": command, **options},
            seconds=ended.seconds,
            class_names=ended.config.get("class_names"),
            rates=self.rates,
            ended=ended.early,
        )
        if ended.measures and not ended.early:
            self._measure(trainer, ended, contents)
        return write_page(ended.path / "report.html", trainer, contents)

    def _measure(self, trainer: Trainer, ended: Ended, contents: Contents) -> None:
        if not any(isinstance(update, minimize) for update in trainer.recipe.updates):
            return
        monitor = Monitor(warn=False)
        for state, batch in self.moments:
            monitor.measure(trainer, batch, state)
        contents.measurements = monitor.measurements
        if ended.fitting.feeder.whole is not None:
            batch = next(iter(ended.fitting.feeder.epoch()))
            least, most = _SECONDS
            seconds = min(max(_SHARE * ended.seconds, least), most)
            size = ended.fitting.feeder.size
            contents.profile = profile(trainer, batch, _STEPS, size, seconds)
