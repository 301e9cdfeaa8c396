"""What a training tells those who watch it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.runtime.providers import Provider
from nncompile.train.data import Batch, Data, Feeder
from nncompile.train.locate import NonFinite

Kind = Literal["step", "tick", "validation", "epoch", "end"]
_TICK = 0.1  # seconds, about, from one tick to the next
_MOST = 256  # steps between two looks at the clock


class Snapshot(Protocol):
    """A moment of a training, kept in memory; see `nncompile.train.progress.Snapshot`."""

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
    def step(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def state(self) -> dict[str, Array]: ...
    @property
    def params(self) -> dict[str, Array]: ...

    def set_params(self, params: Mapping[str, Any]) -> None: ...
    def averaged(self, name: str | None = None) -> dict[str, Array]: ...
    def stop(self) -> None: ...
    def save(self, path: str | os.PathLike[str]) -> Path: ...
    def load(self, path: str | os.PathLike[str]) -> None: ...
    def snapshot(self) -> Snapshot: ...
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

With `during(fitting)`, which gives a context manager, it surrounds the whole training, and sees
what ends it: an error or an interrupt, too. One whose `told_last` is true is told after the others,
whatever the order, as one that writes the state of all of them."""


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
    return sorted(several, key=lambda callback: bool(getattr(callback, "told_last", False)))


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
            methods.append(method)
        elif any(hasattr(callback, f"on_{other_kind}") for other_kind in get_args(Kind)):
            continue
        elif callable(callback):
            if kind in ("step", "epoch"):
                methods.append(callback)
        else:
            raise ModelError(
                f"{callback!r} is not a callback",
                hint="pass a function of an event, or an object with on_step, on_epoch or on_end",
            )
    return methods


@dataclass(frozen=True)
class Watchers:
    """The listeners of a training that began at the time `start`, by the kind of event."""

    trainer: EventTrainer
    by_kind: Mapping[Kind, Sequence[Callable[[Event], Any]]]
    start: float
    surrounding: Sequence[Callable[[Fitting], AbstractContextManager[Any]]] = ()

    @classmethod
    def of(cls, trainer: EventTrainer, callbacks: Callback | Iterable[Callback]) -> Watchers:
        """The callbacks of a training that begins now. Raises `ModelError` for anything else."""
        by_kind = {kind: listeners(callbacks, kind) for kind in get_args(Kind)}
        several = in_order(callbacks)
        surrounding = [x.during for x in reversed(several) if hasattr(x, "during")]
        return cls(trainer, by_kind, time.perf_counter(), surrounding)

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Surrounds the training: what is told last is the first to begin, and the last to end."""
        with ExitStack() as stack:
            for begin in self.surrounding:
                stack.enter_context(begin(fitting))
            yield

    def tell(self, kind: Kind, epoch: int, metrics: dict[str, float], batch: Batch) -> None:
        """Passes an event to each listener. The end of an epoch is told to those who are told last
        also where another one fails: the epoch is complete, and their states know of it."""
        remaining = list(self.by_kind[kind])
        try:
            while remaining:
                seconds = time.perf_counter() - self.start
                step = self.trainer.step
                event = Event(kind, self.trainer, epoch, step, metrics, seconds, batch)
                remaining.pop(0)(event)
        except BaseException:
            if kind == "epoch":
                for listener in remaining:
                    if getattr(getattr(listener, "__self__", None), "told_last", False):
                        listener(event)
            raise


class Ticks:
    """Tells the listeners of "tick" some ten times a second. A step costs a subtraction: how many
    steps there are to the next look at the clock is reckoned from the last."""

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers
        self._steps, self._since = 1, 0
        self._told = time.perf_counter()
        # Steps to the next look. Counted down from 0, there is none.
        self._left = 1 if watchers.by_kind["tick"] else 0

    def step(self, epoch: int, metrics: dict[str, float], batch: Batch) -> None:
        """A step was made. Passes an event to each listener if it is time."""
        self._left -= 1
        if not self._left:
            self._look(epoch, metrics, batch)

    def _look(self, epoch: int, metrics: dict[str, float], batch: Batch) -> None:
        self._since += self._steps
        elapsed = max(time.perf_counter() - self._told, 1e-6)
        left = _TICK - elapsed if elapsed < _TICK else _TICK
        wanted = math.ceil(self._since * left / elapsed)
        # Not many more than before, and never many: steps may become slower.
        self._steps = max(1, min(wanted, 2 * self._steps, _MOST))
        if elapsed >= _TICK:
            self._watchers.tell("tick", epoch, metrics, batch)
            self._since, self._told = 0, time.perf_counter()
        self._left = self._steps
