"""What a training tells those who watch it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import ModelError, Row, did_you_mean
from nncompile.diagnostics.kinds import shown, unfit
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.runtime.native import Library
from nncompile.runtime.providers import Provider
from nncompile.train.data import Batch, Data, Feeder
from nncompile.train.locate import NonFinite

Kind = Literal["step", "tick", "validation", "epoch", "end"]
_METHODS = tuple(f"on_{kind}" for kind in get_args(Kind))


class Snapshot(Protocol):
    """A moment of a training, kept in memory; see `nncompile.train.progress.Snapshot`."""

    @property
    def state(self) -> Mapping[str, Array]: ...
    def noting(self, key: str, text: str) -> Snapshot: ...
    def write(self, path: str | os.PathLike[str]) -> Path: ...


class EventTrainer(Protocol):
    """What the trainer of an event offers to callbacks; see `nncompile.train.trainer.Trainer`."""

    compiled: CompiledStep
    recipe: Recipe
    model: Model
    providers: Provider | Sequence[Provider]
    threads: int | None
    seed: int

    @property
    def library(self) -> Library | None: ...
    @property
    def parallel(self) -> object | None: ...  # the processes that train together
    @property
    def step(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def state(self) -> dict[str, Array]: ...
    @property
    def params(self) -> dict[str, Array]: ...

    @property
    def declared(self) -> CompiledStep: ...
    @property
    def learning_rate(self) -> float | dict[str, float]: ...
    @learning_rate.setter
    def learning_rate(self, rate: float | Mapping[str, float | None] | None) -> None: ...

    def set_learning_rate(
        self, rate: float | Mapping[str, float | None] | None, group: str | None = None
    ) -> None: ...
    def set_params(self, params: Mapping[str, Any]) -> None: ...
    def averaged(self, name: str | None = None) -> dict[str, Array]: ...
    def stop(self) -> None: ...
    def save(self, path: str | os.PathLike[str]) -> Path: ...
    def load(self, path: str | os.PathLike[str]) -> None: ...
    def snapshot(self, copied: bool = True) -> Snapshot: ...
    def locate(self, batch: Batch, outputs: Sequence[str] = ()) -> NonFinite | None: ...
    def evaluate(
        self,
        data: Data,
        y: Any = None,
        *,
        batch_size: int | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]: ...
    def predict(
        self, inputs: Any, batch_size: int | None = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Array]: ...


@dataclass(frozen=True)
class Event:
    """The end of a step, of the steps of an epoch before the held-out data are evaluated
    ("validation"), of an epoch, or of the training; a "tick" is the end of a step, some ten times a
    second, for what shows the training while it runs.

    `epoch` counts from 1; `step` is the number of steps made since training began; `metrics` are
    those of the step, or the means over the epoch (with `val_…` from validation); `seconds` is the
    time since `fit` was called. `batch` is that of the last step. `trainer.stop()` ends the
    training after this event. At the end, `metrics` are those of the last epoch; an error or an
    interrupt is not an end.
    """

    kind: Kind
    trainer: EventTrainer
    epoch: int
    step: int
    metrics: dict[str, float]
    seconds: float
    batch: Mapping[str, Any] = field(default_factory=dict, repr=False)


Callback = Callable[[Event], Any] | Any
"""A function of an event, which gets those of steps and epochs, or an object with some of
`on_step(event)`, `on_tick(event)`, `on_validation(event)`, `on_epoch(event)` and `on_end(event)`.

What it has as `monitored`, names of metrics, is checked before the first step. One that carries
something over to a training that is resumed has `state_dict()`, which gives numbers, strings,
arrays, and lists and dicts of them, and `load_state_dict(state)`. Where `may_fail` is true, an
error of the system (a full disk, a closed pipe) does not end the training. Where `only_shows` is
true, a resumed training does without it.

On a GPU, metrics of several steps are read together, unless a callback is to be told of each step.
One whose `may_lag` is true is told of each with its number and metrics, but perhaps later: the
trainer of the event may be some steps further. One with `wants_step(step)` says of which steps it
is to be told before the next is made; of others it may be told as well.

With `during(fitting)`, which gives a context manager, it surrounds the whole training, and sees
what ends it: an error or an interrupt, too. `check_beginning(fitting)` may refuse a training with
an error, before any callback begins to surround it. One whose `told_last` is true is told after the
others, whatever the order, as one that writes the state of all of them (of several such numbers,
the larger is told later); one whose `told_first` is true before them, as one that may undo a step
with a `TrainingError`, of which the others then know nothing."""


@dataclass
class Fitting:
    """A call of `fit` that begins: the data, the held-out data, whether the examples are shuffled,
    and the epoch and the step at which it ends, whichever comes first."""

    trainer: EventTrainer
    feeder: Feeder
    held_out: Feeder | None
    shuffle: bool
    ends: tuple[float, float]


def in_order(callbacks: Callback | Iterable[Callback]) -> list[Callback]:
    """The callbacks in the order in which they are told."""
    several = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]

    def turn(callback: Callback) -> int:
        last, first = (int(getattr(callback, f"told_{end}", False)) for end in ("last", "first"))
        return last - first

    return sorted(several, key=turn)


def listeners(callbacks: Callback | Iterable[Callback], kind: Kind) -> list[Callable[[Event], Any]]:
    """The functions that listen to events of that kind. Raises `ModelError` for anything else."""
    methods: list[Callable[[Event], Any]] = []
    for callback in in_order(callbacks):
        if isinstance(callback, type):
            raise ModelError(
                f"{callback.__name__} is a class, not a callback",
                hint=f"create one: callbacks=[{callback.__name__}(...)]",
            )
        method = getattr(callback, f"on_{kind}", None)
        if method is not None:
            problem = unfit(method, None)
            if problem is not None:
                raise ModelError(
                    f"on_{kind} of {type(callback).__name__} must take the event: {problem}",
                    hint=f"def on_{kind}(self, event): ...; event.metrics, event.trainer",
                )
            methods.append(method)
        elif any(hasattr(callback, name) for name in ("during", *_METHODS)):
            continue
        elif callable(callback):
            if kind in ("step", "epoch"):
                methods.append(callback)
        else:
            raise ModelError(f"{shown(callback)} is not a callback", hint=_hint_for(callback))
    return methods


# By the methods of callbacks of Keras and Lightning, what they are called here.
_FOREIGN = {
    **dict.fromkeys(("on_epoch_end", "on_train_epoch_end", "on_validation_end"), "on_epoch"),
    **dict.fromkeys(("on_train_batch_end", "on_batch_end"), "on_step"),
    **dict.fromkeys(("on_train_end", "on_fit_end"), "on_end"),
}


def _hint_for(callback: Callback) -> str:
    for foreign, name in _FOREIGN.items():
        if hasattr(callback, foreign):
            return f"{foreign} is {name}(self, event) here; event.metrics has the figures"
    return "pass a function of an event, or an object with on_step, on_epoch or on_end"


def no_metric(name: str, rows: Sequence[Row]) -> ModelError:
    """The error for a metric that there is not; the rows begin with the names of those there
    are."""
    names = [row[0] for row in rows]
    plain = name.removeprefix("val_")
    missing = plain != name and plain in names and not any(n.startswith("val_") for n in names)
    return ModelError(
        f"there is no metric {name!r} to watch",
        rows=[("metric", *row) for row in rows],
        hint="fit(..., validation_data=data) provides it" if missing else did_you_mean(name, names),
    )
