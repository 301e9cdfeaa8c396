"""The processes of a training: how they meet, what they agree on, and how they end together."""

from __future__ import annotations

import atexit
import contextlib
import json
import signal
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import LostProcessError, ModelError, ProcessError, whole_number
from nncompile.ir.types import Array
from nncompile.parallel.agreement import Agreement
from nncompile.parallel.collected import CollectedStepRunner
from nncompile.parallel.group import Group
from nncompile.parallel.local import LocalStepRunner
from nncompile.parallel.meeting import Shares
from nncompile.parallel.runner import ReducedStepRunner
from nncompile.parallel.sharded import ShardedStepRunner
from nncompile.train.callback_state import name_of
from nncompile.train.events import Callback, Event, EventTrainer, Kind
from nncompile.train.interrupts import error_of

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# What processes meet for: to make a step, to say something, to hand over a state, to end a block.
# Who comes to collect what others have of a state gets it first, whatever they have come for.
_STEP, _MESSAGE, _STATE, _END, _LEAVE, _COLLECT = range(6)


class Processes:
    """The processes of a group, for the option `parallel` of a trainer.

    Before they exchange anything they meet: who fails says so there, and all end together. Where
    one does not come at all, the others wait no longer than the group does, and end.
    """

    def __init__(
        self,
        group: Group,
        shard_optimizer: bool = False,
        every: int | None = None,
        overlap: int | None = None,
    ) -> None:
        self.group = group
        if every is not None and whole_number("every", every, 1) and shard_optimizer:
            raise ModelError(
                "every lets each process update its own parameters, shard_optimizer a part of "
                "those of all",
                hint="give one of them",
            )
        if overlap is not None and whole_number("overlap", overlap, 1):
            other = "shard_optimizer" if shard_optimizer else "every"
            if shard_optimizer or every is not None:
                raise ModelError(
                    "overlap reduces all gradients in each process at each step, which "
                    f"{other} does not",
                    hint="give one of them",
                )
        self.overlap = overlap
        self.options: dict[str, Any] = {
            "shard_optimizer": shard_optimizer,
            "every": every,
            "overlap": overlap,
        }
        # Those whose state lies in several processes, and those that have made steps.
        self._runners: list[weakref.ref[Shares]] = []
        self._used: list[Shares] = []
        self.rank, self.size = group.rank, group.size
        self._control = group.apart()
        self._depth = 0
        self._is_told = False  # all know that one failed
        self._aborts = False
        self._is_lost = False  # one does not answer
        self.lost: Sequence[int] = ()

    @classmethod
    def of(
        cls, group: Group, elastic: bool = False, lost: Sequence[int] = (), **options: Any
    ) -> Processes:
        """Those of a group on a way of their own; where it is `elastic`, of those that are left of
        it. So many were `lost` before."""
        gone = list(lost)
        while True:
            try:
                processes = cls(group.apart(), **options)
            except LostProcessError:
                if not elastic:
                    raise
                group, more = group.survivors()
                gone += more
            else:
                processes.lost = tuple(gone)
                return processes

    def __repr__(self) -> str:
        return f"<process {self.rank} of {self.size}>"

    def survivors(self) -> Processes:
        """After a `LostProcessError`, which all get then: the processes that are left, in their
        order, with new numbers. Each makes a trainer with them, and goes on from a state that one
        of them has, or that is on disk. `lost` has the numbers that the others had."""
        group, lost = self.group.survivors()
        return Processes.of(group, True, lost, **self.options)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and shows how it goes."""
        return self.rank == 0

    def runner(
        self, compiled: CompiledStep, state: Mapping[str, Any], *options: Any
    ) -> ReducedStepRunner:
        """A runner of steps that all processes make together."""
        every = self.options["every"]
        if self.size > 1 and every is not None:
            return LocalStepRunner(self, every, compiled, state, *options)
        if self.size > 1 and self.options["shard_optimizer"]:
            return ShardedStepRunner(self, compiled, state, *options)
        kind = CollectedStepRunner if self.size > 1 and compiled.source.sums else ReducedStepRunner
        return kind(self, compiled, state, *options)

    def enter(self, runner: Shares, after: object) -> None:
        """Takes a runner whose state lies in several processes, in the same order in all; it may
        take the place of another one."""
        self._runners.append(weakref.ref(runner))
        self._used = [runner if known is after else known for known in self._used]

    def use(self, runner: Shares) -> None:
        """Notes that a runner makes a step."""
        if not any(known is runner for known in self._used):
            self._used.append(runner)

    def collect(self, runner: Shares, names: Sequence[str], step: int) -> dict[str, Array]:
        """What all processes have of those tensors after that step. They need not know of it: they
        give it where they meet next."""
        if self._is_lost:
            raise ProcessError(
                f"what another process held of the state after step {step} cannot be asked for",
                hint="--resume goes on from the last state that was written",
            )
        number = next(i for i, known in enumerate(self._runners) if known() is runner)
        request = json.dumps([number, list(names), step])
        while True:
            self._round(_COLLECT)
            served, arrays = self._serve(request)
            if served == request:
                return arrays

    def _serve(self, request: str = "") -> tuple[str, dict[str, Array]]:
        """Gives what is asked for first, and takes part in what all compute of it."""
        with self._answering():
            served = next(filter(None, self.group.agree(request)))
            number, names, step = json.loads(served)
            runner = self._runners[number]()
            assert runner is not None  # as one process asks for its state
            return served, runner.collected(names, step)

    def settle(self) -> None:
        """Makes all go on as from a file with the present state: its bits do not depend on whether
        one does."""
        self.meet(_MESSAGE)
        with self._answering():
            for runner in self._used:
                runner.settle()

    def callbacks(self, callbacks: list[Callback]) -> list[Callback]:
        """Those of this process: what writes or shows is told by the first alone. With them, one
        that compares the processes."""
        followed = any(hasattr(x, "restore") for x in callbacks)
        mine = [x if self.is_first or not _writes(x) else Absent(x) for x in callbacks]
        return [Agreement(self, followed), *mine]

    def absent(self, callback: Callback) -> Absent:
        """What stands for a callback of the first process here."""
        return Absent(callback)

    def meet(self, purpose: int = _STEP) -> None:
        """Waits for all processes. Raises the `ProcessError` of one that failed, or what ends a
        training after a signal, and one where processes have come for different purposes."""
        while self._round(purpose) == _COLLECT:
            self._serve()

    def _round(self, purpose: int) -> int:
        """What all processes have come for, or what some come to collect."""
        with self._answering():
            numbers = np.array([0, purpose, -purpose], np.int64)
            self._control.allreduce(numbers, operation="max")
            failed, last, first = numbers
            if not failed and last in (-first, _COLLECT):
                return int(last)
            texts = self._control.agree("") if failed else []
        self._is_told = True
        if not failed:
            raise ProcessError(
                "the processes are apart: one makes a step where another is done",
                hint="a generator must give as many batches in each process",
            )
        rank, text = next((rank, text) for rank, text in enumerate(texts) if text)
        about = json.loads(text)
        if about["signal"]:
            raise error_of(about["signal"])
        raise ProcessError(f"process {rank} failed: {about['error']}")

    def said(self, value: Any) -> list[Any]:
        """What each process says, as JSON has it, in their order."""
        self.meet(_MESSAGE)
        with self._answering():
            return [json.loads(text) for text in self.group.agree(json.dumps(value))]

    def of_first(self, value: Any = None) -> Any:
        """What the first process says; the others need not give anything."""
        return self.said(value if self.is_first else None)[0]

    def follow_first(self, trainer: EventTrainer) -> None:
        """Makes all trainers go on from where that of the first process is."""
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "state.safetensors")
            if self.is_first:
                trainer.save(file)
            content = self._sent(file.read_bytes() if self.is_first else b"")
            if not self.is_first:
                file.write_bytes(content)
                trainer.load(file)

    def _sent(self, content: bytes) -> bytes:
        """What the first process has, in all."""
        self.meet(_STATE)
        with self._answering():
            length = np.array([len(content)], np.int64)
            self.group.broadcast(length)
            whole = np.frombuffer(content.ljust(int(length[0]), b"\0"), np.uint8).copy()
            self.group.broadcast(whole)
            return whole.tobytes()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes leave together: of an error in one, all are told. Signals end
        the first process, and with it the others."""
        if self._depth == 0:
            self._is_told = False
        self._depth += 1
        try:
            with _ignoring_signals(not self.is_first):
                yield
                if self._depth == 1 and not self._is_told:
                    self.meet(_END)
                    self._hold()
        except BaseException as error:
            self._tell(error)
            if self._is_lost and not isinstance(error, LostProcessError):
                self._abort_at_exit()  # this process is not among the survivors
            raise
        finally:
            self._depth -= 1
            if self._depth == 0 and self._is_told:
                self._leave()

    def _tell(self, error: BaseException) -> None:
        """Tells the others of the error, if they do not know."""
        if self._is_told or self._is_lost:
            return
        with contextlib.suppress(ProcessError), self._answering():
            self._control.allreduce(np.ones(3, np.int64), operation="max")
            self._control.agree(json.dumps(_described(error)))
            self._is_told = True

    def _leave(self) -> None:
        """Waits for the others after an error: the first has to write what it keeps before another
        process ends, which ends all."""
        if not self._is_lost:
            with contextlib.suppress(ProcessError):
                self.meet(_LEAVE)
                self._hold()

    def _hold(self) -> None:
        """Makes each process know the whole state of what they trained: outside of a block one of
        them may ask for it alone."""
        while self._used:
            with self._answering():
                self._used.pop(0).hold()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """A block in which the others answer, unless something is wrong with one of them."""
        try:
            yield
        except LostProcessError:
            self._is_lost = True
            raise
        except BaseException:
            self._abort_at_exit()  # whose end the others might wait for, for ever
            self._is_lost = True
            raise

    def _abort_at_exit(self) -> None:
        if not self._aborts:
            atexit.register(self.group.abort, 1)
        self._aborts = True


