"""Logs of a training: CSV, JSON lines and TensorBoard."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FileError, ModelError, whole_number
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.reading import open_file
from nncompile.runtime import check_writable
from nncompile.train.events import Event
from nncompile.train.monitor import Monitor


class _Lines:
    """A text file to which whole lines are added."""

    def __init__(self, path: str | os.PathLike[str], append: bool) -> None:
        self.path = Path(path)
        self._overwrite = not append
        check_writable(self.path.parent)
        if self.path.is_dir():
            raise FileError(f"cannot write {self.path}: it is a directory", hint="name a file")

    def first(self) -> str:
        """The first line that is there already."""
        if self._overwrite or not self.path.is_file():
            return ""
        try:
            with open_file(self.path, "log") as file:
                return file.readline().decode()
        except UnicodeDecodeError:
            raise FileError(
                f"{self.path} is not a log: it is no text in UTF-8",
                hint="append=False replaces it",
            ) from None

    def count(self) -> int:
        """The number of lines."""
        if self._overwrite or not self.path.is_file():
            return 0
        with self.path.open("rb") as file:
            return sum(1 for _ in file)

    def cut(self, count: int) -> None:
        """Leaves so many lines."""
        if self.count() > count:
            with self.path.open("r+b") as file:
                file.truncate(sum(len(line) for line in itertools.islice(file, count)))

    def add(self, text: str) -> None:
        before = 0
        try:
            if not self._overwrite and self.path.exists():
                before = self.path.stat().st_size
            mode = "w" if self._overwrite else "a"
            with self.path.open(mode, encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            with contextlib.suppress(OSError):  # a full disk leaves no part of a line
                os.truncate(self.path, before)
            raise FileError(f"cannot write {self.path}: {error.strerror or error}") from None
        self._overwrite = False


@suggests_options
class CSVLog:
    """A callback that writes a line of comma-separated numbers for each epoch to `path`: `epoch`,
    `step`, the metrics that are one number, and `seconds`.

    An older file is replaced, or with `append` gone on with. Raises `FileError` where it cannot
    be written, `ModelError` where metrics are not those of the first line.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self._lines = _Lines(path, append)
        self._columns: list[str] = next(csv.reader([self._lines.first()]), [])

    def state_dict(self) -> dict[str, Any]:
        """How many lines the file has."""
        return {"lines": self._lines.count()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on after so many lines: those of epochs that are made again are removed."""
        self._lines.cut(int(state["lines"]))
        self._columns = next(csv.reader([self._lines.first()]), [])

    def on_epoch(self, event: Event) -> None:
        row = {"epoch": event.epoch, "step": event.step, **_numbers(event.metrics)}
        row["seconds"] = round(event.seconds, 6)
        columns = self._columns or list(row)
        if columns != list(row):
            raise ModelError(
                f"the metrics of this epoch differ from the columns of {self._lines.path}",
                rows=[("columns", ", ".join(self._columns)), ("got", ", ".join(row))],
                hint="start a new file, or use JSONLog, whose lines carry their own names",
            )
        header = "" if self._columns else _csv(columns)
        self._lines.add(header + _csv(list(row.values())))
        self._columns = columns


@suggests_options
class JSONLog:
    """A callback that writes a line of JSON for each epoch, and with `every` for each `every`-th
    step, to `path`: `event` ("epoch" or "step"), `epoch`, `step`, `seconds` and `metrics`, in
    which tables are lists and what is not finite is null.

    An older file is replaced, or with `append` gone on with. Raises `FileError`.
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int | None = None, append: bool = False
    ) -> None:
        self.every = None if every is None else whole_number("every", every, 1)
        self._lines = _Lines(path, append)

    def on_step(self, event: Event) -> None:
        if self.every is not None and event.step % self.every == 0:
            self.on_epoch(event)

    def on_epoch(self, event: Event) -> None:
        line = {
            "event": event.kind,
            "epoch": event.epoch,
            "step": event.step,
            "seconds": round(event.seconds, 6),
            "metrics": {name: _plain(x) for name, x in event.metrics.items()},
        }
        self._lines.add(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


@suggests_options
class TensorBoardLog:
    """A callback that writes metrics for TensorBoard into `directory`, of each epoch and with
    `every` of each `every`-th step (`step/…`), over the number of the step.

    With `histograms` it writes one of each parameter after each epoch; with `monitor`, a `Monitor`
    that stands before it in the list of callbacks, the norms of gradients, the ratios of updates
    to weights and the share of dead units of each layer. It needs the package tensorboardX, and
    raises `ModelError` where that is not installed.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every: int | None = None,
        histograms: bool = False,
        monitor: Monitor | None = None,
    ) -> None:
        self.every = None if every is None else whole_number("every", every, 1)
        self.directory = check_writable(directory)
        self.histograms, self.monitor = histograms, monitor
        self._writer: Any = None
        self._measured = 0
        hint = "pip install 'nncompile[tensorboard]'; CSVLog and JSONLog need nothing"
        self._package = extra(
            "tensorboardX", "tensorboardX", "the log for TensorBoard", hint, ModelError
        )

    def on_step(self, event: Event) -> None:
        if self.every is not None and event.step % self.every == 0:
            self._add({f"step/{n}": x for n, x in _numbers(event.metrics).items()}, event.step)
        self._add_measurements()

    def on_epoch(self, event: Event) -> None:
        self._add(_numbers(event.metrics), event.step)
        self._add_measurements()
        if self.histograms:
            for path, x in event.trainer.params.items():
                self._open.add_histogram(f"parameter/{path}", x, event.step)
        self._open.flush()

    def on_end(self, _: Event) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def _open(self) -> Any:
        if self._writer is None:
            self._writer = self._package.SummaryWriter(os.fspath(self.directory))
        return self._writer

    def _add(self, numbers: Mapping[str, float], step: int) -> None:
        for name, x in numbers.items():
            self._open.add_scalar(name, x, step)

    def _add_measurements(self) -> None:
        if self.monitor is None:
            return
        for measurement in self.monitor.measurements[self._measured :]:
            numbers: dict[str, float] = {}
            for name, layer in measurement.layers.items():
                numbers[f"gradient/{name}"] = layer.gradient
                numbers[f"update ratio/{name}"] = layer.ratio
            for name, units in measurement.activations.items():
                numbers[f"dead units/{name}"] = units.dead_share
            self._add(numbers, measurement.step)
        self._measured = len(self.monitor.measurements)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(x) for name, x in metrics.items() if np.ndim(x) == 0}


def _plain(x: Any) -> Any:
    """The number or table as JSON has it."""
    if isinstance(x, np.ndarray | np.generic):
        x = x.tolist()
    if isinstance(x, list):
        return [_plain(item) for item in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _csv(row: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(row)
    return buffer.getvalue()
