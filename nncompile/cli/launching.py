"""Starts a command in several processes on this machine, and again where one is killed."""

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

from nncompile.cli.outcome import FAILED, MISTAKE
from nncompile.cli.workers import PLACE, Place
from nncompile.diagnostics.errors import FileError, LostProcessError, ModelError, ProcessError
from nncompile.runtime.child import end_with_parent
from nncompile.train.display import is_terminal
from nncompile.train.run_lock import Lock
from nncompile.train.run_resumption import Resumed, step_of

_STARTING = 120.0  # seconds until the first process is there
_ENDING = 5.0  # seconds from one attempt to end the processes to the next
_RESTARTS = 10
_SIGNALLED = 128  # what the number of a signal is added to, as shells do
# More processes than cores, on no cores in particular, also as the only user of a container; as
# versions 4 and 5 of Open MPI have it. Others pass over it.
SURROUNDINGS = {
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def run_workers(count: int, elastic: bool = False) -> int:
    """Runs this command line in so many processes, and gives the exit code of the first. A signal
    is passed on to it; a second one ends all of them.

    Where one of them is killed, and they are `elastic`, they begin again, up to ten times: from the
    last state of their run, and with one process fewer where there is none since the last time."""
    launcher = _launcher()
    with tempfile.TemporaryDirectory(prefix="nncompile-") as directory:
        place, reached = Place(Path(directory)), ""
        for number in range(_RESTARTS + 1):
            try:
                return _run(launcher, count, place)
            except LostProcessError:
                if not elastic or number == _RESTARTS:
                    raise
            state = _reached(place)
            count = count if state != reached else max(1, count - 1)
            reached = state
            processes = f"{count} processes begin" if count > 1 else "one process begins"
            typer.echo(
                f"a process was killed: {processes} again from {state or 'the beginning'} "
                f"(restart {number + 1} of {_RESTARTS})",
                err=True,
            )
    raise AssertionError("the last attempt returns or raises")


def _run(launcher: str, count: int, place: Place) -> int:
    """The exit code of the first of so many processes. Raises `LostProcessError` where one is
    killed, and `ProcessError` where one ends otherwise before that is told."""
    place.forget("pid", "exit")
    command = [launcher, "-n", str(count), sys.executable, "-m", "nncompile", *sys.argv[1:]]
    surroundings = {**SURROUNDINGS, **os.environ, PLACE: str(place.path)}
    if not is_terminal(sys.stderr):
        surroundings["TERM"] = "dumb"
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        surroundings |= {f"OMPI_ALLOW_RUN_AS_ROOT{end}": "1" for end in ("", "_CONFIRM")}
    # Who is killed itself cannot end it.
    ending = partial(end_with_parent, signal.SIGTERM) if os.name == "posix" else None
    child = subprocess.Popen(command, env=surroundings, start_new_session=True, preexec_fn=ending)
    try:
        with _passing_on(child, place) as received:
            _wait(child, launcher, place)
    finally:
        _end(child)
    said, code = place.told("exit"), child.returncode
    # The first process is told with a signal that another one was killed.
    if said is not None and (received or int(said) < _SIGNALLED or code == 0):
        return int(said)
    if said is None and code == 0:
        return 0
    if received:  # before there was anything to keep
        return _SIGNALLED + received[0]
    # What Python or a launcher itself ends with is less.
    error = LostProcessError if said is not None or not 0 < code <= MISTAKE else ProcessError
    raise error(
        f"one of the {count} processes ended before the training did",
        exit_code=code if 0 < code < 256 else FAILED,
        hint="--resume goes on from the last state that was written, --elastic does so by itself",
    )


def _reached(place: Place) -> str:
    """From which state the processes go on; "" where there is none. Waits until the first of those
    before has ended, which has the run."""
    run = place.told("run")
    if run is None or not Path(run).is_dir():
        return ""
    start = time.monotonic()
    while time.monotonic() - start < _ENDING:
        with contextlib.suppress(FileError):
            Lock(Path(run)).release()
            break
        time.sleep(0.05)
    file = Resumed(Path(run), None, {}).checkpoint()
    # By its step: where there was time for exports, that state has one name each time.
    return "" if file is None else f"step {step_of(file):09d} of {run}"


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
def _passing_on(child: subprocess.Popen[Any], place: Place) -> Iterator[list[int]]:
    """A block in which a signal is one for the first of the processes; a second one ends all. Gives
    the signals that come."""
    received: list[int] = []

    def take(number: int, _: FrameType | None) -> None:
        received.append(number)
        first = place.told("pid")
        if len(received) > 1 or first is None:
            child.terminate()
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(first), number)

    numbers = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    before = {number: signal.signal(number, take) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(child: subprocess.Popen[Any], launcher: str, place: Place) -> None:
    """Until the processes have ended. Raises `ProcessError` where they do not begin."""
    start = time.monotonic()
    while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)
        is_there = place.told("pid") is not None
        if child.poll() is None and not is_there and time.monotonic() - start > _STARTING:
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
