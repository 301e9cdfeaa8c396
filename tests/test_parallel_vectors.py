"""Long vectors of several processes: in shared memory and through their group."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from nncompile.parallel.processes import Processes
from nncompile.parallel.vectors import LINE, GroupVector, SharedVector, vector_of
from tests.parallel_checks import checked
from tests.thread_groups import in_threads

COUNT, STOPS, SIZE = 1000, (300, 300, 1000), 3
BOUNDS = (0, 0, 700, 1000)  # the first process has nothing of it
FACTORS = ((0.5, 1.0, 0.25), (0.5, 1.0, 0.0), (0.5, 1.0, 2.0))  # of each process


def contents(rank: int) -> Any:
    values = np.random.default_rng(rank).normal(size=COUNT).astype(np.float32)
    if rank == 1:
        values[300:] = np.nan  # of no weight
    return values


def expected() -> Any:
    parts = [
        np.repeat(FACTORS[rank], np.diff([0, *STOPS])) * np.nan_to_num(contents(rank))
        for rank in range(SIZE)
    ]
    return np.sum(parts, axis=0)


@pytest.mark.parametrize("kind", ["shared", "another machine", "group"])
def test_vectors_are_added_up(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "group":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("no memory without a name on this system")
    opened = os.open

    def elsewhere(path: Any, *args: Any) -> int:
        """What another machine has by that name."""
        return opened(os.devnull if str(path).startswith("/proc/") else path, *args)

    if kind == "another machine":
        monkeypatch.setattr(os, "open", elsewhere)

    def work(processes: Processes) -> list[Any]:
        rank = processes.rank
        vector = vector_of(processes.group, COUNT, np.float32, STOPS)
        assert isinstance(vector, GroupVector if kind == "group" else SharedVector)
        assert vector.array.ctypes.data % LINE == 0
        assert not vector.array.any()
        found = []
        for _ in range(2):
            vector.array[:] = contents(rank)
            vector.sum(FACTORS[rank])
            found.append(vector.array.copy())
        vector.array[:] = contents(rank)
        vector.scatter(FACTORS[rank], BOUNDS)
        first, last = BOUNDS[rank : rank + 2]
        vector.array[:first] = vector.array[last:] = np.inf
        vector.gather(BOUNDS)
        return [*found, vector.array.copy()]

    results = checked(in_threads(SIZE, work))
    np.testing.assert_allclose(results[0][0], expected(), 1e-5, 1e-6)
    for found in results:
        for vector in found:
            np.testing.assert_array_equal(vector[:300], results[0][0][:300])
            np.testing.assert_allclose(vector, results[0][0], 1e-6, 1e-6)
        np.testing.assert_array_equal(found[0], results[0][0])
        np.testing.assert_array_equal(found[0], found[1])
