"""What a training shows while it runs: a bar, a table or lines, by where it is seen."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Literal
from weakref import WeakSet

from nncompile.diagnostics.errors import ModelError, TrainingWarning, warn
from nncompile.train.bar import Bar
from nncompile.train.events import Callback, Event, Fitting, in_order
from nncompile.train.figures import figures
from nncompile.train.live_table import LiveTable, notebook
from nncompile.train.rates import learning_rate
from nncompile.train.showing import Lines, Moment, Plan, View

Verbose = Literal[0, 1, 2] | bool | None
_LINES = 20  # of epochs beside a bar
_INTRODUCED: WeakSet[object] = WeakSet()  # trainers whose kernels were told of
_LONG = 60.0  # seconds without a line


def _rate(event: Event) -> float | None:
    """The rate of the last step; that of the next, where the state knows it. None for several."""
    rate = learning_rate(event.trainer.recipe, event.step - 1)
    if rate is None and event.trainer.recipe.losses:
        now = event.trainer.learning_rate
        return now if isinstance(now, float) else None
    return rate


class Display:
    """A callback that shows how the training goes; `fit` makes one.

    On a terminal: a bar with the metrics of the last step, the learning rate, steps a second and
    the time left, and lines of epochs, about twenty. In a notebook: a table of the last epochs and
    the same figures. Else (a pipe, a file): a line for each epoch, and one a minute within a long
    one. `verbose` is 0 for nothing, 1 (or None) for this, 2 for the lines of all epochs and
    nothing else; with `every` there is a line for each epoch beside a bar, too. It is written to
    `stream`, stderr by default. Where that fails (a closed pipe), a warning says so, and the
    training goes on without.
    """

    may_add_metrics = False
    may_fail = only_shows = True

    def __init__(
        self, verbose: Verbose = None, stream: IO[str] | None = None, every: bool = False
    ) -> None:
        if verbose is not None and verbose not in (0, 1, 2):
            raise ModelError(
                f"verbose must be 0, 1 or 2, got {verbose!r}",
                hint="0: nothing, 1: a bar, 2: a line for each epoch",
            )
        self.verbose, self.stream, self.every = verbose, stream, every
        self._view: View | None = None

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Shows the training that runs within the block."""
        self._plan = Plan.of(fitting)
        self._rate, self._ticked = 0.0, (time.perf_counter(), fitting.trainer.step)
        self._start = self._lined = time.perf_counter()
        self._pending = ""
        self._epoch_step = fitting.trainer.step
        self._view = self._chosen()
        self._attempt("start", self._plan)
        if fitting.trainer.library is not None and fitting.trainer not in _INTRODUCED:
            _INTRODUCED.add(fitting.trainer)
            self._line(f"native kernels: {fitting.trainer.library}")
        try:
            yield
        finally:
            if self._pending:
                self._line(self._pending)
            self._attempt("stop")
            self._view = None

    def _chosen(self) -> View | None:
        """How it is shown here; None where it is not."""
        stream = self.stream or sys.stderr
        if self.verbose == 0 or stream is None:  # a program without a console has no stderr
            return None
        if self.verbose != 2:
            shell = notebook() if self.stream is None else None
            if shell is not None:
                return LiveTable(shell)
            if is_terminal(stream):
                return Bar(stream)
        return Lines(stream)

    def on_tick(self, event: Event) -> None:
        if self._view is None:
            return
        now = time.perf_counter()
        before, step = self._ticked
        rate = (event.step - step) / max(now - before, 1e-9)
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
        self._ticked = now, event.step
        made = event.step - self._plan.first_step
        total = self._plan.total
        left = (now - self._start) / made * (total - made) if total and made else None
        moment = Moment(
            event.epoch,
            made,
            total,
            event.metrics,
            _rate(event),
            self._rate,
            left,
        )
        self._attempt("moment", moment)
        if now - self._lined > _LONG and not isinstance(self._view, LiveTable):
            self._line(f"{self._begun(event)}{moment.figures}  {moment.pace}")

    def on_epoch(self, event: Event) -> None:
        if self._view is None:
            return
        self._plan = self._plan.learned(event.step - self._epoch_step)
        self._epoch_step = event.step
        self._attempt("epoch", event.epoch, event.step - self._plan.first_step, event.metrics)
        text = f"{self._begun(event)}{figures(event.metrics)}  {event.seconds:.1f} s"
        if self._is_due(event):
            self._line(text)
        else:
            self._pending = text

    def _is_due(self, event: Event) -> bool:
        """Whether the epoch has a line: with a bar about `_LINES` of them have, as it seems now."""
        if self.every or not isinstance(self._view, Bar):
            return True
        between = max(1, (self._plan.epochs or 0) // _LINES)
        recent = time.perf_counter() - self._lined < _LONG
        return event.epoch % between == 0 or event.epoch == 1 or not recent

    def _begun(self, event: Event) -> str:
        """`epoch  3  step   69  `, as wide as the last will be."""
        plan = self._plan
        last_epoch = plan.first_epoch + (plan.epochs or 0)
        last_step = plan.first_step + (plan.total or 0)
        epoch, step = (len(str(x)) for x in (last_epoch, last_step))
        return f"epoch {event.epoch:>{epoch}}  step {event.step:>{step}}  "

    def _line(self, text: str) -> None:
        self._pending = ""
        self._lined = time.perf_counter()
        self._attempt("line", text)

    def _attempt(self, name: str, *arguments: object) -> None:
        if self._view is None:
            return
        try:
            getattr(self._view, name)(*arguments)
        except (OSError, ValueError) as error:  # of a closed file it is a ValueError
            self._view = None
            warn(f"the training is not shown any more: {error}", TrainingWarning)


def displayed(callbacks: Callback | Iterable[Callback], verbose: Verbose) -> list[Callback]:
    """The callbacks, with a display before them unless one of them is a display."""
    several = in_order(callbacks)
    if any(isinstance(callback, Display) for callback in several):
        return several
    return [Display(verbose), *several]


def is_terminal(stream: IO[str]) -> bool:
    """Whether lines on it can be changed once they are written."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
    except (AttributeError, ValueError):  # of a user's own, or closed
        return False
