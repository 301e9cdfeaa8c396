"""Jobs of several processes under mpirun, where there is one and mpi4py."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nncompile.cli.launching import SURROUNDINGS

ROOT = Path(__file__).parent.parent


def mpirun() -> str | None:
    """The launcher beside this Python, or the first on the path."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


needs_mpi = pytest.mark.skipif(
    mpirun() is None or importlib.util.find_spec("mpi4py") is None,
    reason="mpirun or mpi4py is not installed",
)


needs_ulfm = pytest.mark.skipif(
    mpirun() is None
    or importlib.util.find_spec("mpi4py") is None
    or " 5." not in subprocess.check_output([mpirun() or "", "--version"], text=True),
    reason="mpi4py or mpirun of Open MPI 5 is not installed",
)


def job(
    count: int,
    arguments: Sequence[str],
    directory: Path,
    seconds: float = 60,
    options: Sequence[str] = (),
) -> str:
    """What so many processes `python ARGUMENTS` print, and nothing else goes wrong."""
    done = subprocess.run(
        [*launching(count), *options, sys.executable, *arguments],
        cwd=directory,
        env=environment(),
        timeout=seconds,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def launching(count: int) -> list[str]:
    """The command before a program."""
    launcher = mpirun()
    assert launcher is not None
    return [launcher, "-n", str(count)]


def environment() -> dict[str, str]:
    """One thread each, and more processes than cores; Open MPI wants to be told twice that it may
    run as root."""
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **SURROUNDINGS, **allowed, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
