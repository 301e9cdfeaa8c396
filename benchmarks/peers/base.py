"""What a side of a row is: the same steps from the same initial weights, of one framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from benchmarks.workloads import Array, Batch, Workload

State = Mapping[str, Array]


class Lacking(Exception):
    """A side that has no such row, and why."""


NO_OPTIMIZER, NO_IMAGES = "its optimizer has no part in inference", "it has no images"
NO_KERNELS = "files of inference call no kernels"
OUTSIDE = (NO_OPTIMIZER, NO_IMAGES, NO_KERNELS)
"""Reasons of sides that are not meant for such a row: nobody looks for them there."""


class Absent(Exception):
    """A peer that is not here at all, and why."""


class Side(Protocol):
    """Steps, or inference, of one network that has its own copy of the state."""

    def call(self, batch: Batch) -> Callable[[], Any]:
        """A call that does one step on that batch, which is made ready before: of a step it gives
        the loss, or what `read` finds it in, of inference the result."""

    def read(self, result: Any) -> Array:
        """The numbers of what a call gave."""

    def wait(self) -> None:
        """Returns when all that was called is done."""


class Peer(Protocol):
    """A framework, in one of the ways it is used."""

    name: str

    def start(self, threads: int) -> None:
        """Before any of its sides. Raises `Absent` where it is not installed."""

    def training(self, workload: Workload, state: State, threads: int) -> Side:
        """Raises `Lacking` where it has no such step. Ours draws its own state where none is
        given."""

    def inference(self, workload: Workload, state: State, threads: int) -> Side:
        """Raises `Lacking` where it has no such network."""

    def finish(self) -> None:
        """Forgets what it keeps of its sides."""


class Plain:
    """What most sides do."""

    def read(self, result: Any) -> Array:
        return np.asarray(result)

    def wait(self) -> None:
        return


def installed(package: str, *others: str) -> list[ModuleType]:
    """The package and others beside it, or modules of ours that need it. Raises `Absent`."""
    if find_spec(package) is None:
        raise Absent(f"{package} is not installed")
    return [import_module(name) for name in (package, *others)]
