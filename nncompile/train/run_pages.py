"""What rooms above this one write into a run when its training has ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nncompile.diagnostics.errors import CompileError, TrainingWarning, warn
from nncompile.program.page_makers import PAGE_MAKERS
from nncompile.train.events import Event, EventTrainer, Fitting


@dataclass(frozen=True)
class Ended:
    """A run whose training has ended: its directory, the trainer, what `fit` was given, the seconds
    that it took, and what its configuration says. `early` says why, where the training did not
    reach its end. Where it `measures`, more may be computed for the page."""

    path: Path
    trainer: EventTrainer
    fitting: Fitting
    seconds: float
    config: dict[str, Any]
    early: str = ""
    measures: bool = False


class Page(Protocol):
    """A file that is added to a run; it sees the epochs before."""

    def on_epoch(self, event: Event) -> None: ...

    def write(self, ended: Ended) -> Path: ...


class Pages:
    """All that is added to one run."""

    def __init__(self) -> None:
        self._pages: list[Page] = [make() for make in PAGE_MAKERS]

    def on_epoch(self, event: Event) -> None:
        for page in self._pages:
            page.on_epoch(event)

    def write(self, ended: Ended) -> tuple[Path, ...]:
        """Writes what is to be added, and warns of what cannot be: what was trained is there, and
        worth more."""
        written: list[Path] = []
        for page in self._pages:
            try:
                written.append(page.write(ended))
            except Exception as error:
                named = f"{type(error).__name__}: {error}"
                problem = error.problem if isinstance(error, CompileError) else named
                warn(f"a page of {ended.path} is not written: {problem}", TrainingWarning)
        return tuple(written)


def cause_of(error: BaseException) -> str:
    """What a page says of the error or the interrupt that ended a training."""
    if isinstance(error, CompileError):
        return error.problem
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "it was interrupted"
    return f"{type(error).__name__}: {error}"