class Absent:
    """Stands for a callback, or a class of them, that the first process tells: callbacks have the
    same names and places in all of them, by which a training that goes on gives them what they
    carry over."""

    def __init__(self, callback: Callback) -> None:
        self.__qualname__ = name_of(callback)
        for name in ("told_last", "told_first", "only_shows"):
            setattr(self, name, getattr(callback, name, False))
        for kind in get_args(Kind):
            if hasattr(callback, f"on_{kind}"):
                setattr(self, f"on_{kind}", self._ignored)

    def _ignored(self, event: Event) -> None:
        """An event that is not for this process."""


def _writes(callback: Callback) -> bool:
    """Whether a callback writes files, or to a screen; it may say so itself."""
    only_first = getattr(callback, "only_first", None)
    kinds = ("only_shows", "may_fail", "restore")
    writes = any(getattr(callback, name, False) for name in kinds)
    return writes if only_first is None else bool(only_first)


def _described(error: BaseException) -> dict[str, Any]:
    """An error as the other processes are told of it."""
    number = 0
    if isinstance(error, KeyboardInterrupt):
        number = int(signal.SIGINT)
    elif isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        number = error.code - 128
    return {"error": f"{type(error).__name__}: {error}", "signal": number}


@contextlib.contextmanager
def _ignoring_signals(ignores: bool) -> Iterator[None]:
    """A block in which signals that end a training are left to another process."""
    if not ignores or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
