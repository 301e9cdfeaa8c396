"""Processes of a training as threads of one process, which meet in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import LostProcessError, ProcessError
from nncompile.parallel.group import Operation
from nncompile.parallel.processes import Processes

SECONDS = 5.0


class Room:
    """Where threads put what the others take."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.places: list[Any] = [None] * size
        self.later: list[Room] = []
        self.lock = threading.Lock()
        self.lost: set[int] = set()
        self.left: Room | None = None

    def lose(self, rank: int) -> None:
        """One does not come any more, here and in the rooms apart."""
        self.lost.add(rank)
        self.barrier.abort()
        for room in self.later:
            room.lose(rank)


class ThreadGroup:
    """One of the threads that share a room."""

    def __init__(self, room: Room, rank: int, seconds: float = SECONDS) -> None:
        self._room, self._seconds = room, seconds
        self.rank, self.size = rank, room.size
        self._first_room = room  # of those that are apart
        self._taken = 0
        self.calls = 0  # of `allreduce`
        self.aborted: int | None = None

    def _meet(self) -> None:
        try:
            self._room.barrier.wait(self._seconds)
        except threading.BrokenBarrierError:
            if self._first_room.lost:
                raise LostProcessError("a process has ended") from None
            raise ProcessError("another process has not answered") from None

    def _all(self, value: Any) -> list[Any]:
        self._room.places[self.rank] = value
        self._meet()
        every = list(self._room.places)
        self._meet()
        return every

    def allreduce(self, *arrays: Any, operation: Operation = "sum") -> None:
        self.calls += 1
        combine = np.sum if operation == "sum" else np.max
        every = self._all([x.copy() for x in arrays])
        with np.errstate(over="ignore", invalid="ignore"):  # of which MPI says nothing
            for i, x in enumerate(arrays):
                x[...] = combine([parts[i] for parts in every], axis=0)

    def begin_sum(self, array: Any) -> Callable[[], None]:
        self.allreduce(array)
        return lambda: None

    def reduce_scatter(self, array: Any, bounds: Sequence[int]) -> None:
        first, last = bounds[self.rank : self.rank + 2]
        array[first:last] = np.sum(self._all(array.copy()), axis=0)[first:last]

    def gather_parts(self, array: Any, bounds: Sequence[int]) -> None:
        for rank, part in enumerate(self._all(array.copy())):
            first, last = bounds[rank : rank + 2]
            array[first:last] = part[first:last]

    def allgather(self, array: Any) -> Any:
        return np.concatenate(self._all(array.copy()))

    def broadcast(self, array: Any) -> None:
        array[...] = self._all(array.copy())[0]

    def barrier(self) -> None:
        self._all(None)

    def agree(self, text: str) -> Sequence[str]:
        return self._all(text)

    def apart(self) -> ThreadGroup:
        with self._room.lock:
            if len(self._room.later) == self._taken:
                self._room.later.append(Room(self.size))
            room = self._room.later[self._taken]
        self._taken += 1
        group = ThreadGroup(room, self.rank, self._seconds)
        group._first_room = self._room
        return group

    def abort(self, code: int) -> None:
        self.aborted = code

    def end(self) -> None:
        """This one is lost."""
        self._first_room.lose(self.rank)

    def survivors(self) -> tuple[ThreadGroup, list[int]]:
        room = self._first_room
        left = [rank for rank in range(self.size) if rank not in room.lost]
        with room.lock:
            room.left = room.left or Room(len(left))
        return ThreadGroup(room.left, left.index(self.rank), self._seconds), sorted(room.lost)


def in_threads(
    size: int, work: Callable[[Processes], Any], seconds: float = SECONDS, **options: Any
) -> list[Any]:
    """What `work` gives in each of so many threads, or the error that it raises."""
    room, results = Room(size), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(Processes(ThreadGroup(room, rank, seconds), **options))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * seconds)
        assert not thread.is_alive(), "a process hangs"
    return results
