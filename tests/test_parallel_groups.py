"""What connects processes does what its protocol says: here one process, or threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError, ProcessError
from nncompile.parallel.group import Group, gathered_texts
from nncompile.parallel.processes import Processes
from nncompile.parallel.torch_distributed import TorchGroup, torch_distributed
from nncompile.parallel.waiting import wait_until
from nncompile.train.interrupts import Interrupts
from tests.thread_groups import in_threads


def check(group: Group) -> None:
    """Each call, with arrays that tell the processes apart."""
    rank, size = group.rank, group.size
    total = sum(range(size))
    short, long = np.array(float(rank)), np.full(200, rank, np.float32)
    group.allreduce(short, long)
    assert short == total
    np.testing.assert_array_equal(long, np.full(200, total, np.float32))
    greatest = np.array([rank, -rank])
    group.allreduce(greatest, operation="max")
    assert greatest.tolist() == [size - 1, 0]
    begun = np.full(100, rank, np.float32)
    wait = group.begin_sum(begun)
    wait()
    np.testing.assert_array_equal(begun, np.full(100, total, np.float32))
    bounds = [*[0, 0, *range(3, 3 * size, 2)][:size], 3 * size]  # the first has none
    first, last = bounds[rank : rank + 2]
    vector = np.arange(3.0 * size)
    group.reduce_scatter(vector, bounds)
    np.testing.assert_array_equal(vector[first:last], size * np.arange(first, last))
    parts = np.full(3 * size, -1.0)
    parts[first:last] = range(first, last)
    group.gather_parts(parts, bounds)
    np.testing.assert_array_equal(parts, np.arange(3.0 * size))
    every = group.allgather(np.full((2, 3), rank, np.int64))
    np.testing.assert_array_equal(every[:, 0], np.repeat(np.arange(size), 2))
    first = np.full(5, rank + 7, np.uint8)
    group.broadcast(first)
    assert first.tolist() == [7] * 5
    group.barrier()
    said = [f"{'é' * i} {i}" if i != 1 else "" for i in range(size)]
    assert list(group.agree(said[rank])) == said
    other = group.apart()
    assert (other.rank, other.size) == (rank, size)
    assert list(other.agree("")) == [""] * size


def test_threads_are_a_group() -> None:
    for error in in_threads(3, lambda processes: check(processes.group)):
        assert error is None, error


def test_texts_of_any_lengths_are_gathered() -> None:
    def work(processes: Processes) -> list[str]:
        return gathered_texts(processes.group.allgather, ["", "a", "bé"][processes.rank])

    assert in_threads(3, work) == [["", "a", "bé"]] * 3


@pytest.mark.slow
def test_gloo_is_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed: Any = pytest.importorskip("torch.distributed")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ModelError, match="processes that torchrun started, this one was not"):
        torch_distributed()
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        check(TorchGroup(None, 20.0))
        assert torch_distributed().size == 1
    finally:
        distributed.destroy_process_group()


def test_waiting_ends() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), 0, 5.0)
    with pytest.raises(ProcessError, match="has not answered process 3"):
        wait_until(lambda: False, 3, 0.01)
    with Interrupts() as interrupts:
        interrupts.received = 15
        with pytest.raises(SystemExit) as ended:
            wait_until(lambda: False, 0, 5.0)
        assert ended.value.code == 143
        interrupts.received = None
