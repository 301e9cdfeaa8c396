"""What those who reduce ask of the processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from nncompile.ir.types import Array
from nncompile.parallel.group import Group


class Meeting(Protocol):
    """Processes that meet before they reduce; see `nncompile.parallel.processes.Processes`."""

    @property
    def group(self) -> Group: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def overlap(self) -> int | None: ...
    def meet(self) -> None: ...


class Telling(Meeting, Protocol):
    """Processes that tell each other what they have."""

    def said(self, value: Any) -> list[Any]: ...


class Shares(Protocol):
    """A runner whose state lies in several processes; see
    `nncompile.parallel.sharded.ShardedStepRunner`."""

    def collected(self, names: Iterable[str], step: int) -> dict[str, Array]: ...
    def hold(self) -> None: ...
    def settle(self) -> None: ...


class Collecting(Meeting, Protocol):
    """Processes that give each other parts of a state when they meet."""

    def enter(self, runner: Shares, after: object) -> None: ...
    def use(self, runner: Shares) -> None: ...
    def collect(self, runner: Shares, names: Sequence[str], step: int) -> dict[str, Array]: ...
