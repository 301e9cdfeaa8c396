"""The metrics of a training over its epochs as a picture, also while it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import whole_number
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.options import not_negative
from nncompile.train.drawing import Line, draw_lines, new_figure
from nncompile.train.events import Event
from nncompile.train.history import History


@suggests_names
def learning_curves(
    history: History,
    path: str | os.PathLike[str],
    metrics: Sequence[str] | None = None,
    log: bool = False,
) -> Path:
    """Draws metrics over epochs, all numbers of the history unless some are named; see
    `draw_lines` for the file and what is raised."""
    lines: dict[str, Line] = {name: history.points(name) for name in metrics or history.names}
    return draw_lines(path, lines, "epoch", log_y=log)


@suggests_options
class LearningCurve:
    """A callback that draws the metrics so far to `path` after each `every` epochs, but not within
    `seconds` of the last drawing, and at the end; the other options are those of
    `learning_curves`. A full disk costs a drawing, not the training."""

    may_add_metrics = False
    may_fail = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        metrics: Sequence[str] | None = None,
        log: bool = False,
        every: int = 1,
        seconds: float = 5.0,
    ) -> None:
        new_figure()  # fails before hours of training rather than after
        self.path, self.metrics, self.log = Path(path), metrics, log
        self.every = whole_number("every", every, 1)
        self.seconds = not_negative("seconds", seconds)
        self.history = History()
        self._drawn_epochs = 0
        self._drawn_at: float | None = None
        self._last = (-1, -1)  # epoch and step of the latest metrics

    def on_epoch(self, event: Event) -> None:
        if self._last != (event.epoch, event.step):  # after an interrupt it is told again
            self.history.epochs.append(event.metrics)
            self._last = event.epoch, event.step
        is_recent = (
            self._drawn_at is not None and time.perf_counter() - self._drawn_at < self.seconds
        )
        if len(self.history) % self.every == 0 and not is_recent:
            self._draw()

    def on_end(self, _: Event) -> None:
        if len(self.history) > self._drawn_epochs:
            self._draw()

    def state_dict(self) -> dict[str, Any]:
        """The metrics so far."""
        return {"epochs": self.history.epochs, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with what `state_dict` gave."""
        self.history = History([dict(metrics) for metrics in state["epochs"]])
        epoch, step = state["last"]
        self._last, self._drawn_epochs = (epoch, step), 0

    def _draw(self) -> None:
        learning_curves(self.history, self.path, self.metrics, self.log)
        # The time it took is not counted: a slow disk is not all that the training waits for.
        self._drawn_epochs, self._drawn_at = len(self.history), time.perf_counter()
