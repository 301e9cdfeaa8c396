"""What processes that train together ask of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from nncompile.ir.types import Array

Operation = Literal["sum", "max"]


class Group(Protocol):
    """Processes of the numbers 0 to `size` − 1, of which this one is `rank`. What all of them call
    in the same order they do together: each waits for the others, but no longer than the group
    allows. Raises `ProcessError` where another does not answer."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def allreduce(self, *arrays: Array, operation: Operation = "sum") -> None:
        """Makes each array the sum, or the elementwise maximum, of those of all processes: the same
        bits in all of them."""

    def reduce_scatter(self, array: Array) -> Array:
        """The part of the sum of those vectors that is this process's: the first of `size` equal
        parts for the first. The length is a multiple of `size`."""

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
