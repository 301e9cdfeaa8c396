"""Logs of a training: CSV, JSON lines and TensorBoard."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import FileError, ModelError, TrainingWarning, warn, whole_number
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.json_values import json_value
from nncompile.diagnostics.reading import open_file, read_file
from nncompile.runtime import check_writable, sync
from nncompile.train.events import Event, Fitting
from nncompile.train.figures import numbers_of
from nncompile.train.monitor import Monitor


class _Lines:
    """A text file to which whole lines are added.

    What could not be written, of a full disk, is written with the next lines. Where an interrupt or
    an error left a part of a line, and where a training is resumed from before the last lines, the
    file is cut back to what belongs to it.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool) -> None:
        self.path = Path(path)
        check_writable(self.path.parent)
        if self.path.is_dir():
            raise FileError(f"cannot write {self.path}: it is a directory", hint="name a file")
        content = self._content() if append else b""
        self._waiting = ""
        self._seconds = self._earlier_seconds = 0.0
        # How many bytes of the file are whole lines of this log, their checksum, and whether
        # there may be others behind them.
        self._whole = (len(content), zlib.crc32(content), not append)

    @property
    def is_empty(self) -> bool:
        """Whether no line was added yet."""
        return not self._whole[0] and not self._waiting

    def first(self) -> str:
        """The first line that is there already."""
        size = self._whole[0]
        try:
            return self._content()[:size].decode("utf-8").partition("\n")[0] if size else ""
        except UnicodeDecodeError:
            raise FileError(
                f"{self.path} is not a log: it is no text in UTF-8",
                hint="append=False replaces it",
            ) from None

    def seconds(self, event: Event) -> float:
        """The time since the training began, with what came before it was resumed."""
        self._seconds = self._earlier_seconds + event.seconds
        return round(self._seconds, 6)

    def add(self, text: str) -> None:
        """Adds lines. Raises `FileError` where they have to wait."""
        lines = self._waiting + text
        data = lines.encode("utf-8")
        size, checksum, more = self._whole
        self._whole = (size, checksum, True)  # until it is written
        try:
            with self.path.open("ab") as file:
                if more:
                    file.truncate(size)
                file.write(data)
        except OSError as error:
            self._waiting = lines
            raise FileError(f"cannot write {self.path}: {error.strerror or error}") from None
        self._waiting, self._whole = "", (size + len(data), zlib.crc32(data, checksum), False)

    def flush(self) -> None:
        """Writes the lines that wait, if there are any. Raises `FileError` where they still do."""
        if self._waiting:
            self.add("")

    def sync(self) -> None:
        """Returns when what was added is on disk."""
        with contextlib.suppress(OSError):  # there is none yet, or it cannot be written
            sync(self.path)

    def state_dict(self) -> dict[str, Any]:
        """Where the log is."""
        size, checksum, _ = self._whole
        return {
            "bytes": size,
            "crc32": checksum,
            "waiting": self._waiting,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> bool:
        """Continues where the log was: the next line cuts off what was added later. Warns, and
        returns False, where the file does not begin with the lines that were there."""
        size, checksum = int(state["bytes"]), int(state["crc32"])
        content = self._content()
        if len(content) < size or zlib.crc32(content[:size]) != checksum:
            warn(
                f"{self.path} does not hold the lines of the training that is resumed: "
                + ("a new log begins" if self._whole[2] else "lines are added to it"),
                TrainingWarning,
            )
            return False
        self._waiting, self._whole = str(state["waiting"]), (size, checksum, True)
        self._earlier_seconds = float(state["seconds"])
        return True

    def _content(self) -> bytes:
        if not self.path.is_file():
            return b""
        with open_file(self.path, "log") as file:
            return file.read()


class _TextLog:
    """A callback that adds lines to a text file, and continues where it was."""

    may_add_metrics = False
    may_fail = may_lag = True

    def __init__(self, path: str | os.PathLike[str], append: bool) -> None:
        self._lines = _Lines(path, append)

    def flush(self) -> None:
        """Writes the lines that a full disk made wait. Raises `FileError` where they still do."""
        self._lines.flush()

    def on_end(self, _: Event) -> None:
        self._lines.flush()

    def sync(self) -> None:
        """Returns when the lines are on disk, as they are before a checkpoint tells of them."""
        self._lines.sync()

    def state_dict(self) -> dict[str, Any]:
        """Where the log is."""
        return self._lines.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where the log was when `state_dict` was called; warns where the file is not
        that log."""
        self._lines.load_state_dict(state)


@suggests_options
class CSVLog(_TextLog):
    """A callback that writes a line of comma-separated numbers for each epoch to `path`: `epoch`,
    `step`, the metrics that are one number, and `seconds` of training.

    An older file is replaced, or with `append` continued; a training that is resumed from a
    checkpoint continues it from the line it had then. Raises `FileError` where the file cannot be
    written when the log is made; later that is a warning, and the lines wait. Raises `ModelError`
    where metrics are not those of the first line.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        super().__init__(path, append)
        self._columns: list[str] = next(csv.reader([self._lines.first()]), [])

    def on_epoch(self, event: Event) -> None:
        row = {"epoch": event.epoch, "step": event.step, **numbers_of(event.metrics)}
        row["seconds"] = self._lines.seconds(event)
        if self._lines.is_empty:
            self._columns = list(row)
        if self._columns != list(row):
            raise ModelError(
                f"the metrics of this epoch differ from the columns of {self._lines.path}",
                rows=[("columns", ", ".join(self._columns)), ("got", ", ".join(row))],
                hint="start a new file, or use JSONLog, whose lines carry their own names",
            )
        header = _csv(self._columns) if self._lines.is_empty else ""
        self._lines.add(header + _csv(list(row.values())))

    def state_dict(self) -> dict[str, Any]:
        """Where the log is."""
        return {**super().state_dict(), "columns": list(self._columns)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where the log was when `state_dict` was called; warns where the file is not
        that log."""
        if self._lines.load_state_dict(state):
            self._columns = list(state["columns"])


@suggests_options
class JSONLog(_TextLog):
    """A callback that writes a line of JSON for each epoch, and with `every` for each `every`-th
    step, to `path`: `event` ("epoch" or "step"), `epoch`, `step`, `seconds` and `metrics`, in
    which tables are lists and what is not finite is null.

    An older file is replaced or continued, as by `CSVLog`. Raises `FileError` where it cannot
    be written when the log is made.
    """

    def __init__(
        self, path: str | os.PathLike[str], every: int | None = None, append: bool = False
    ) -> None:
        super().__init__(path, append)
        self.every = None if every is None else whole_number("every", every, 1)

    def on_step(self, event: Event) -> None:
        if self.every is not None and event.step % self.every == 0:
            self.on_epoch(event)

    def on_epoch(self, event: Event) -> None:
        line = {
            "event": event.kind,
            "epoch": event.epoch,
            "step": event.step,
            "seconds": self._lines.seconds(event),
            "metrics": json_value(event.metrics),
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

    may_add_metrics = False
    may_fail = may_lag = True

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
        self._purged: dict[str, int] = {}  # from which step on TensorBoard forgets older figures
        hint = "pip install 'nncompile[tensorboard]'; CSVLog and JSONLog need nothing"
        self._package = extra(
            "tensorboardX", "tensorboardX", "the log for TensorBoard", hint, ModelError
        )

    def on_step(self, event: Event) -> None:
        if self.every is not None and event.step % self.every == 0:
            self._add({f"step/{n}": x for n, x in numbers_of(event.metrics).items()}, event.step)
        self._add_measurements()

    def on_epoch(self, event: Event) -> None:
        self._add(numbers_of(event.metrics), event.step)
        self._add_measurements()
        if self.histograms:
            for path, x in event.trainer.params.items():
                self._open.add_histogram(f"parameter/{path}", x, event.step)
        self._open.flush()

    def on_end(self, _: Event) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """How many measurements of the monitor are written."""
        return {"measured": self._measured}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with what `state_dict` gave."""
        self._measured = int(state["measured"])

    @contextlib.contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """TensorBoard shows what is written now in place of figures of the same steps."""
        self._purged = {"purge_step": fitting.trainer.step + 1} if fitting.trainer.step else {}
        yield

    @property
    def _open(self) -> Any:
        if self._writer is None:
            writer = self._package.SummaryWriter
            self._writer = writer(os.fspath(self.directory), **self._purged)
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


def read_log(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The lines of a CSV log, each as text by column; without a last line that is not complete yet.
    Raises `FileError` where it cannot be read."""
    try:
        text = read_file(path).decode("utf-8")
    except UnicodeDecodeError:
        raise FileError(f"{os.fspath(path)} is not a log: it is no text in UTF-8") from None
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))


def _csv(row: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(row)
    return buffer.getvalue()
