"""Pictures of a training, drawn with matplotlib: an extra, which nothing else needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ModelError, did_you_mean, whole_number
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_options
from nncompile.ir.types import Array
from nncompile.runtime import write_atomically
from nncompile.train.events import Event, History

FORMATS = ("png", "svg", "pdf")
Line = tuple[Sequence[float] | Array, Sequence[float] | Array]


def draw_lines(
    path: str | os.PathLike[str],
    lines: Mapping[str, Line],
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    marks: Mapping[str, float] | None = None,
) -> Path:
    """Draws lines, each of its x and its y, by name, to a .png, .svg or .pdf file; `marks` are
    upright lines at an x. A logarithmic axis leaves out numbers that are not positive.

    Raises `ModelError` where matplotlib is not installed or the format is another, `FileError`
    where the file cannot be written.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ModelError(
            f"a picture must be one of {', '.join(f'.{f}' for f in FORMATS)}, got "
            f"{os.fspath(path)!r}"
        )
    # Not through pyplot, whose state and windows are the user's.
    figure = _figure()(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, marker="." if len(x) <= 30 else None)
    for i, (name, position) in enumerate((marks or {}).items()):
        axes.axvline(position, label=name, color=f"C{len(lines) + i}", linestyle="--")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if lines or marks:
        axes.legend()

    def save(beside: Path) -> None:
        # Without a date or a version: the same figures give the same bytes.
        metadata = {"png": {"Software": None}, "svg": {"Date": None}}
        figure.savefig(beside, format=kind, dpi=120, metadata=metadata.get(kind))

    return write_atomically(path, save)


def learning_curves(
    history: History,
    path: str | os.PathLike[str],
    metrics: Sequence[str] | None = None,
    log: bool = False,
) -> Path:
    """Draws metrics over epochs, all numbers of the history unless some are named; see
    `draw_lines` for the file and what is raised."""
    names = {n: None for epoch in history for n, x in epoch.items() if np.ndim(x) == 0}
    for name in metrics or ():
        if name not in names:
            raise ModelError(f"the history has no metric {name!r}", hint=did_you_mean(name, names))
    lines: dict[str, Line] = {}
    for name in metrics or names:
        points = [(i, epoch[name]) for i, epoch in enumerate(history, 1) if name in epoch]
        lines[name] = [i for i, _ in points], [x for _, x in points]
    return draw_lines(path, lines, "epoch", log_y=log)


@suggests_options
class LearningCurve:
    """A callback that draws the metrics so far to `path` after each `every` epochs and at the end;
    the options are those of `learning_curves`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        metrics: Sequence[str] | None = None,
        log: bool = False,
        every: int = 1,
    ) -> None:
        _figure()  # fails before hours of training rather than after
        self.path, self.metrics, self.log = Path(path), metrics, log
        self.every = whole_number("every", every, 1)
        self.history = History()

    def on_epoch(self, event: Event) -> None:
        self.history.epochs.append(event.metrics)
        if len(self.history) % self.every == 0:
            self._draw()

    def on_end(self, _: Event) -> None:
        if len(self.history) % self.every:
            self._draw()

    def _draw(self) -> None:
        learning_curves(self.history, self.path, self.metrics, self.log)


def _figure() -> Callable[..., Any]:
    hint = "pip install 'nncompile[plot]'; CSVLog writes the same figures as text"
    figure: Callable[..., Any]
    figure = extra("matplotlib.figure", "matplotlib", "drawing", hint, ModelError).Figure
    return figure
