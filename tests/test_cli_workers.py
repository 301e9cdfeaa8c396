"""`nncompile train` with several processes: how they are started, and what is said where they are
not. What they compute is tested in `test_parallel.py`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nncompile.cli import workers
from nncompile.diagnostics.errors import ModelError, ProcessError
from nncompile.parallel import message_passing
from tests.command_line import fails

FILE = """
import numpy as np
from dsl import Dense, f32, model, mse, training

@model
def net(x=f32["batch", 3]):
    return {"loss": mse(x >> Dense(3), x)}

recipe = training(net)
data = {"x": np.ones((8, 3), np.float32)}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def started(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> None:
    """Makes that script the launcher."""
    launcher = directory / "bin" / "mpirun"
    launcher.parent.mkdir()
    launcher.write_text(f"#!/bin/sh\n{script}\n")
    launcher.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(launcher.parent / "python"))


def test_without_a_launcher_it_says_how_to_get_one(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    message = fails("train", file, "--workers", "2")
    assert "--workers needs mpirun, which is not on the PATH" in message
    assert "pip install 'nncompile[mpi]'" in message


def test_one_process_has_no_one_to_share_its_update_with(file: Path) -> None:
    message = fails("train", file, "--shard-optimizer")
    assert "--shard-optimizer is for several processes, and there is one" in message
    assert "--workers 2" in message


def test_processes_that_end_early_are_an_error(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(monkeypatch, tmp_path, "exit 3")
    with pytest.raises(ProcessError, match="one of the 2 processes ended") as caught:
        workers.run_workers(2)
    assert caught.value.exit_code == 3


def test_processes_that_do_not_begin_are_not_waited_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(monkeypatch, tmp_path, "exec sleep 30")
    monkeypatch.setattr(workers, "_STARTING", 0.1)
    with pytest.raises(ProcessError, match="did not begin within"):
        workers.run_workers(2)


def test_the_first_process_says_how_all_end(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "$NNCOMPILE_WORKERS"
    script = f'echo count "$@" > called; echo $$ > {place}/pid; echo 5 > {place}/exit'
    started(monkeypatch, tmp_path, script)
    monkeypatch.setattr(sys, "argv", ["nncompile", "train", "net.py", "--workers", "2"])
    assert workers.run_workers(2) == 5
    called = (tmp_path / "called").read_text().split()
    assert called[:3] == ["count", "-n", "2"]
    assert called[4:] == ["-m", "nncompile", "train", "net.py", "--workers", "2"]
    monkeypatch.setenv("NNCOMPILE_WORKERS", str(tmp_path))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    ended = SystemExit(130)
    workers.tell_exit_code(ended)
    assert (ended.code, (tmp_path / "exit").read_text()) == (0, "130")


def test_signals_are_for_the_first_process_once_all_are_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came before would end it alone, and the others would wait for it for ever."""
    monkeypatch.setenv("NNCOMPILE_WORKERS", str(tmp_path))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    pid = tmp_path / "pid"

    def mpi(shard_optimizer: bool) -> Any:
        assert not pid.exists()
        return SimpleNamespace(size=2, together=contextlib.nullcontext)

    monkeypatch.setattr(workers, "extra", lambda *_: SimpleNamespace(mpi=mpi))
    with workers.several(2):
        assert pid.read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, (4, 3, 4)),
        ({"PMI_SIZE": "4", "PMI_RANK": "1", "MPI_LOCALNRANKS": "2"}, (4, 1, 2)),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, None),
        ({"WORLD_SIZE": "4", "RANK": "1"}, None),
        ({"WORLD_SIZE": "4", "RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, (4, 1, 4)),
        ({}, None),
    ],
)
def test_launchers_are_noticed(
    names: dict[str, str], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith(("OMPI_", "PMI_", "MV2_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert workers.launched() == expected
    threads = None if expected is None else max(1, (os.cpu_count() or 1) // expected[2])
    assert workers.threads_of_each() == threads


def test_without_mpi4py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    with pytest.raises(ModelError, match="needs mpi4py, which is not installed") as caught:
        message_passing.mpi()
    assert "nncompile[mpi]" in str(caught.value.hint)
