"""What the command line prints: timings, node counts, figures and progress."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nncompile.ir.graph import Graph
from nncompile.ir.types import Array, is_real
from nncompile.program.model import Model
from nncompile.train import Event, Trainer
from nncompile.train.figures import figures

try:
    import resource
except ModuleNotFoundError:  # Windows has no such module, and peak_memory says so
    resource = None  # type: ignore[assignment]  # the module is not there

LINES = 20  # of epochs that are printed, unless --verbose shows all
_REFRESH = 0.05  # seconds between two looks at the progress


class Timing:
    """The seconds that a block takes."""

    seconds = 0.0

    def __enter__(self) -> Timing:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


class Counts:
    """The number of nodes before and after each pass, and the seconds since the one before; given
    as `observe` to a compilation."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int, float]] = []
        self._last = time.perf_counter()

    def __call__(self, name: str, before: Graph, after: Graph) -> None:
        now = time.perf_counter()
        self.rows.append((name, len(before.nodes), len(after.nodes), now - self._last))
        self._last = now


class Epochs:
    """Watches a training: a progress bar on a terminal, and lines of figures, `LINES` of them or,
    with `every`, one for each epoch."""

    def __init__(self, console: Console, steps: int, epochs: int, every: bool = False) -> None:
        self._between = 1 if every else max(1, epochs // LINES)
        self._epochs, self._steps = epochs, steps
        self._shown = time.perf_counter()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("steps", total=steps)
        self._completed = 0

    def __enter__(self) -> Epochs:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, _: Event) -> None:
        self._completed += 1
        if time.perf_counter() - self._shown > _REFRESH:
            self._shown = time.perf_counter()
            self._progress.update(self._task, completed=self._completed)

    def on_epoch(self, event: Event) -> None:
        if event.epoch % self._between and event.epoch != 1 and self._completed < self._steps:
            return
        digits = len(str(self._epochs))
        self._progress.console.print(
            f"epoch {event.epoch:>{digits}}  step {event.step:>{len(str(self._steps))}}  "
            f"{figures(event.metrics)}  {event.seconds:.1f} s",
        )


def examples(model: Model, data: Mapping[str, Array]) -> int:
    """How many examples the data hold."""
    axis = model.examples
    sizes = [
        len(data[name])
        for name, leaf in model.inputs.items()
        if name in data and leaf.rank and leaf.shape[0] == axis
    ]
    return max(sizes, default=1)


def planned(
    trainer: Trainer, batches: int, epochs: int | None, steps: int | None
) -> tuple[int, int]:
    """The epochs and steps that a training will take at most, for its progress."""
    recipe = trainer.recipe
    if epochs is None and steps is None:
        epochs = max(0, recipe.epochs - trainer.epoch) if recipe.epochs else None
        steps = max(0, recipe.steps - trainer.step) if recipe.steps else None
        if epochs is None and steps is None:
            epochs = 1
    ends = [n for n in (steps, epochs and epochs * batches) if n is not None]
    return -(-min(ends) // max(batches, 1)), min(ends)


def peak_memory() -> str | None:
    """The most memory that this process has used so far; None where the system does not say."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / (2**20 if sys.platform == 'darwin' else 2**10):,.0f} MB"


def summary(x: Array) -> str:
    """A few numbers that describe an array."""
    if x.size <= 8:
        return np.array2string(x, precision=4, separator=", ", max_line_width=10**6)
    if not is_real(x.dtype):
        return f"{', '.join(map(str, x.ravel()[:8].tolist()))}, ..."
    finite = x[np.isfinite(x)]
    lost = f"{x.size - finite.size:,} of {x.size:,} not finite" if finite.size < x.size else ""
    if not finite.size:
        return lost
    text = f"min {finite.min():.4g}  mean {finite.mean():.4g}  max {finite.max():.4g}"
    return f"{text}  {lost}".rstrip()


def first_sentence(function: Callable[..., Any]) -> str:
    """What the docstring says first, without the full stop."""
    return " ".join((inspect.getdoc(function) or "").split()).partition(". ")[0].rstrip(".")
