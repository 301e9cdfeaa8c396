"""What those who reduce ask of the processes."""

from __future__ import annotations

from typing import Protocol

from nncompile.parallel.group import Group


class Meeting(Protocol):
    """Processes that meet before they reduce; see `nncompile.parallel.processes.Processes`."""

    @property
    def group(self) -> Group: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def meet(self) -> None: ...
