"""Processes that torch connects, through its backend gloo."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CompileError, ModelError, ProcessError
from nncompile.diagnostics.extras import extra
from nncompile.ir.types import Array
from nncompile.parallel.group import Operation, gathered_texts
from nncompile.parallel.processes import Processes
from nncompile.parallel.waiting import TIMEOUT, wait_until

_LATER = 5.0  # seconds, after torch itself has to end its waiting


class TorchGroup:
    """The processes of a group of `torch.distributed`, by default all of them."""

    def __init__(self, group: Any, timeout: float) -> None:
        self._torch, self._distributed = _modules()
        self._group, self._timeout = group, timeout
        self.rank = int(self._distributed.get_rank(group))
        self.size = int(self._distributed.get_world_size(group))

    def allreduce(self, *arrays: Array, operation: Operation = "sum") -> None:
        """All at once."""
        op = getattr(self._distributed.ReduceOp, operation.upper())
        start = partial(self._distributed.all_reduce, op=op, group=self._group, async_op=True)
        self._wait(*(start(self._tensor(x)) for x in arrays if x.size))

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """In a thread of gloo's."""
        tensor = self._tensor(array)
        work = self._distributed.all_reduce(tensor, group=self._group, async_op=True)
        return lambda: self._wait(work)

    def reduce_scatter(self, array: Array, bounds: Sequence[int]) -> None:
        """The whole sum, as gloo has no parts of it."""
        self.allreduce(array)

    def gather_parts(self, array: Array, bounds: Sequence[int]) -> None:
        """Each sends its part to the others."""
        send = partial(self._distributed.broadcast, group=self._group, async_op=True)
        parts = [self._tensor(array[a:b]) for a, b in pairwise(bounds)]
        self._wait(*(send(part, rank) for rank, part in enumerate(parts) if len(part)))

    def allgather(self, array: Array) -> Array:
        """Along the first axis."""
        parts = [np.empty_like(array, order="C") for _ in range(self.size)]
        if array.size:
            tensors = [self._tensor(part) for part in parts]
            mine = self._tensor(np.array(array, order="C"))
            work = self._distributed.all_gather(tensors, mine, group=self._group, async_op=True)
            self._wait(work)
        return np.concatenate(parts)

    def broadcast(self, array: Array) -> None:
        """In place."""
        if array.size:
            start = self._distributed.broadcast
            self._wait(start(self._tensor(array), 0, group=self._group, async_op=True))

    def barrier(self) -> None:
        """A reduction of one number."""
        self.allreduce(np.zeros(1, np.int64))

    def agree(self, text: str) -> Sequence[str]:
        """Gathers lengths, then texts of the greatest of them."""
        return gathered_texts(self.allgather, text)

    def apart(self) -> TorchGroup:
        """A new group of the same processes."""
        limit = timedelta(seconds=self._timeout)
        return TorchGroup(self._distributed.new_group(backend="gloo", timeout=limit), self._timeout)

    def abort(self, code: int) -> None:
        """Ends this process, which its launcher ends the others after."""
        os._exit(code)

    def survivors(self) -> tuple[TorchGroup, Sequence[int]]:
        """None: gloo ends with the first process that does."""
        raise ProcessError("gloo does not outlive a process", hint="torchrun --max-restarts 3")

    def _tensor(self, array: Array) -> Any:
        return self._torch.from_numpy(array)

    def _wait(self, *works: Any) -> None:
        wait_until(lambda: all(work.is_completed() for work in works), self.rank, self._timeout)
        for work in works:
            work.wait()  # which raises what went wrong


def torch_distributed(
    timeout: float = TIMEOUT,
    shard_optimizer: bool = False,
    every: int | None = None,
    overlap: int | None = None,
) -> Processes:
    """The processes that `torchrun --nproc-per-node N SCRIPT.py` started, for `Trainer(recipe,
    parallel=torch_distributed())`, where there is no MPI; see `mpi`. It joins those that are
    connected already, if this one is. Raises `ModelError` where torch is not installed, or this
    process was not started so."""
    _, distributed = _modules()
    if not distributed.is_initialized():
        if "WORLD_SIZE" not in os.environ:
            raise ModelError(
                "torch_distributed() connects processes that torchrun started, this one was not",
                hint="torchrun --nproc-per-node 2 SCRIPT.py",
            )
        _connect(distributed, timeout)
    options: dict[str, Any] = {"shard_optimizer": shard_optimizer, "every": every}
    return Processes(TorchGroup(None, timeout).apart(), overlap=overlap, **options)


def _connect(distributed: Any, timeout: float) -> None:
    """Connects the processes. Where another program has the port and says nothing, torch waits for
    it without end: a thread does."""
    said: list[str] = []

    def connect() -> None:
        try:
            distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout))
        except (RuntimeError, ValueError) as error:
            said.append(str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    rank = os.environ.get("RANK", "0")
    try:
        wait_until(lambda: not thread.is_alive(), int(rank), timeout + _LATER)
    except ProcessError:
        said.append(f"no answer in {timeout:.0f} s")
    if said:
        raise _unconnected(rank, said[0])


def _unconnected(rank: str, text: str) -> CompileError:
    """The error of a process that is not connected, of what torch says."""
    host, port = (os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if "EADDRINUSE" in text:
        return ModelError(
            f"the processes cannot meet at port {port} of {host}: it is in use",
            hint=f"another one, MASTER_PORT={_next(port)} in all of them; torchrun --standalone "
            "takes a free one",
        )
    return ProcessError(
        f"process {rank} does not reach the others at {host}:{port}: "
        f"{text.strip().partition(chr(10))[0]}",
        hint="MASTER_ADDR and MASTER_PORT are those of process 0, in all of them, and no other "
        "program is at that port",
    )


def _next(port: str) -> int:
    return int(port) + 1 if port.isdigit() else 29501


def _modules() -> tuple[Any, Any]:
    hint = "pip install 'nncompile[torch]'"
    user = "torch_distributed()"
    torch = extra("torch", "torch", user, hint, ModelError)
    return torch, extra("torch.distributed", "torch", user, hint, ModelError)
