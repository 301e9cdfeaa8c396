"""A page on a training, and when it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CompileError, FileError, warn
from nncompile.diagnostics.files import write_atomically
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.ir.types import Array
from nncompile.report import sections as parts
from nncompile.report.page import card, facts, page, section
from nncompile.report.predictions import compared, examples_of
from nncompile.report.samples import predictions
from nncompile.train import Data, History, Monitor, Profile, Trainer, profile
from nncompile.train.events import Event, Fitting
from nncompile.train.logs import read_log
from nncompile.train.measurement import Measurement
from nncompile.train.monitor import TrainingWarning
from nncompile.train.rates import follows_training, learning_rates
from nncompile.train.run_pages import cause_of

_MOMENTS = 20  # states of a training that are kept
_BYTES = 2**26  # that they take together, but for the last
_OPENS = "A box with a + opens where it is clicked; resting on a box shows its line and its cost."


@dataclass
class Contents:
    """What a page shows beside what the trainer tells; all but the history may be missing. `rates`
    are learning rates by step, of those that follow the training, and `ended` says why a training
    ended that did not reach its end."""

    history: History
    examples: Mapping[str, Array] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    class_names: Sequence[str] | None = None
    profile: Profile | None = None
    rates: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    ended: str = ""


@suggests_names
def report(
    trainer: Trainer,
    history: History,
    path: str | os.PathLike[str] = "report.html",
    validation_data: Data | None = None,
    *,
    monitor: Monitor | None = None,
    profile: Profile | None = None,
    class_names: Sequence[str] | None = None,
    configuration: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> Path:
    """Writes a page on a training to an .html file: curves, learning rate, what `monitor` measured
    of the gradients, predictions beside their targets on `validation_data` (a confusion matrix or
    residuals, and the examples that are most wrong), the lines that take the time (what `profile`
    found), the layers and their picture, configuration and versions. One file, which opens without
    a network, in light and dark.

    `class_names` are what classes are called, in order; `configuration` are entries to show with
    that of the recipe, `seconds` how long it took. Raises `FeedError` for data that do not fit,
    `ModelError` for another number of names than classes, `FileError` where the file cannot be
    written.
    """
    contents = Contents(
        history,
        measurements=() if monitor is None else monitor.measurements,
        configuration=configuration or {},
        seconds=seconds,
        class_names=class_names,
        profile=profile,
    )
    if validation_data is not None:
        contents.examples = examples_of(trainer.batches(validation_data), trainer.model)
    return write_page(path, trainer, contents)


@suggests_options
class Report:
    """A callback that writes a page on the training at its end, see `report`, with predictions for
    held-out data where `fit` has them, and else for those of the training. An error or an interrupt
    is an end, too. It is written after all else, such as the files of a `RunDirectory`; where that
    fails, a warning says so.

    With `profile`, some more steps are made, of a copy of the state, to see where their time goes.
    """

    told_last = 2  # after what writes states

    def __init__(
        self,
        path: str | os.PathLike[str] = "report.html",
        monitor: Monitor | None = None,
        class_names: Sequence[str] | None = None,
        profile: bool = False,
    ) -> None:
        self.path, self.monitor, self.class_names = Path(path), monitor, class_names
        self.profile = profile
        self.record = Record()
        self.history = History()
        self.seconds = 0.0
        self._fitting: Fitting | None = None

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Keeps the data that it shows, and writes the page where the training does not reach its
        end."""
        self._fitting = fitting
        try:
            yield
        except BaseException as error:
            self._write(fitting.trainer, cause_of(error))
            raise

    def on_epoch(self, event: Event) -> None:
        self.history.epochs.append(event.metrics)
        self.seconds = event.seconds
        self.record.on_epoch(event)

    def on_end(self, event: Event) -> None:
        self.seconds = event.seconds
        self._write(event.trainer)

    def state_dict(self) -> dict[str, Any]:
        """The epochs and rates so far."""
        return {"epochs": self.history.epochs, **self.record.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with what `state_dict` gave."""
        self.history = History([dict(epoch) for epoch in state["epochs"]])
        self.record.load_state_dict(state)

    def _write(self, trainer: Any, ended: str = "") -> None:
        with warned(self.path):
            profiled = None
            if self.profile and not ended and self._fitting is not None:
                batch = next(iter(self._fitting.feeder.epoch()))
                profiled = profile(trainer, batch, batch_size=self._fitting.feeder.size)
            self.write(trainer, profiled, ended)

    def write(self, trainer: Any, profile: Profile | None = None, ended: str = "") -> Path:
        """Writes the page as things stand. Raises what `report` does."""
        contents = Contents(
            self.history,
            measurements=() if self.monitor is None else self.monitor.measurements,
            seconds=self.seconds,
            class_names=self.class_names,
            profile=profile,
            rates=self.record.rates,
            ended=ended,
        )
        if self._fitting is not None:
            source = self._fitting.held_out or self._fitting.feeder
            contents.examples = examples_of(source.epoch(), trainer.model)
        return write_page(self.path, trainer, contents)


class Record:
    """A callback that keeps what is gone later: the learning rates that follow the training, after
    each epoch; and some `moments`, states with the batch of their last step, as many as fit."""

    def __init__(self) -> None:
        self.rates: dict[int, dict[str, float]] = {}
        self.moments: list[tuple[Mapping[str, Array], Mapping[str, Any]]] = []
        self._every = 1  # so many epochs

    def on_epoch(self, event: Event) -> None:
        recipe = event.trainer.compiled.source.recipe  # in which rates may be set
        follows = follows_training(recipe)
        keeps = event.epoch % self._every == 0
        state = event.trainer.state if follows or keeps else {}
        if follows:
            step = max(0, event.step - 1)
            self.rates[step] = learning_rates(recipe, step, state)
        if keeps:
            self._keep(state, event.batch)

    def on_end(self, event: Event) -> None:
        if not self.moments and event.batch:  # within the first epoch
            self._keep(event.trainer.state, event.batch)

    def _keep(self, state: Mapping[str, Array], batch: Mapping[str, Any]) -> None:
        copied = {name: np.array(x) for name, x in batch.items()}
        size = sum(np.asarray(x).nbytes for x in (*state.values(), *copied.values()))
        self.moments.append((state, copied))
        most = max(1, min(_MOMENTS, _BYTES // max(1, size)))
        if len(self.moments) > most:
            self.moments = self.moments[1::2] if most > 1 else self.moments[-1:]
            self._every *= 2 if most > 1 else 1

    def state_dict(self) -> dict[str, Any]:
        """The rates so far."""
        return {"rates": {str(step): rates for step, rates in self.rates.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with what `state_dict` gave."""
        self.rates = {int(step): dict(rates) for step, rates in state["rates"].items()}


def history_of(path: str | os.PathLike[str]) -> History:
    """The history in a CSV log, such as that of a run. Raises `FileError` where there is none."""
    left_out = ("epoch", "step", "seconds")
    rows = read_log(path)
    try:
        return History([{n: float(x) for n, x in r.items() if n not in left_out} for r in rows])
    except (TypeError, ValueError):
        raise FileError(
            f"{os.fspath(path)} is not a log of a training: it has more than numbers",
            hint="CSVLog(path) writes one, and every run has its log.csv",
        ) from None


@contextmanager
def warned(path: str | os.PathLike[str]) -> Iterator[None]:
    """A warning in the place of an error: what was trained is worth more than a page on it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CompileError):
            problem = error.problem
        else:
            problem = f"{type(error).__name__}: {error}"
        warn(f"{os.fspath(path)} is not written: {problem}", TrainingWarning)


def write_page(path: str | os.PathLike[str], trainer: Trainer, contents: Contents) -> Path:
    """Writes the page. Raises `FileError`, and `ModelError` for names that do not fit."""
    model, history = trainer.model, contents.history
    picture = f"<div class='card'>{model.picture('graph')}</div>"
    sections = [
        _ended(contents.ended),
        facts(parts.numbers(trainer, history, contents.seconds)),
        section("Metrics", *parts.curves(history)),
        section("Learning rate", parts.rates(trainer, contents.rates)),
        section("Gradients", *parts.gradients(contents.measurements)),
        *predictions(compared(trainer, contents.examples), contents.class_names),
        section("Where the time goes", parts.timings(contents.profile)),
        section("Model", card("", model.summary()._repr_html_())),
        section("Graph", picture, note=_OPENS),
        section("Configuration", *parts.configuration(trainer, contents.configuration)),
    ]
    subtitle = f"{trainer!r}".strip("<>")
    return write_atomically(path, page(model.name, subtitle, sections).encode())


def _ended(why: str) -> str:
    return section("Ended early", card("", parts.paragraph(why))) if why else ""
