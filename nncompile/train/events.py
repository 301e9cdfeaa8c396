"""What a training tells those who watch it."""

from __future__ import annotations

import math
import os
import reprlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import (
    FileError,
    ModelError,
    Row,
    TrainingWarning,
    did_you_mean,
    warn,
)
from nncompile.diagnostics.kinds import unfit
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.runtime.providers import Provider
from nncompile.train.callback_state import CallbackStates, Told, name_of
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

What it has as `monitored`, names of metrics, is checked before the first step. One that carries
something over to a training that is gone on with has `state_dict()`, which gives numbers, strings,
arrays, and lists and dicts of them, and `load_state_dict(state)`. Where `may_fail` is true, an
error of the system (a full disk, a closed pipe) does not end the training. Where `only_shows` is
true, what it does is not gone on with.

With `during(fitting)`, which gives a context manager, it surrounds the whole training, and sees
what ends it: an error or an interrupt, too. One whose `told_last` is true is told after the others,
whatever the order, as one that writes the state of all of them (of several such numbers, the larger
is told later); one whose `told_first` is true before them, as one that may undo a step with a
`TrainingError`, of which the others then know nothing."""


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
        elif any(hasattr(callback, f"on_{other_kind}") for other_kind in get_args(Kind)):
            continue
        elif callable(callback):
            if kind in ("step", "epoch"):
                methods.append(callback)
        else:
            raise ModelError(f"{_shown(callback)} is not a callback", hint=_hint_for(callback))
    return methods


# By the methods of callbacks of Keras and Lightning, what they are called here.
_FOREIGN = {
    **dict.fromkeys(("on_epoch_end", "on_train_epoch_end", "on_validation_end"), "on_epoch"),
    **dict.fromkeys(("on_train_batch_end", "on_batch_end"), "on_step"),
    **dict.fromkeys(("on_train_end", "on_fit_end"), "on_end"),
}


def _shown(x: object) -> str:
    """An object by its class, where its repr is no more than an address."""
    plain = type(x).__repr__ is object.__repr__
    return f"an object of {type(x).__name__}" if plain else reprlib.repr(x)


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


class Listener(NamedTuple):
    """What is called with an event, of which callback, whether that may fail, whether it is told
    last, and its place among those that do more than show."""

    call: Callable[[Event], Any]
    owner: Callback
    may_fail: bool
    is_last: bool
    place: int | None

    @classmethod
    def all_of(cls, calls: Iterable[Callable[[Event], Any]]) -> Iterator[Listener]:
        """The functions and methods of callbacks."""
        place = 0
        for call in calls:
            owner = getattr(call, "__self__", call)
            may_fail, is_last, shows = (
                bool(getattr(owner, name, False))
                for name in ("may_fail", "told_last", "only_shows")
            )
            yield cls(call, owner, may_fail, is_last, None if shows else place)
            place += not shows


class Watchers:
    """The callbacks of a training that begins now: their listeners by the kind of event, and the
    event that is being told. Raises `ModelError` for what is no callback."""

    def __init__(self, trainer: EventTrainer, callbacks: Callback | Iterable[Callback]) -> None:
        self.trainer = trainer
        self.callbacks = in_order(callbacks)
        self.by_kind = {
            kind: list(Listener.all_of(listeners(callbacks, kind))) for kind in get_args(Kind)
        }
        self.surrounding: list[Callable[[Fitting], AbstractContextManager[Any]]] = [
            x.during for x in reversed(self.callbacks) if hasattr(x, "during")
        ]
        self._start = time.perf_counter()
        # What not all were told of yet, and who was, by the places among those that last; a step or
        # an epoch, of which the others are told when a state that is written meanwhile is gone on
        # with.
        self._event: Event | None = None
        self._places: set[int] = set()
        self._batches = 0
        self._ended = False
        self._excused: set[int] = set()

    def check_monitored(self, names: Sequence[str]) -> None:
        """Raises `ModelError` where a callback watches a metric that is none of these. What stands
        behind a callback that may add metrics to an event is left to the first epoch."""
        for callback in self.callbacks:
            for name in getattr(callback, "monitored", ()):
                if name not in names:
                    raise no_metric(name, [(n,) for n in names])
            has_epochs = hasattr(callback, "on_epoch") or callable(callback)
            if has_epochs and getattr(callback, "may_add_metrics", True):
                return

    def states(self, stopping: bool) -> CallbackStates:
        """What the callbacks carry over, and the event that they are being told of."""
        return CallbackStates.of(self._lasting, self._ended, self.told(stopping))

    def told(self, stopping: bool) -> Told | None:
        """The event that they are being told of, or were when an error ended the training."""
        event = self._event
        if event is None or event.kind not in ("step", "epoch"):
            return None
        # Who stops after a step saves to go on from there.
        stopping = stopping and event.kind == "epoch"
        metrics = dict(event.metrics)
        return Told(event.kind, event.epoch, self._batches, metrics, sorted(self._places), stopping)

    def resume(self, earlier: CallbackStates) -> Told | None:
        """Gives the callbacks what they carry over; what some of them are still to be told of. See
        `CallbackStates.give_back` for what is raised."""
        earlier.give_back(self._lasting)
        same = list(earlier.names) == list(map(name_of, self._lasting))
        return earlier.told if same else None

    def has_same(self, others: Watchers) -> bool:
        """Whether the callbacks are the same objects, but for those that only show."""
        return list(map(id, self._lasting)) == list(map(id, others._lasting))

    @property
    def _lasting(self) -> list[Callback]:
        return [x for x in self.callbacks if not getattr(x, "only_shows", False)]

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Surrounds the training: what is told last is the first to begin, and the last to end."""
        with ExitStack() as stack:
            for begin in self.surrounding:
                stack.enter_context(begin(fitting))
            yield

    def tell(
        self,
        kind: Kind,
        epoch: int,
        metrics: dict[str, Any],
        batch: Batch,
        batches: int = 0,
        told: Collection[int] = (),
    ) -> None:
        """Passes an event to each listener but those of the places `told`; so many `batches` of the
        epoch were trained on. The end of an epoch is told to those who are told last also where
        another one fails."""
        self._ended = kind == "end"
        listeners = self.by_kind[kind]
        if not listeners:
            return
        seconds = time.perf_counter() - self._start
        event = Event(kind, self.trainer, epoch, self.trainer.step, metrics, seconds, batch)
        if kind in ("step", "epoch"):
            self._places, self._batches, self._event = set(told), batches, event
        waiting = [x for x in listeners if x.place is None or x.place not in told]
        for i, listener in enumerate(waiting, 1):
            try:
                self._call(listener, event)
            except BaseException:
                for last in waiting[i:] if kind == "epoch" else ():
                    if last.is_last:
                        self._call(last, event)
                raise
        self._event = None

    def _call(self, listener: Listener, event: Event) -> None:
        place = listener.place
        if place is not None:
            self._places.add(place)  # in a state that it writes itself, it is told
        try:
            listener.call(event)
        except (OSError, FileError) as error:
            if not listener.may_fail:
                raise
            self._excuse(listener.owner, error)
        except Exception:
            raise
        except BaseException:  # an interrupt comes at any moment of it: it is told again
            self._places.discard(-1 if place is None else place)
            raise

    def forget(self) -> None:
        """Nobody is told on of what was being told."""
        self._event = None

    def _excuse(self, callback: Callback, error: OSError | FileError) -> None:
        """Warns, once for each callback."""
        if id(callback) not in self._excused:
            self._excused.add(id(callback))
            problem = error.problem if isinstance(error, FileError) else error
            warn(
                f"{name_of(callback)} failed, and the training goes on: {problem}", TrainingWarning
            )


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
