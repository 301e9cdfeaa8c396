"""`python -m tests.faults kill N`: trainings that are killed (SIGKILL) at random moments, half of
them while they write, and what is on disk then; each goes on, and must end as if it had not been
killed, bit for bit.

A run is killed up to four times. One half of the kills comes after a random time; the other at a
random call that changes files (open to write, write, truncate, rename, link, unlink, fsync), before
or after it. Half of the runs are of the command line, half of Python.
"""

from __future__ import annotations

import builtins
import io
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from nncompile.cli.app import app
from nncompile.diagnostics.errors import CompileError
from nncompile.program.model_file import load
from nncompile.runtime import load_state
from nncompile.runtime.runner import StepRunner
from nncompile.train import RunDirectory, Trainer, run_config
from nncompile.train.run_resumption import Resumed

MODEL = """\
import numpy as np
from dsl import Dense, Dropout, adam, f32, mean_squared_error, model, training, tanh

@model
def net(x=f32["batch", 4], y=f32["batch", 1]):
    prediction = x >> Dense(6, tanh) >> Dropout(0.1) >> Dense(1)
    return {"prediction": prediction, "loss": mean_squared_error(prediction, y)}

recipe = training(net, optimizer=adam(3e-2), batch_size=8, epochs=EPOCHS)

def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(72, 4)).astype("float32")
    y = np.sin(x.sum(1, keepdims=True)) + np.float32(3) * (x[:, :1] > 1)
    return {"x": x[:44], "y": y[:44]}, {"x": x[44:], "y": y[44:]}
"""
EPOCHS, STEPS = 12, 6  # of a training, and of an epoch
EVERY = ("2steps", "5steps", "1epoch", "2epochs")
_KILLS = 4  # of one run, at most
_CALLS = ("open", "write", "truncate", "ftruncate", "replace", "rename", "symlink", "unlink")
_CALLS += ("fsync", "mkdir")


@dataclass
class Report:
    """What happened: kills of each kind, runs that went on, how many steps the state on disk was
    behind at most by what was promised, and what was not as it should be."""

    by_time: int = 0
    by_call: int = 0
    runs: int = 0
    resumed: int = 0
    behind: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.by_time + self.by_call


def trained(here: Path, place: Path, every: str, through_cli: bool) -> None:
    """A training in this process, which goes on with a run that is there."""
    if through_cli:
        words = ["train", str(here / "net.py"), "--output", str(place), "--quiet"]
        words += ["--threads", "1", "--checkpoint-every", every]
        words += ["--resume", "latest"] if (place / "config.json").exists() else []
        app(words, standalone_mode=False)
        return
    declared = load(here / "net.py")
    assert declared.data is not None
    Trainer(declared.recipe, threads=1).fit(
        declared.data.train,
        validation_data=declared.data.validation,
        callbacks=RunDirectory(place, resume=True, checkpoint_every=every),
        verbose=0,
    )


class Shared:
    """Two numbers that a child process writes and its parent reads: steps made, and calls that
    change files."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def __getitem__(self, i: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * i)[0])

    def __setitem__(self, i: int, x: int) -> None:
        struct.pack_into("q", self._memory, 8 * i, x)


class Killer:
    """Counts the calls of this process that change files, and kills it at the `number`-th: before
    it, after it, or where it writes half-way."""

    def __init__(self, shared: Shared, number: int | None, after: bool) -> None:
        self.shared, self.number, self.after = shared, number, after
        for name in _CALLS:
            setattr(os, name, self.wrapped(getattr(os, name)))
        opened = builtins.open

        def watched(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+"):
                return opened(file, mode, *args, **options)
            return Written(self.wrapped(opened)(file, mode, *args, **options), self)

        builtins.open = io.open = watched  # type: ignore[assignment]  # pathlib calls io's

    def reached(self) -> bool:
        self.shared[1] += 1
        return self.shared[1] == self.number

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            last = self.reached()
            if last and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run


class Written:
    """A file of which a write may be the last call, when half of it is done."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self._file, self._killer = file, killer

    def write(self, data: Any) -> Any:
        if self._killer.reached():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._file.write(data)

    def __enter__(self) -> Written:
        self._file.__enter__()
        return self

    def __exit__(self, *args: Any) -> Any:
        return self._file.__exit__(*args)

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def in_child(
    work: Callable[[], None], shared: Shared, killer: Callable[[], object], seconds: float | None
) -> int:
    """Runs the work in a forked process, which `killer` or, after so many seconds, this one kills:
    its exit code, or as a negative number the signal that ended it. Nothing has started a session
    here, so that there are no threads that a fork would lose."""
    shared[0] = shared[1] = 0
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            made = StepRunner.step

            def counted(runner: StepRunner, batch: Any) -> None:
                made(runner, batch)
                shared[0] += 1

            StepRunner.step = counted  # type: ignore[method-assign]  # to count steps
            killer()
            work()
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    timer = None
    if seconds is not None:
        timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
        timer.start()
    _, status = os.waitpid(child, 0)
    if timer is not None:
        timer.cancel()
        timer.join()
    return os.waitstatus_to_exitcode(status)


