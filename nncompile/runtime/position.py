"""Where a runner of steps is."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Position(NamedTuple):
    """Where a runner is, in one value: it is replaced in one assignment, between whose parts no
    interrupt can come."""

    steps: int = 0
    current: int = 0  # the set of buffers that holds the state
    read: int = -1  # the set that the last step read
    can_undo: bool = False  # whether that set still holds what the step read
    binding: Any = None  # the binding that holds the results of the last step
    equal: bool = True  # whether what has no next value is the same in all sets
    kept: int = -1  # the set that no step writes to
    since: int = 0  # steps made since it held the state
    due: int | None = None  # the number of the state that an update leads to, until it is noted
    put: Mapping[str, Any] = MappingProxyType({})  # what takes the place of states after that
