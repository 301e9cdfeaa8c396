"""What processes that train together ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from nncompile.ir.types import Array

Operation = Literal["sum", "max"]


class Group(Protocol):
    """Processes of the numbers 0 to `size` − 1, of which this one is `rank`. What all of them call
    in the same order they do together: each waits for the others, but no longer than the group
    allows. Raises `ProcessError` where another does not answer, `LostProcessError` where one has
    ended and what connects them outlives that."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def allreduce(self, *arrays: Array, operation: Operation = "sum") -> None:
        """Makes each array the sum, or the elementwise maximum, of those of all processes: the same
        bits in all of them."""

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """Begins to make the array the sum of those of all processes, and gives what waits until it
        is."""

    def reduce_scatter(self, array: Array, bounds: Sequence[int]) -> None:
        """Makes the part of the vector that is this process's that of the sum of all: the part of
        process i is from `bounds[i]` to `bounds[i + 1]`. What becomes of the rest is not said."""

    def gather_parts(self, array: Array, bounds: Sequence[int]) -> None:
        """Makes the vector that of which each process has its part, in all."""

    def allgather(self, array: Array) -> Array:
        """The vectors of all processes, of the same length, one after the other."""

    def broadcast(self, array: Array) -> None:
        """Makes the array that of the first process."""

    def barrier(self) -> None:
        """Waits until all have come so far."""

    def agree(self, text: str) -> Sequence[str]:
        """What each of the processes says."""

    def apart(self) -> Group:
        """The same processes on a way of their own: calls there do not meet the calls here."""

    def abort(self, code: int) -> None:
        """Ends all processes at once, with that exit code."""

    def survivors(self) -> tuple[Group, Sequence[int]]:
        """After a `LostProcessError`, which all get then: the processes that are left, in their
        order, and the numbers that the others had. Raises `ProcessError` where that cannot be
        told."""


def gathered_texts(allgather: Callable[[Array], Array], text: str) -> list[str]:
    """What each process says, by a function that gathers vectors of one length."""
    content = text.encode()
    lengths = allgather(np.array([len(content)], np.int64))
    width = int(lengths.max())
    padded = np.frombuffer(content.ljust(width, b"\0"), np.uint8)
    every = allgather(padded).tobytes()
    starts = range(0, width * len(lengths), width) if width else [0] * len(lengths)
    return [every[i : i + n].decode() for i, n in zip(starts, lengths.tolist(), strict=True)]