def state_on_disk(place: Path) -> int:
    """The step that a run would go on from; every file that a user may read is read. Raises what
    reading raises."""
    if not place.exists():
        return 0
    run_config.read(place)  # a directory appears with its configuration
    for file in place.rglob("*"):
        if file.name.startswith("."):
            continue
        if file.suffix == ".safetensors":
            load_state(file)
        elif file.suffix == ".onnx":
            onnx.checker.check_model(onnx.load(file))
    last = Resumed(place, None, {}).checkpoint()
    return 0 if last is None else int(load_state(last)[0]["step"])


def differences(place: Path, whole: Path) -> list[str]:
    """Where a run that was killed and went on differs from one that was not."""
    found = []
    for name in ("checkpoint.safetensors", "best/checkpoint.safetensors"):
        (ours, about), (theirs, expected) = load_state(place / name), load_state(whole / name)
        keys = ours.keys() == theirs.keys()
        if not keys or any(x.tobytes() != theirs[n].tobytes() for n, x in ours.items()):
            found.append(f"{name} differs")
        if about["nncompile.position"] != expected["nncompile.position"]:
            found.append(f"the position in {name} differs")
    for name in ("model.onnx", "step.onnx"):
        if (place / name).read_bytes() != (whole / name).read_bytes():
            found.append(f"{name} differs")
    rows, expected_rows = (
        [row.rpartition(",")[0] for row in (x / "log.csv").read_text().splitlines()]
        for x in (place, whole)
    )
    if rows != expected_rows:
        found.append(f"log.csv has {len(rows)} lines that differ from {len(expected_rows)}")
    left = [x for x in place.rglob(".*") if x.name != ".lock"]
    left += [x for x in place.parent.iterdir() if x.name.startswith(".")]
    return found + [f"{x.name} is left" for x in left]


def promised(every: str) -> int:
    """How many steps the state on disk may be behind."""
    count, unit = int(every[0]), every[1:]
    return count * (STEPS if unit.startswith("epoch") else 1)


def kill(count: int, seed: int = 0, progress: bool = False) -> Report:
    """Kills trainings so many times, and reports it."""
    report, shared = Report(), Shared()
    draw = random.Random(seed)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk would be most of the time
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        here = Path(folder)
        (here / "net.py").write_text(MODEL.replace("EPOCHS", str(EPOCHS)), encoding="utf-8")
        told = 0
        whole: dict[tuple[str, bool], tuple[Path, int, float]] = {}
        while report.kills < count:
            every, through_cli = draw.choice(EVERY), report.runs % 2 == 0
            if (every, through_cli) not in whole:
                place = here / f"whole-{every}-{through_cli}" / "run"
                start = time.perf_counter()
                work = partial(trained, here, place, every, through_cli)
                code = in_child(work, shared, lambda: Killer(shared, None, False), None)
                assert code == 0, "a training that nobody kills fails"
                seconds = time.perf_counter() - start
                whole[every, through_cli] = place, shared[1], seconds
            place = here / f"run{report.runs}" / "run"
            _one(report, shared, draw, here, place, every, through_cli, *whole[every, through_cli])
            if progress:
                print(*report.problems[told:], sep="\n", end="\n" * (len(report.problems) > told))
                told = len(report.problems)
            if progress and report.runs % 10 == 0:
                print(f"{report.kills} kills, {told} problems", flush=True)
    return report


def _one(
    report: Report,
    shared: Shared,
    draw: random.Random,
    here: Path,
    place: Path,
    every: str,
    through_cli: bool,
    whole: Path,
    calls: int,
    seconds: float,
) -> None:
    """One run, killed some times, and then not."""
    report.runs += 1
    label = f"run {report.runs} ({'command line' if through_cli else 'Python'}, {every})"
    work = partial(trained, here, place, every, through_cli)
    before = 0
    for _ in range(draw.randint(1, _KILLS)):
        by_call = report.by_call <= report.by_time
        number = draw.randint(1, calls) if by_call else None
        after = draw.random() < 0.5
        limit = None if by_call else draw.uniform(0.02, seconds)
        code = in_child(work, shared, partial(Killer, shared, number, after), limit)
        if code == 0:  # it was done before
            break
        if code != -signal.SIGKILL:
            report.problems.append(f"{label}: it ended with {code}")
            return
        report.by_call += by_call
        report.by_time += not by_call
        try:
            step = state_on_disk(place)
        except (CompileError, OSError, ValueError, json.JSONDecodeError) as error:
            report.problems.append(f"{label}: a file cannot be read: {error}")
            return
        # The page on a run makes steps of its own to measure them, after those of the training.
        behind = min(before + shared[0], EPOCHS * STEPS) - step
        report.behind[every] = max(report.behind.get(every, 0), behind)
        if behind > promised(every):
            report.problems.append(f"{label}: the state on disk is {behind} steps behind")
        before = step
    if in_child(work, shared, lambda: None, None) != 0:
        report.problems.append(f"{label}: it does not go on")
        return
    report.resumed += 1
    report.problems += [f"{label}: {what}" for what in differences(place, whole)]


def main(count: int, seed: int = 0) -> int:
    """Kills so many times, and prints what came of it."""
    start = time.perf_counter()
    report = kill(count, seed, progress=True)
    behind = ", ".join(f"{n} at {every}" for every, n in sorted(report.behind.items()))
    seconds = time.perf_counter() - start
    print(
        f"{report.kills} kills in {seconds:.0f} s: {report.by_call} while files were written, "
        f"{report.by_time} at random times; {report.runs} runs, {report.resumed} went on; "
        f"steps behind at most: {behind}; {len(report.problems)} problems"
    )
    return 1 if report.problems else 0
