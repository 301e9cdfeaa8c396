"""Commands of several processes: those that a launcher such as mpirun started, and those that one
process starts itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from nncompile.cli.outcome import FAILED
from nncompile.cli.shared import out
from nncompile.diagnostics.errors import CompileError, ModelError, ProcessError
from nncompile.diagnostics.extras import extra
from nncompile.runtime.child import end_with_parent
from nncompile.train.display import is_terminal

# What Open MPI, MPICH and MVAPICH tell a process that they start: how many there are, which it is,
# and how many are on its machine.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
)
# The same of torchrun, whose names others use, too.
_TORCHRUN, _OF_TORCHRUN = "TORCHELASTIC_RUN_ID", ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE")
_PLACE = "NNCOMPILE_WORKERS"  # the directory in which the first process says how it is
_STARTING = 120.0  # seconds until the first process is there
_ENDING = 5.0  # seconds from one attempt to end the processes to the next
# More processes than cores, on no cores in particular, also as the only user of a container; as
# versions 4 and 5 of Open MPI have it. Others pass over it.
SURROUNDINGS = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def launched() -> tuple[int, int, int] | None:
    """How many processes a launcher started, which this one is, and how many are on this machine;
    None where there is one."""
    for names in (*_LAUNCHERS, *([_OF_TORCHRUN] if _TORCHRUN in os.environ else [])):
        size, rank, local = (os.environ.get(name, "") for name in names)
        if size.isdigit() and int(size) > 1:
            return int(size), int(rank or 0), int(local or size)
    return None


@contextlib.contextmanager
def several(workers: int | None, shard_optimizer: bool = False) -> Iterator[Any]:
    """A block that is run by all processes that were launched; gives them, or None where there is
    one. The first alone prints; what fails in another one is its error. Raises `ModelError` where
    one is to share its update."""
    there = launched()
    if there is None:
        if shard_optimizer:
            raise ModelError(
                "--shard-optimizer is for several processes, and there is one",
                hint="--workers 2 starts two",
            )
        yield None
        return
    size, rank, _ = there
    if rank:
        _be_silent()
    place = os.environ.get(_PLACE)
    if not place:  # a launcher makes a terminal of a pipe, and what is behind it is not known
        os.environ["TERM"] = "dumb"
    parallel = extra("nncompile.parallel", "nncompile.parallel", "train", "")
    connect = parallel.torch_distributed if _TORCHRUN in os.environ else parallel.mpi
    processes = connect(shard_optimizer=shard_optimizer)
    try:
        with processes.together():
            _check_size(processes.size, size, workers)
            # From now on a signal for this process ends all; while they connect, it would leave
            # the others waiting for it.
            if place and not rank:
                Path(place, "pid").write_text(str(os.getpid()))
            yield processes
    except (CompileError, KeyboardInterrupt, SystemExit):
        if rank:
            raise typer.Exit(0) from None  # the first process says what there is to say
        raise


def threads_of_each() -> int | None:
    """The threads of a process where several share a machine; None where none was launched."""
    there = launched()
    return None if there is None else max(1, (os.cpu_count() or 1) // there[2])


def _check_size(size: int, launched: int, workers: int | None) -> None:
    if size != launched:
        raise ModelError(
            f"the launcher started {launched} processes, of which MPI connects {size}",
            hint="mpirun and the MPI that mpi4py uses are two: python -m mpi4py --mpi-lib-version",
        )
    if workers is not None and workers != size:
        raise ModelError(f"--workers {workers} stands under a launcher of {size} processes")


def _be_silent() -> None:
    out.quiet = True
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the process
    sys.stderr = sys.stdout


def run_workers(count: int) -> int:
    """Runs this command line in so many processes, and gives the exit code of the first. A signal
    is passed on to it; a second one ends all of them."""
    launcher = _launcher()
    with tempfile.TemporaryDirectory(prefix="nncompile-") as place:
        command = [launcher, "-n", str(count), sys.executable, "-m", "nncompile", *sys.argv[1:]]
        surroundings = {**SURROUNDINGS, **os.environ, _PLACE: place}
        if not is_terminal(sys.stderr):
            surroundings["TERM"] = "dumb"
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            surroundings |= {f"OMPI_ALLOW_RUN_AS_ROOT{end}": "1" for end in ("", "_CONFIRM")}
        # Who is killed itself cannot end it.
        ending = partial(end_with_parent, signal.SIGTERM) if os.name == "posix" else None
        child = subprocess.Popen(
            command, env=surroundings, start_new_session=True, preexec_fn=ending
        )
        try:
            with _passing_on(child, Path(place, "pid")) as received:
                _wait(child, launcher, Path(place, "pid"))
        finally:
            _end(child)
        said = Path(place, "exit")
        if said.exists():
            return int(said.read_text())
    if child.returncode == 0:
        return 0
    if received:  # before there was anything to keep
        return 128 + received[0]
    raise ProcessError(
        f"one of the {count} processes ended before the training did",
        exit_code=child.returncode if 0 < child.returncode < 256 else FAILED,
        hint="--resume goes on from the last state that was written",
    )


def tell_exit_code(ended: SystemExit) -> None:
    """Tells the process that started this one how it ends. Launchers write a page of their own of a
    process that ends with another code than 0, which this one then does not."""
    place, there = os.environ.get(_PLACE), launched()
    if place and there is not None and there[1] == 0 and isinstance(ended.code, int):
        Path(place, "exit").write_text(str(ended.code))
        ended.code = 0


def _launcher() -> str:
    beside = Path(sys.executable).parent
    names = ("mpirun", "mpiexec")
    for name in names:
        if (beside / name).exists():
            return str(beside / name)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise ModelError(
            "--workers needs mpirun, which is not on the PATH",
            hint="pip install 'nncompile[mpi]' brings it",
        )
    return found


@contextlib.contextmanager
def _passing_on(child: subprocess.Popen[Any], file: Path) -> Iterator[list[int]]:
    """A block in which a signal is one for the first of the processes; a second one ends all. Gives
    the signals that come."""
    received: list[int] = []

    def take(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1 or not file.exists():
            child.terminate()
            return
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(file.read_text()), number)

    numbers = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(child: subprocess.Popen[Any], launcher: str, file: Path) -> None:
    """Until the processes have ended. Raises `ProcessError` where they do not begin."""
    start = time.monotonic()
    while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)
        if child.poll() is None and not file.exists() and time.monotonic() - start > _STARTING:
            raise ProcessError(
                f"the processes did not begin within {_STARTING:.0f} s",
                hint=f"does {launcher} -n 2 hostname work?",
            )


def _end(child: subprocess.Popen[Any]) -> None:
    for end in (child.terminate, child.kill):
        if child.poll() is None:
            end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_ENDING)
