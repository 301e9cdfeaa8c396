"""Passes what a training tells to its callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, get_args

from nncompile.diagnostics.errors import (
    CompileError,
    FileError,
    TrainingWarning,
    warn,
)
from nncompile.train.callback_state import CallbackStates, Told, name_of
from nncompile.train.data import Batch
from nncompile.train.events import (
    Callback,
    Event,
    EventTrainer,
    Fitting,
    Kind,
    in_order,
    listeners,
    no_metric,
)
from nncompile.train.unread import Made

_TICK = 0.1  # seconds, about, from one tick to the next
_MOST = 256  # steps between two looks at the clock


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
        self._checks: list[Callable[[Fitting], None]] = [
            x.check_beginning for x in self.callbacks if hasattr(x, "check_beginning")
        ]
        at_once = [x.owner for x in self.by_kind["step"] if not getattr(x.owner, "may_lag", False)]
        # Who says of which steps it is to be told before the next one; others are of each.
        self._choosing = [x.wants_step for x in at_once if hasattr(x, "wants_step")]
        self._wants_each = len(self._choosing) < len(at_once)
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
        """Surrounds the training, which each callback may refuse before any of them begins: what
        is told last is the first to begin, and the last to end."""
        for check in self._checks:
            check(fitting)
        with ExitStack() as stack:
            for begin in self.surrounding:
                stack.enter_context(begin(fitting))
            yield

    @property
    def seconds(self) -> float:
        """The time since the training began."""
        return time.perf_counter() - self._start

    def wants_step(self, step: int) -> bool:
        """Whether a listener is to be told of that step before the next one is made."""
        return self._wants_each or any(wants(step) for wants in self._choosing)

    def tell_late(self, made: Made, epoch: int, metrics: dict[str, float]) -> None:
        """Tells of a step those who may be told when others were made since. One that fails ends
        the training when all of them were told."""
        failed = None
        about = epoch, made.step, metrics, made.seconds, made.batch
        for i, listener in enumerate(self.by_kind["step"]):
            if i not in made.told and getattr(listener.owner, "may_lag", False):
                try:
                    self._call(listener, Event("step", self.trainer, *about))
                except Exception as error:
                    failed = failed or error
                made.told.add(i)
        if failed is not None:
            raise failed

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
        about = epoch, self.trainer.step, metrics, self.seconds, batch
        event = Event(kind, self.trainer, *about)
        if kind in ("step", "epoch"):
            self._places, self._batches, self._event = set(told), batches, event
        waiting = [x for x in listeners if x.place is None or x.place not in told]
        for i, listener in enumerate(waiting, 1):
            try:
                self._call(listener, event)
            except BaseException as error:
                if kind == "epoch":
                    self._tell_last(waiting[i:], event, error)
                raise
        self._event = None

    def _tell_last(self, waiting: Sequence[Listener], event: Event, error: BaseException) -> None:
        """Tells those who are told last in spite of an error, which stays the one to be seen: one
        of them may fail because of it, as where a state is asked of a process that has ended."""
        for last in waiting:
            if last.is_last:
                try:
                    self._call(last, event)
                except Exception as another:
                    problem = another.problem if isinstance(another, CompileError) else another
                    error.add_note(f"{name_of(last.owner)} failed, too: {problem}")

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

    def is_due(self) -> bool:
        """Whether it is time, after a step, for `tell`."""
        self._left -= 1
        return not self._left and self._looked()

    def tell(self, epoch: int, metrics: dict[str, float], batch: Batch) -> None:
        """Passes an event of the last step to each listener."""
        self._watchers.tell("tick", epoch, metrics, batch)
        self._since, self._told = 0, time.perf_counter()

    def _looked(self) -> bool:
        """Whether it is time; sets how many steps there are to the next look."""
        self._since += self._steps
        elapsed = max(time.perf_counter() - self._told, 1e-6)
        left = _TICK - elapsed if elapsed < _TICK else _TICK
        wanted = math.ceil(self._since * left / elapsed)
        # Not many more than before, and never many: steps may become slower.
        self._left = self._steps = max(1, min(wanted, 2 * self._steps, _MOST))
        return elapsed >= _TICK
