"""What is served: a model, or a training step with its state."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from nncompile.diagnostics.errors import BackendError, FeedError, did_you_mean
from nncompile.ir.types import Array, is_real
from nncompile.program.rows import METADATA_KEY as ROWS
from nncompile.runtime import METADATA_KEY, Port, Session, StepRunner, load_state, save_state
from nncompile.runtime.feeds import check_feeds
from nncompile.runtime.stopping import Stop
from nncompile.runtime.tensor_files import state_path

SAVED_EVERY = 60.0
"""Seconds after which the state of a step that goes on is saved again."""

_State = Path | None


class Served(Protocol):
    """A model by its name: what it takes, what it gives, and whether a request may be computed with
    others, along `rows`, the size of the first axis of all that it takes and gives."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    rows: str | None

    def run(self, feeds: Mapping[str, Array], stop: Stop) -> dict[str, Array]: ...
    def close(self) -> None: ...


class ServedModel:
    """An inference model. Its requests are computed together where the file says that each row of
    the outputs follows from that row of the inputs alone, or with `rows`, if the user says so."""

    def __init__(self, name: str, session: Session, rows: bool = False) -> None:
        self.name, self._session = name, session
        self.inputs, self.outputs = session.inputs, session.outputs
        firsts = {p.shape[0] if p.shape else None for p in (*self.inputs, *self.outputs)}
        (first,) = firsts if len(firsts) == 1 else (None,)
        is_apart = rows or session.metadata.get(ROWS) == first
        self.rows = first if isinstance(first, str) and is_apart else None

    def run(self, feeds: Mapping[str, Array], stop: Stop) -> dict[str, Array]:
        """All outputs. Raises what `Session.run` does."""
        return self._session.run(feeds, stop=stop)

    def close(self) -> None:
        """There is nothing to be kept."""


class ServedStep:
    """A training step that keeps its state: a request is a batch, which it is trained on, and its
    answer are the metrics. The state is written to `save` at the end, and each minute before. A
    step that leaves NaN or infinite numbers in it is taken back, or nobody could train it again."""

    rows: str | None = None

    def __init__(self, name: str, file: Path, state: _State, save: _State, runner: StepRunner):
        self.name, self._runner, self._save = name, runner, save
        self._about = load_state(state or state_path(file))[1]
        kept = {*runner.state_map, *runner.state()}
        self.inputs = tuple(p for p in runner.session.inputs if p.name not in kept)
        following = {*runner.state_map.values()}
        self.outputs = tuple(p for p in runner.session.outputs if p.name not in following)
        self._bounded = [n for n, x in runner.views().items() if is_real(x.dtype) and _is_finite(x)]
        self._saved = time.monotonic()

    def run(self, feeds: Mapping[str, Array], stop: Stop) -> dict[str, Array]:
        """The metrics of a step on these data. Raises what `StepRunner.step` does, and `FeedError`
        where the state would not be finite. A step that is stopped is not made."""
        self._runner.stop = stop
        self._runner.step(check_feeds(self.inputs, feeds))
        if not stop.done():
            self._runner.undo()
            raise BackendError(f"{self.name} was stopped")
        views = self._runner.views()
        lost = next((name for name in self._bounded if not _is_finite(views[name])), None)
        if lost is not None:
            metrics = [(name, str(x)) for name, x in self._runner.metrics().items()]
            self._runner.undo()
            raise FeedError(
                f"the step on these data makes {lost} NaN or infinite, and is not made",
                rows=metrics,
                hint="are the data finite? otherwise train with a lower learning rate, or with "
                "clip_norm",
            )
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.close()
        return self._runner.metrics()

    def close(self) -> None:
        """Writes the state."""
        if self._save is not None:
            save_state(self._save, self._runner.state(), self._about)
        self._saved = time.monotonic()


def _is_finite(array: Array) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.add.reduce(array, axis=None, dtype=np.float64)))


def opened(
    file: Path,
    name: str,
    provider: str = "cpu",
    threads: int | None = None,
    rows: bool = False,
    state: _State = None,
    save: _State = None,
) -> Served:
    """The model or step in a file; a model has no state. Raises what `Session` and `StepRunner`
    do."""
    session = Session(file, provider, threads)
    if METADATA_KEY not in session.metadata:
        return ServedModel(name, session, rows)
    del session
    runner = StepRunner(str(file), state, provider, threads, metrics_on_host=True)
    return ServedStep(name, file, state, save, runner)


def chosen(served: Served, names: Sequence[str] | None) -> list[str]:
    """The outputs that a request wants. Raises `FeedError` for one that there is none of."""
    outputs = [port.name for port in served.outputs]
    for name in names or ():
        if name not in outputs:
            raise FeedError(
                f"{served.name} has no output {name!r}", hint=did_you_mean(name, outputs)
            )
    return list(names) if names else outputs
