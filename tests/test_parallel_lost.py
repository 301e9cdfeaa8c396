"""What is left of the processes of a training goes on where one of them has ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nncompile import compile_step
from nncompile.diagnostics.errors import LostProcessError, ModelError
from nncompile.parallel.message_passing import mpi
from nncompile.parallel.processes import Processes
from nncompile.train import RunDirectory, Trainer
from tests.mpi_jobs import ROOT, job, needs_ulfm
from tests.parallel_checks import assert_same, data, fitted, recipe
from tests.thread_groups import in_threads


class Killed(BaseException):
    """The end of a thread that stands for a process."""


@pytest.mark.parametrize(
    ("victim", "last", "accumulate", "first"),
    [(0, 9, 1, (9, 10)), (1, 9, 1, (9, 10)), (1, 7, 4, (5,))],
)
def test_the_others_go_on(
    victim: int, last: int, accumulate: int, first: tuple[int, ...], tmp_path: Path
) -> None:
    """From the last step, or where the first ended, or nobody has the whole state, from the last
    state that was written: step 7 is the end of an epoch, within a window of four batches."""
    compiled = compile_step(recipe(accumulate=accumulate))
    compiled.content("gradient")
    compiled.content("following" if accumulate == 1 else "following_of_sums")
    begun: list[int] = []

    def attempt(processes: Processes) -> Trainer:
        def kill(event: Any) -> None:
            if event.step == last and processes.size == 3 and processes.rank == victim:
                processes.group.end()  # type: ignore[attr-defined]  # of threads
                raise Killed
            if processes.size == 2:
                begun.append(event.step)

        trainer = Trainer(compiled, threads=1, parallel=processes)
        run = RunDirectory(tmp_path, resume=True, exports=False, checkpoint_every="4steps")
        trainer.fit(data(), epochs=2, verbose=0, callbacks=[run, kill])
        return trainer

    def work(processes: Processes) -> Trainer:
        while True:
            try:
                return attempt(processes)
            except LostProcessError:
                processes = processes.survivors()
                assert list(processes.lost) == [victim]

    results = in_threads(3, work)
    assert isinstance(results[victim], Killed)
    one = fitted(Trainer(compiled, threads=1))
    for trainer in results[:victim] + results[victim + 1 :]:
        if isinstance(trainer, BaseException):
            raise trainer
        assert (trainer.step, trainer.epoch) == (14, 2)
        assert_same(trainer.state, one.state)
    # Those are told again of step 9 who were not all told.
    assert min(begun) in first


def test_mpi_has_to_outlive_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMPI_MCA_mpi_ft_enable", raising=False)
    pytest.importorskip("mpi4py.MPI", exc_type=ImportError)
    with pytest.raises(ModelError, match="was not started to outlive") as caught:
        mpi(elastic=True)
    assert "mpirun --with-ft ulfm" in str(caught.value.hint)


SCRIPT = """
import os, signal
import numpy as np
from mpi4py import MPI
from nncompile.diagnostics.errors import LostProcessError
from nncompile.parallel import mpi

processes = mpi(elastic=True)
if processes.rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    # On the way that the other does not come to.
    processes.group.allreduce(np.ones(3))
except LostProcessError:
    processes = processes.survivors()
total = np.ones(3)
processes.group.allreduce(total)
print(processes, processes.lost, total.tolist(), processes.said("here"))
"""


@needs_ulfm
def test_an_mpi_that_outlives_a_process_says_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    said = job(2, ["script.py"], tmp_path, options=["--with-ft", "ulfm"])
    assert said.strip() == "<process 0 of 1> (0,) [1.0, 1.0, 1.0] ['here']"


ENDING = """
import atexit
atexit.register(lambda: end_in_time(lambda: time.sleep(60), 0.01))
print("made", flush=True)
{}
"""


@pytest.mark.parametrize(("last", "code"), [("ends_with(3)", 3), ("1 / 0", 1), ("", 0)])
def test_what_waits_without_end_does_not_keep_a_process(last: str, code: int) -> None:
    module = (ROOT / "nncompile/runtime/ending.py").read_text(encoding="utf-8")
    command = [sys.executable, "-c", module + ENDING.format(last)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (code, "made\n")
