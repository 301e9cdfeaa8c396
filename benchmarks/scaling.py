"""How a training scales to two processes, each on a core of its own with as many rows as one alone
has (weak scaling), and what a model makes of it for many: `python -m benchmarks scaling`."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.markdown import lines_of, number, title_of
from benchmarks.peers.base import Absent
from benchmarks.recipes import recipe_of
from benchmarks.scaling_model import COUNTS, NETWORKS, Link, efficiencies, fitted
from benchmarks.tables import table_with
from benchmarks.workloads import WORKLOADS, Workload
from nncompile.cli.launching import SURROUNDINGS
from nncompile.compiler.compile import compile_step
from nncompile.parallel import mpi
from nncompile.parallel.processes import Processes
from nncompile.parallel.vectors import vector_of
from nncompile.program.gradient_stages import buckets_of
from nncompile.runtime.native import native_library

SUBJECTS = {
    "mlp-1024-2048-2048-1000 adam B64": 128,
    "resnet-20 sgd B32": 32,
    "gpt adamw B8": 8,
}
"""Workloads, and the rows of each process."""

TARGETS = {"mlp-1024-2048-2048-1000": 1.6, "resnet-20": 1.8, "gpt": 1.8}
"""The least speedup of two processes, in the better of the two ways."""

SHARED = "memory that both see"
ONE, WHOLE, PART = "one process", "each all of the update", "each a part of the update"
OVERLAPPED = "reduced while others are computed"
BUCKET = 4 * 2**20  # bytes of a bucket that is reduced so; of the smaller networks there is one
SIZES = tuple(4**i for i in range(4, 13))  # bytes: 256 to 16 million
SECONDS = 15.0  # of a network
LIMIT = 900.0  # of the job
STEPS = 3  # in turn


@dataclass(frozen=True)
class Scaling:
    """Medians of the seconds of a step, by way; `parameters` is their number. Two processes make
    steps of twice the rows."""

    workload: str
    rows: int
    native: bool
    parameters: int
    seconds: dict[str, float]

    @property
    def key(self) -> str:
        """What a row of another run is compared by."""
        return f"scaling {self.workload}, {'native' if self.native else 'portable'}"

    def speedup(self, way: str) -> float:
        """The rows a second of two processes by those of one."""
        return 2 * self.seconds[ONE] / self.seconds[way]

    @property
    def best(self) -> float:
        """The speedup in the better way."""
        return max(self.speedup(WHOLE), self.speedup(PART))

    @property
    def is_short(self) -> bool:
        """Whether it is below its target."""
        return self.best < TARGETS.get(self.workload, 0.0)


@dataclass(frozen=True)
class Sums:
    """Seconds of sums of so many bytes over the processes, through MPI and in shared memory."""

    mpi: dict[int, float]
    shared: dict[int, float]


@dataclass(frozen=True)
class Result:
    """What one run found."""

    rows: list[Scaling]
    sums: Sums

    @property
    def as_json(self) -> dict[str, Any]:
        """As a file has it, with what follows from it."""
        rows = [asdict(row) | {"key": row.key, "is_short": row.is_short} for row in self.rows]
        links = {name: asdict(link) for name, link in self.links.items()}
        return {"scaling": rows, "sums": asdict(self.sums), "links": links}

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Result:
        """What was written so."""
        names = Scaling.__dataclass_fields__
        rows = [Scaling(**{n: row[n] for n in names}) for row in kept["scaling"]]
        sums = {way: {int(n): x for n, x in found.items()} for way, found in kept["sums"].items()}
        return cls(rows, Sums(**sums))

    @property
    def links(self) -> dict[str, Link]:
        """What was measured, as messages of two processes, and the networks that are assumed."""
        measured = {SHARED: self.sums.shared, "MPI on this machine": self.sums.mpi}
        return {n: fitted(x) for n, x in measured.items()} | dict(NETWORKS)


def measure_scaling(seconds: float = SECONDS, keys: Iterable[str] = tuple(SUBJECTS)) -> Result:
    """Runs a job of two processes. Raises `Absent` where there are no two cores, or there is no
    MPI."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        raise Absent("it needs two cores that processes can be pinned to")
    beside = Path(sys.executable).parent / "mpirun"
    launcher = str(beside) if beside.exists() else shutil.which("mpirun")
    if launcher is None or find_spec("mpi4py") is None:
        raise Absent("mpirun or mpi4py is not installed")
    command = [launcher, "-n", "2", sys.executable, "-m", "benchmarks.scaling", str(seconds)]
    allowed = {f"OMPI_ALLOW_RUN_AS_ROOT{end}": "1" for end in ("", "_CONFIRM")}
    done = subprocess.run(
        [*command, *keys],
        env={**os.environ, **SURROUNDINGS, **allowed, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode:
        raise Absent((done.stderr.strip() or "no output").splitlines()[-1][:160])
    return Result.of(json.loads(done.stdout.splitlines()[-1]))


def chosen_workload(key: str) -> Workload:
    """The workload, at the rows of one process."""
    workload = next(w for w in WORKLOADS if w.key == key)
    return replace(workload, batch=SUBJECTS.get(key, workload.batch))


def measured(
    whole: Processes,
    part: Processes,
    overlapping: Processes,
    workload: Workload,
    native: bool,
    seconds: float,
) -> Scaling:
    """A workload in all ways, which take turns in an order of chance; the first process alone
    while the other one waits."""
    one = compile_step(recipe_of(workload))
    several = compile_step(recipe_of(replace(workload, batch=whole.size * workload.batch)))
    state = one.source.initial()
    options = "cpu", 1, None, native, False
    runners: dict[str, Any] = {WHOLE: whole.runner(several, state, *options)}
    runners[PART] = part.runner(several, state, *options)
    if len(buckets_of(several.source, overlapping.overlap or BUCKET)) > 1:
        runners[OVERLAPPED] = overlapping.runner(several, state, *options)
    ways = [ONE, *runners]
    if whole.is_first:
        runners[ONE] = one.runner(state, threads=1, native=native)
    (batch,) = replace(workload, batch=whole.size * workload.batch).batches(1)
    own = {name: x[: workload.batch] for name, x in batch.items()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    draw, end, turn = random.Random(0), time.monotonic() + seconds, 0
    while _all(whole, turn < 3 or time.monotonic() < end):
        for way in draw.sample(ways, len(ways)):
            whole.group.barrier()
            if way in runners:
                took = _step_seconds(runners[way], own if way == ONE else batch)
                times[way] += took if turn else []  # the first warms up
            whole.group.barrier()
        turn += 1
    count = sum(int(np.prod(x.shape)) for x in one.source.model.parameters.values())
    found = {way: statistics.median(took or [0.0]) for way, took in times.items()}
    return Scaling(workload.name, workload.batch, native, count, found)


def _all(processes: Processes, goes_on: bool) -> bool:
    """Whether the first process goes on."""
    return bool(processes.of_first(goes_on))


def _step_seconds(runner: Any, batch: Any) -> list[float]:
    found = []
    for _ in range(STEPS):
        start = time.perf_counter()
        runner.step(batch)
        runner.metrics()
        found.append(time.perf_counter() - start)
    return found


def measured_sums(processes: Processes, sizes: Sequence[int] = SIZES) -> Sums:
    """Sums of vectors of so many bytes."""
    mpi, shared = {}, {}
    for size in sizes:
        array = np.zeros(size // 4, np.float32)
        vector = vector_of(processes.group, size // 4, np.float32, [size // 4])
        mpi[size] = _sum_seconds(processes, lambda x=array: processes.group.allreduce(x), size)
        shared[size] = _sum_seconds(processes, lambda x=vector: x.sum([1.0]), size)
    return Sums(mpi, shared)


def _sum_seconds(processes: Processes, call: Any, size: int) -> float:
    times = []
    for _ in range(20 if size < 2**20 else 7):
        processes.group.barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times[1:])  # what it can do, not what else used the cores


def table_of(result: Result) -> Table:
    """What was measured."""
    names = ("rows each", "one, ms", "two, ms", "speedup", "parts, ms", "speedup", "target")
    names = (*names, "overlapped, ms")
    title = "Weak scaling to two processes, each on a core; parts: each updates a part"
    table = table_with(title, ["network", "kernels"], names)
    for row in result.rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Scaling) -> list[str]:
    cells = [title_of(row.workload), "native" if row.native else "none", str(row.rows)]
    cells.append(number(1e3 * row.seconds[ONE]))
    for way in (WHOLE, PART):
        cells += [number(1e3 * row.seconds[way]), f"{row.speedup(way):.2f}"]
    target = TARGETS.get(row.workload)
    cells.append("" if target is None else f"{target:g}{'*' if row.is_short else ''}")
    late = row.seconds.get(OVERLAPPED)
    return [*cells, "–" if late is None else number(1e3 * late)]


def model_table(result: Result) -> Table:
    """What the model makes of it."""
    title = (
        "A MODEL, not a measurement: efficiency at so many processes, percent. "
        "Networks of 10 and 100 Gb/s are assumed"
    )
    table = table_with(title, ["network", "link", "algorithm"], [f"{p:,}" for p in COUNTS])
    for cells in _model_rows(result):
        table.add_row(*cells)
    return table


def _model_rows(result: Result) -> list[list[str]]:
    rows = []
    for row in result.rows:
        for name, link in result.links.items():
            if name == SHARED:  # which no network is like
                continue
            found = efficiencies(link, 4 * row.parameters, row.seconds[ONE])
            kernels = ", native" if row.native else ""
            for algorithm, values in found.items():
                shown = [f"{100 * x:.0f}" for x in values]
                rows.append([title_of(row.workload) + kernels, name, algorithm, *shown])
    return rows


def links_line(result: Result) -> str:
    """The fitted numbers."""
    parts = [
        f"{name}: α {1e6 * link.alpha:.0f} µs, β {1e9 * link.beta:.3f} ns/byte "
        f"({1e-9 / link.beta if link.beta else float('inf'):.1f} GB/s)"
        for name, link in result.links.items()
    ]
    return "; ".join(parts)


def markdown(result: Result) -> str:
    """The tables for a page."""
    head = ["network", "kernels", "rows each", "one, ms", "two, ms", "speedup"]
    head += ["parts, ms", "speedup", "target", "overlapped, ms"]
    measured_lines = [head, ["---"] * len(head), *map(_cells, result.rows)]
    model_head = ["network (a model)", "link", "algorithm", *(f"{p:,}" for p in COUNTS)]
    model_lines = [model_head, ["---"] * len(model_head), *_model_rows(result)]
    return "\n\n".join([lines_of(measured_lines), links_line(result), lines_of(model_lines)])


def main(seconds: str, *keys: str) -> None:
    """One of the processes of the job: prints the result as JSON."""
    whole, part, overlapping = mpi(), mpi(shard_optimizer=True), mpi(overlap=BUCKET)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[whole.rank]})
    sums = measured_sums(whole)
    rows = [
        measured(whole, part, overlapping, chosen_workload(key), native, float(seconds))
        for native in ((False, True) if native_library() is not None else (False,))
        for key in keys
    ]
    if whole.is_first:
        print(json.dumps(Result(rows, sums).as_json))


if __name__ == "__main__":
    main(*sys.argv[1:])
