"""What rooms above this one write into a run when its training has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import CompileError, TrainingWarning, warn
from nncompile.train.events import Event, Fitting


@dataclass(frozen=True)
class Ended:
    """A run whose training has ended: its directory, what `fit` was given, the last event, and
    what its configuration says."""

    path: Path
    fitting: Fitting
    event: Event
    config: dict[str, Any]


_WRITERS: list[Callable[[Ended], Path]] = []


def adds_to_runs(write: Callable[[Ended], Path]) -> Callable[[Ended], Path]:
    """Has `write` add a file to each run that comes to its end."""
    _WRITERS.append(write)
    return write


def write_pages(ended: Ended) -> tuple[Path, ...]:
    """Writes what is to be added, and warns of what cannot be: what was trained is there."""
    written: list[Path] = []
    for write in _WRITERS:
        try:
            written.append(write(ended))
        except CompileError as error:
            warn(f"a page of {ended.path} is not written: {error.problem}", TrainingWarning)
    return tuple(written)
