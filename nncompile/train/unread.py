"""Steps that were made, and whose metrics are still on the device."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nncompile.ir.types import Array
from nncompile.train.data import Batch

_BATCHES = 2**27  # bytes of batches that are kept until their metrics are read


class Results(Protocol):
    """The results of a step; see `nncompile.runtime.ahead.Held`."""

    def read(self) -> dict[str, Array]: ...


@dataclass
class Made:
    """A step of that number on that batch, so many seconds after the training began, of which the
    listeners of those numbers were told."""

    step: int
    batch: Batch
    results: Results
    seconds: float
    told: set[int] = field(default_factory=set)


class Unread(deque[Made]):
    """Such steps, in order; `before` is the batch before theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Batch = {}

    def is_full(self, most: int) -> bool:
        """Whether their metrics are to be read: where there are `most`, or where their batches
        take much memory."""
        size = sum(x.nbytes for x in self[-1].batch.values() if isinstance(x, np.ndarray))
        return len(self) >= most or len(self) * size > _BATCHES

    def next(self) -> None:
        """Goes on to the next one."""
        if self:
            self.before = self.popleft().batch

    def taken(self) -> list[Made]:
        """All of them, which are no more there."""
        steps = [*self]
        self.clear()
        return steps

    def batches_of(self, index: int) -> list[Any]:
        """The batch of one of them, and the one before it."""
        before = self[index - 1].batch if index else self.before
        return [before, self[index].batch] if before else [self[index].batch]
