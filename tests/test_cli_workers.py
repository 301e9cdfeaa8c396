"""`nncompile train` with several processes: how they are started, and what is said where they are
not. What they compute is tested in `test_parallel.py`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.cli import launching, workers
from nncompile.cli.outcome import Outcome
from nncompile.diagnostics.errors import LostProcessError, ModelError, ProcessError
from nncompile.parallel import message_passing
from nncompile.runtime import save_state
from tests.command_line import fails, succeeds

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


@pytest.mark.parametrize("option", ["--shard-optimizer", "--elastic", "--overlap 1000"])
def test_options_of_several_processes_are_refused_where_there_is_one(
    file: Path, option: str
) -> None:
    message = fails("train", file, *option.split())
    assert f"{option.split()[0]} is for several processes, and there is one" in message
    assert "--workers 2" in message


def test_processes_that_end_early_are_an_error(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(monkeypatch, tmp_path, "exit 3")
    with pytest.raises(ProcessError, match="one of the 2 processes ended") as caught:
        launching.run_workers(2)
    assert caught.value.exit_code == 3


KILLED_TWICE = """
echo count "$@" >> called
n=$(wc -l < called)
echo $$ > $NNCOMPILE_WORKERS/pid
mkdir -p there/checkpoints
printf "%s" "$PWD/there" > $NNCOMPILE_WORKERS/run
test $n = 1 && touch there/checkpoints/step-000000040.safetensors
test -e state-$n && cp state-$n there/checkpoint.safetensors
test $n -lt 3 && echo 143 > $NNCOMPILE_WORKERS/exit && kill -9 $$
echo 0 > $NNCOMPILE_WORKERS/exit
"""


def test_processes_are_started_again_where_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One fewer where no state came of it."""
    started(monkeypatch, tmp_path, KILLED_TWICE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LostProcessError, match="--elastic does so by itself"):
        launching.run_workers(3)
    (tmp_path / "called").unlink()
    assert launching.run_workers(3, elastic=True) == 0
    called = (tmp_path / "called").read_text().splitlines()
    assert [line.split()[2] for line in called] == ["3", "3", "2"]
    first, second = capsys.readouterr().err.splitlines()
    state = f"step 000000040 of {tmp_path / 'there'}"
    assert first == (
        f"a process was killed: 3 processes begin again from {state} (restart 1 of 10)"
    )
    assert second.startswith(f"a process was killed: 2 processes begin again from {state}")


def test_as_many_are_started_again_where_the_state_has_come_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the first process had the time to export, and so the same name for its state."""
    started(monkeypatch, tmp_path, KILLED_TWICE)
    monkeypatch.chdir(tmp_path)
    for number, step in enumerate((47, 61), start=1):
        save_state(tmp_path / f"state-{number}", {"step": np.array(step)})
    assert launching.run_workers(3, elastic=True) == 0
    called = (tmp_path / "called").read_text().splitlines()
    assert [line.split()[2] for line in called] == ["3", "3", "3"]
    said = capsys.readouterr().err.splitlines()
    run = tmp_path / "there"
    assert [line.partition(" again from ")[2] for line in said] == [
        f"step 000000047 of {run} (restart 1 of 10)",
        f"step 000000061 of {run} (restart 2 of 10)",
    ]


def test_one_that_is_started_again_alone_goes_on_with_the_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command line, which is not to start others."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(workers.PLACE, str(tmp_path))
    words = ["train", file, "--quiet", "--output", tmp_path / "there", "--workers", "2"]
    words += ["--elastic", "--shard-optimizer"]
    assert "trained 2 steps" in succeeds(*words, "--steps", "2")
    place = workers.Place(tmp_path)
    assert (place.told("pid"), place.told("run")) == (str(os.getpid()), str(tmp_path / "there"))
    place.forget("pid")
    assert f"{tmp_path / 'there'} goes on from step 2" in succeeds(*words, "--steps", "2")


def test_processes_are_not_started_again_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launching, "_RESTARTS", 2)
    started(monkeypatch, tmp_path, "kill -9 $$")
    with pytest.raises(LostProcessError):
        launching.run_workers(2, elastic=True)
    first, second = capsys.readouterr().err.splitlines()
    assert "one process begins again from the beginning (restart 1 of 2)" in first
    assert "restart 2 of 2" in second
    # What the user has done wrong, and what a signal for all ends, is not tried again.
    (tmp_path / "bin" / "mpirun").write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(ProcessError) as caught:
        launching.run_workers(2, elastic=True)
    assert not isinstance(caught.value, LostProcessError)
    assert capsys.readouterr().err == ""


def test_processes_that_do_not_begin_are_not_waited_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(monkeypatch, tmp_path, "exec sleep 30")
    monkeypatch.setattr(launching, "_STARTING", 0.1)
    with pytest.raises(ProcessError, match="did not begin within"):
        launching.run_workers(2)


def test_the_first_process_says_how_all_end(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "$NNCOMPILE_WORKERS"
    script = f'echo count "$@" > called; echo $$ > {place}/pid; echo 5 > {place}/exit'
    started(monkeypatch, tmp_path, script)
    monkeypatch.setattr(sys, "argv", ["nncompile", "train", "net.py", "--workers", "2"])
    assert launching.run_workers(2) == 5
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

    def mpi(**_: Any) -> Any:
        assert not pid.exists()
        return SimpleNamespace(size=2, together=contextlib.nullcontext, lost=())

    def work(_: Any, whereabouts: Any) -> Outcome:
        assert pid.read_text() == str(os.getpid())
        return Outcome()

    monkeypatch.setattr(workers, "extra", lambda *_: SimpleNamespace(mpi=mpi))
    workers.in_processes(work, 2, elastic=False)


class Left:
    """Processes of which some are lost, one after the other."""

    def __init__(self, rank: int, size: int, lost: Any = ()) -> None:
        self.rank, self.size, self.lost, self.is_first = rank, size, lost, rank == 0
        self.together = contextlib.nullcontext

    def survivors(self) -> Left:
        return Left(max(0, self.rank - 1), self.size - 1, (0,))


def test_those_that_are_left_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    found = SimpleNamespace(mpi=lambda **_: Left(1, 4))
    monkeypatch.setattr(workers, "extra", lambda *_: found)
    sizes: list[int] = []

    def work(parallel: Left, _: Any) -> Outcome:
        sizes.append(parallel.size)
        print(f"{parallel.size} work")
        if parallel.size > 2:
            raise LostProcessError("one has ended")
        return Outcome({"size": parallel.size})

    assert workers.in_processes(work, None, elastic=True).found == {"size": 2}
    assert sizes == [4, 3, 2]
    shown = capsys.readouterr()
    assert shown.out == "3 work\n2 work\n"  # of the second process, once it is the first
    first, second = shown.err.splitlines()
    assert first == "process 0 of 4 has ended; the other 3 go on"
    assert second == "process 0 of 3 has ended; the other 2 go on"
    with pytest.raises(LostProcessError):
        workers.in_processes(work, None, elastic=False)
    workers._silence.close()


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
