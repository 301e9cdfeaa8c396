"""The trials of a sweep: trainings in processes of their own, and the record of their results."""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.files import write_atomically
from nncompile.diagnostics.json_values import json_value
from nncompile.diagnostics.reading import read_file
from nncompile.program.search_space import assigned, label
from nncompile.train.directions import Mode
from nncompile.train.logs import read_log
from nncompile.train.run_places import CONFIG, LOG

State = Literal["finished", "pruned", "failed", "interrupted"]
RECORD = "sweep.json"
_GRACE = 30.0  # seconds for a training to write its state when it is told to end


@dataclass
class Trial:
    """One combination of options, and what came of it: the best value of what is monitored, and
    its epoch."""

    settings: dict[str, Any]
    state: State | None = None
    value: float | None = None
    epoch: int | None = None
    seconds: float = 0.0
    error: str | None = None
    run: str = ""

    def __post_init__(self) -> None:
        self.run = self.run or run_name(self.settings)

    @property
    def is_done(self) -> bool:
        """Whether it has a result, and is not tried again."""
        return self.state in ("finished", "pruned")


def run_name(settings: Mapping[str, Any]) -> str:
    """A name for the run of these settings: readable, and different for others."""
    text = label(settings).replace(" ", ",")
    plain_text = re.sub(r"[^\w.+=,-]", "_", text)
    if plain_text == text and len(text) <= 80:
        return text
    return f"{plain_text[:64]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


@dataclass
class Record:
    """What is on disk of a sweep: what it is of, and its trials by the names of their runs."""

    place: Path
    of: dict[str, Any]
    trials: dict[str, Trial] = field(default_factory=dict)

    @staticmethod
    def opened(place: Path, of: Mapping[str, Any]) -> Record:
        """The record of the sweep at `place`, or a new one. Raises `FileError` where the trials
        there are of another file or other options, or it cannot be read."""
        record = Record(place, json_value(of))
        file = place / RECORD
        if not file.exists():
            return record
        try:
            saved = json.loads(read_file(file))
            trials = [Trial(**trial) for trial in saved["trials"]]
            earlier: dict[str, Any] = saved["of"]
        except (ValueError, KeyError, TypeError):
            raise FileError(f"{file} cannot be read: it is not what a sweep writes") from None
        changed = [
            (n, f"was {earlier.get(n)}", f"is {x}")
            for n, x in record.of.items()
            if earlier.get(n) != x
        ]
        if changed:
            raise FileError(
                f"{place} holds the trials of another sweep",
                rows=changed,
                hint="--output DIR for another place, --overwrite to begin again",
            )
        record.trials = {trial.run: trial for trial in trials}
        return record

    def write(self) -> None:
        """Writes the record, whole or not at all."""
        content = {"of": self.of, "trials": [asdict(trial) for trial in self.trials.values()]}
        text = json.dumps(json_value(content), indent=2, ensure_ascii=False)
        write_atomically(self.place / RECORD, (text + "\n").encode())


class Training:
    """A trial that runs: `nncompile train` in a process of its own."""

    def __init__(self, trial: Trial, place: Path, command: list[str]) -> None:
        self.trial, self.run = trial, place / trial.run
        arguments = [*command, "--output", str(self.run), "--json", "--quiet"]
        resumes = trial.state == "interrupted" and (self.run / CONFIG).is_file()
        arguments.append("--resume" if resumes else "--overwrite")
        trial.seconds = trial.seconds if resumes else 0.0
        if trial.settings:
            arguments += ["--set", *assigned(trial.settings)]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
        self._start = time.perf_counter()
        self._pruned = self._interrupted = False
        self._epochs_read = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nncompile", *arguments],
            stdout=self._output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the sweep, which tells its trainings
        )

    @property
    def has_ended(self) -> bool:
        """Whether the process has."""
        return self.process.poll() is not None

    def new_values(self, monitor: str) -> Iterator[tuple[int, float]]:
        """The epochs that ended since this was asked, and what is monitored in them."""
        values = logged(self.run, monitor)
        yield from values[self._epochs_read :]
        self._epochs_read = len(values)

    def prune(self) -> None:
        """Ends it, as it does not promise to be among the best."""
        self._pruned = True
        self.process.send_signal(signal.SIGTERM)

    def interrupt(self) -> None:
        """Tells it to write its state and end."""
        if not self.has_ended:
            self._interrupted = True
            self.process.send_signal(signal.SIGTERM)

    def close(self, monitor: str, mode: Mode) -> Trial:
        """Waits for its end, and says what came of it."""
        trial = self.trial
        try:
            code = self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        trial.seconds += time.perf_counter() - self._start
        self._output.seek(0)
        outcome = _json(self._output.read())
        self._output.close()
        values = [(x, epoch) for epoch, x in logged(self.run, monitor) if math.isfinite(x)]
        if values:
            best = (max if mode == "max" else min)(values, key=lambda pair: pair[0])
            trial.value, trial.epoch = best
        trial.error = None
        if self._pruned and code != 0:
            trial.state = "pruned"
        elif code == 0 and values:
            trial.state = "finished"
        elif self._interrupted or code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
            trial.state = "interrupted"
        else:
            trial.state, trial.error = "failed", _reason(code, outcome, monitor)
        return trial

    def kill(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()
        self._output.close()


def logged(run: Path, monitor: str) -> list[tuple[int, float]]:
    """The epochs in the log of a run, and what is monitored in each; none before there is a log."""
    rows = read_log(run / LOG) if (run / LOG).exists() else []
    return [(int(r["epoch"]), float(r[monitor])) for r in rows if r.get(monitor) and r.get("epoch")]


def _json(text: bytes) -> dict[str, Any]:
    try:
        outcome = json.loads(text)
    except ValueError:
        return {}
    return outcome if isinstance(outcome, dict) else {}


def _reason(code: int, outcome: Mapping[str, Any], monitor: str) -> str:
    error = outcome.get("error")
    if isinstance(error, dict):
        return f"{error.get('type')}: {error.get('message')}".splitlines()[0]
    if code < 0:
        return f"ended by signal {-code}"
    if code == 0:
        return f"no epoch has a finite {monitor}"
    return f"exit code {code}"
