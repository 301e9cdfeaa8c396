"""A training of several processes that is refused: nothing of it is written."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile import compile_step
from nncompile.diagnostics.errors import ModelError, TrainingError
from nncompile.parallel import agreement
from nncompile.parallel.processes import Processes
from nncompile.train import CSVLog, RunDirectory, Trainer
from tests.parallel_checks import data, made, plain, recipe
from tests.thread_groups import in_threads

MESSAGES = {
    "data": "the data differ",
    "state": "out.bias  process 0 ≠ process 1",
    "generator": "the batches differ",
    "versions": "the versions of packages differ",
}


class Version:
    """Another one for each who asks."""

    def __init__(self) -> None:
        self._numbers = count()

    def __format__(self, _: str) -> str:
        return f"1.{next(self._numbers)}.0"


@pytest.mark.parametrize("differs", MESSAGES)
def test_a_refused_start_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    """Neither an empty run, nor over an earlier one."""
    compiled = made(compile_step(recipe(plain)))
    earlier = tmp_path / "runs/earlier"
    alone = Trainer(compiled, threads=1)
    alone.fit(data(), steps=1, verbose=0, callbacks=RunDirectory(earlier, exports=False))
    before = contents(tmp_path)
    if differs == "versions":
        monkeypatch.setattr(agreement, "RUNTIME_VERSION", Version())

    def work(processes: Processes, **options: Any) -> None:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        if differs == "state":
            trainer.set_params({"out.bias": np.full(3, float(processes.rank), np.float32)})
        given: Any = data(processes.rank if differs == "data" else 0)
        if differs == "generator" and processes.rank == 1:
            given = (batch for batch in [given])
        run = RunDirectory(root=tmp_path / "runs", exports=False, **options)
        log = [CSVLog(tmp_path / "log.csv")] if processes.is_first else []
        trainer.fit(given, epochs=1, verbose=0, callbacks=[run, *log])

    replacing: dict[str, Any] = {"path": earlier, "overwrite": True}
    for options in ({}, replacing):
        for error in in_threads(2, partial(work, **options)):
            assert isinstance(error, TrainingError if differs == "state" else ModelError), error
            assert MESSAGES[differs] in str(error)
        assert contents(tmp_path) == before


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes() if file.is_file() else b""
        for file in directory.rglob("*")
    }
