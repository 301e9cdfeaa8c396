"""Kills random processes of trainings at random moments: `python -m tests.kills --count 100`.

Each job trains one of three models with two to four processes, half of them each with its part of
the update (`--shard-optimizer`), and is killed some times:

- `ends`: `--workers N`. The job ends within five seconds, and is resumed.
- `restarts`: `--workers N --elastic`. The job says so within five seconds, and goes on to its end.
- `dwindles`: the same, and the first is killed before there is a state. The job goes on with one
  process fewer each time, to the end with one.
- `survives`: `mpirun --with-ft ulfm -n N`, `--elastic`. The others say so, and go on to the end.

It goes on from a state that is no older than the last on disk when the process was killed. There is
a new one before the others, so that as many processes as before begin again: the state in the end
has the bits of a job that was left alone. With fewer, that of the models other than the deep one is
the same to rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.runtime.checkpoint import load_state
from tests.mpi_jobs import environment, launching

EVERY = 20  # steps from one state that is written to the next
STEPS = 600  # more than are made until the last process is killed
REPORTED = 5.0  # seconds until a killed process is reported
PATIENCE = 300.0  # seconds for all else
MODES = ("ends", "restarts", "dwindles", "survives")
FEWER = ("dwindles", "survives")  # with fewer processes in the end
MODELS = {
    "convex": ('x >> Dropout(0.2) >> Dense(3, name="out")', "sgd(0.01, 0.9)"),
    "deep": (
        'x >> Dense(16, relu, name="hidden") >> Dropout(0.3) >> Dense(3, name="out")',
        "adam(0.001)",
    ),
    # Which accumulates. A window ends with each state that is written.
    "windows": ('x >> Dropout(0.2) >> Dense(30, relu) >> Dense(3, name="out")', "sgd(0.01, 0.9)"),
}
ACCUMULATE = {"windows": 4}
KINDS = [(mode, model, x) for x in (False, True) for model in MODELS for mode in MODES]
# While there is a file `slow`, an epoch of 22 batches takes a tenth of a second in which nothing is
# computed.
FILE = """
import time
from pathlib import Path
import numpy as np
from dsl import Dense, Dropout, adam, cross_entropy, f32, i64, model, relu, sgd, training

@model
def net(x=f32["batch", 20], label=i64["batch"]):
    return {{"loss": cross_entropy({logits}, label)}}

class Slow:
    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
    def __len__(self):
        return len(self.array)
    def __getitem__(self, rows):
        if Path("slow").exists():
            time.sleep(0.005)
        return self.array[rows]

recipe = training(net, optimizer={optimizer}, batch_size=32, accumulate={accumulate})
rng = np.random.default_rng(0)
data = {{"x": Slow(rng.normal(size=(700, 20)).astype("f4")), "label": rng.integers(0, 3, 700)}}
"""


def train(directory: Path, before: Sequence[str], *options: str) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "nncompile", "train", "net.py", "--quiet", *options]
    return subprocess.Popen(
        [*before, *command],
        cwd=directory,
        env=environment(),
        stdout=(directory / "out").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def ranks(parent: int) -> dict[int, int]:
    """The processes of the training that this one started, by the number they began with."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or not _descends(int(entry.name), parent):
            continue
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            named = dict(x.split(b"=", 1) for x in variables if b"=" in x)
            if b"OMPI_COMM_WORLD_RANK" in named:
                found[int(named[b"OMPI_COMM_WORLD_RANK"])] = int(entry.name)
    return found


def _descends(process: int, parent: int) -> bool:
    while process not in (0, parent):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        if fields[0] == "Z":
            return False
        process = int(fields[1])
    return process == parent


def last_step(directory: Path) -> int:
    """The step of the last state on disk."""
    files = sorted((directory / "runs/net/killed/checkpoints").glob("step-*.safetensors"))
    return int(files[-1].stem.split("-")[-1]) if files else 0


def until(true: Any, child: subprocess.Popen[Any], seconds: float = PATIENCE) -> bool:
    """Whether that becomes true while the job runs."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        if true():
            return True
        if child.poll() is not None:
            return bool(true())
        time.sleep(0.02)
    return False


@dataclass
class Job:
    """One training, and what became of it."""

    mode: str
    model: str
    size: int
    shares: bool = False  # whether each process makes a part of the update
    kills: int = 0
    seconds: list[float] = field(default_factory=list)  # until each kill was reported
    lost: list[int] = field(default_factory=list)  # steps behind the last state on disk
    said: list[str] = field(default_factory=list)  # what went wrong
    sizes: list[int] = field(default_factory=list)  # the numbers of processes it went on with
    error: float = 0.0

    def options(self) -> tuple[list[str], list[str]]:
        """What stands before the command, and its options."""
        before = [*launching(self.size), "--with-ft", "ulfm"] if self.mode == "survives" else []
        own = [] if self.mode == "survives" else ["--workers", str(self.size)]
        own += [] if self.mode == "ends" else ["--elastic"]
        own += ["--shard-optimizer"] if self.shares else []
        every = STEPS if self.mode == "dwindles" else EVERY
        return before, [*own, "--checkpoint-every", f"{every}steps"]

    def run(self, directory: Path, rng: random.Random, kills: int) -> None:
        """Trains to the end, with so many kills."""
        write(directory, self.model)
        (directory / "slow").touch()
        before, options = self.options()
        first = [*options, "--name", "killed", "--steps", str(STEPS)]
        child = train(directory, before, *first)
        for _ in range(kills):
            again = self._kill(directory, rng, child)
            if self.said:
                break
            if again:
                child = train(directory, before, *options, "--resume", "killed")
        (directory / "slow").unlink()
        try:
            if child.wait(PATIENCE) != 0:
                self.said.append(f"exit code {child.returncode}")
        except subprocess.TimeoutExpired:
            self.said.append(f"does not end: {sorted(ranks(child.pid))} are there")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        printed = (directory / "out").read_text()
        again = re.findall(r"a process was killed: (\S+) process", printed)
        self.sizes = [1 if number == "one" else int(number) for number in again]
        expected = {
            "restarts": [self.size] * self.kills,
            "dwindles": [*reversed(range(1, self.size))][: self.kills],
        }
        if not self.said and self.sizes != expected.get(self.mode, []):
            self.said.append(f"goes on with {self.sizes} processes")
        if self.said:
            self.said.append(printed[-2000:])

    def _kill(self, directory: Path, rng: random.Random, child: subprocess.Popen[Any]) -> bool:
        """Kills a process when there is a newer state than before, or before there is one; whether
        the job has ended."""
        before, out = last_step(directory), directory / "out"
        told = len(self._reports(out))
        if self.mode == "dwindles":
            is_there = until(lambda: out.read_text().count(" parameters in ") > told, child)
            pause = 0.2
        else:
            is_there, pause = until(lambda: last_step(directory) > before, child), 0.5
        if not is_there:
            self.said.append("does not train")
            return False
        time.sleep(rng.uniform(0, pause))
        alive, told = ranks(child.pid), len(self._reports(out))
        if not alive:
            self.said.append("ended by itself")
            return False
        rank = 0 if self.mode == "dwindles" else rng.choice(sorted(alive))
        on_disk = last_step(directory)
        os.kill(alive[rank], signal.SIGKILL)
        self.kills += 1
        start = time.monotonic()
        if self.mode == "ends":
            is_reported = until(lambda: child.poll() is not None, child)
        else:
            is_reported = until(lambda: len(self._reports(out)) > told, child)
        self.seconds.append(time.monotonic() - start)
        if not is_reported or self.seconds[-1] > REPORTED or (child.returncode == 0):
            self.said.append(f"{rank} killed, not reported: {self.seconds[-1]:.1f} s")
        if self.mode == "ends":
            self.lost.append(max(0, on_disk - last_step(directory)))
            return True
        if self.mode == "dwindles":  # from the beginning, where there may be no run yet
            return False
        if not until(lambda: len(self._steps(out)) > told, child):
            self.said.append("does not go on")
            return False
        self.lost.append(max(0, on_disk - self._steps(out)[-1]))
        return False

    def _reports(self, out: Path) -> list[str]:
        return re.findall(r"a process was killed:.*|process.* of \d+ .* ended;.*", out.read_text())

    def _steps(self, out: Path) -> list[int]:
        found = re.findall(r"goes on from step ([\d,]+)", out.read_text())
        return [int(x.replace(",", "")) for x in found]

    def compare(self, directory: Path, alone: dict[Any, Any]) -> None:
        """Compares the state in the end with that of a job that was left alone."""
        size = 1 if self.mode in FEWER else self.size
        kind = self.model, size, self.shares and size > 1
        if kind not in alone:
            how = ["--workers", str(size)] if size > 1 else []
            how += ["--shard-optimizer"] if kind[-1] else []
            child = train(directory, [], *how, "--name", "alone", "--steps", str(STEPS))
            assert child.wait(PATIENCE) == 0, (directory / "out").read_text()
            file = directory / "runs/net/alone/checkpoint.safetensors"
            alone[kind] = load_state(file)[0]
        state = load_state(directory / "runs/net/killed/checkpoint.safetensors")[0]
        self.error = max(
            float(np.abs(state[n] - x).max() / max(np.abs(x).max(), 1e-30))
            for n, x in alone[kind].items()
        )
        if self.error > self.allowed():
            self.said.append(f"the state differs by {self.error:.1e}")

    def allowed(self) -> float:
        """The difference that may come of sums in another order."""
        if self.mode not in FEWER:
            return 0.0
        return {"convex": 1e-4, "windows": 1e-3}.get(self.model, float("inf"))


def write(directory: Path, model: str) -> None:
    logits, optimizer = MODELS[model]
    accumulate = ACCUMULATE.get(model, 1)
    text = FILE.format(logits=logits, optimizer=optimizer, accumulate=accumulate)
    (directory / "net.py").write_text(text)


def print_table(jobs: Sequence[Job]) -> None:
    print(
        f"\n{'job':10}{'model':8}{'update':8}{'processes':10}{'jobs':>5}{'kills':>7}"
        f"{'reported in':>13}{'lost':>6}{'difference':>12}{'wrong':>7}"
    )
    for mode, model, shares in KINDS:
        those = [job for job in jobs if (job.mode, job.model, job.shares) == (mode, model, shares)]
        if not those:
            continue
        seconds = [x for job in those for x in job.seconds]
        lost = [x for job in those for x in job.lost]
        sizes = ", ".join(str(size) for size in sorted({job.size for job in those}))
        print(
            f"{mode:10}{model:8}{'parts' if shares else 'whole':8}{sizes:10}{len(those):5}"
            f"{sum(job.kills for job in those):7}"
            f"{max(seconds, default=0):11.1f} s{max(lost, default=0):6}"
            f"{max(job.error for job in those):12.1e}{sum(bool(job.said) for job in those):7}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=MODES)
    parser.add_argument("--model", choices=MODELS)
    chosen = parser.parse_args()
    rng, jobs, alone = random.Random(chosen.seed), list[Job](), dict[Any, Any]()
    kinds = [
        kind for kind in KINDS if chosen.only in (None, kind[0]) and chosen.model in (None, kind[1])
    ]
    while sum(job.kills for job in jobs) < chosen.count and not any(
        job.said and not job.kills for job in jobs
    ):
        mode, model, shares = kinds[(chosen.seed + len(jobs)) % len(kinds)]
        job = Job(mode, model, rng.choice([2, 3, 4]), shares)
        left = chosen.count - sum(x.kills for x in jobs)
        kills = job.size - 1 if mode in FEWER else rng.choice([2, 3, 4])
        jobs.append(job)
        with tempfile.TemporaryDirectory() as name:
            job.run(Path(name), rng, min(kills, left))
            if not job.said:
                job.compare(Path(name), alone)
        print(
            f"{len(jobs):3}  {job.mode} {job.model}, {job.size} processes"
            f"{', parts of the update' if job.shares else ''}: {job.kills} kills, "
            f"reported in {', '.join(f'{x:.1f}' for x in job.seconds)} s, steps lost "
            f"{', '.join(map(str, job.lost))}, difference {job.error:.1e}"
            f"{'  WRONG: ' if job.said else ''}{'; '.join(job.said)}",
            flush=True,
        )
    print_table(jobs)
    sys.exit(any(job.said for job in jobs))


if __name__ == "__main__":
    main()
