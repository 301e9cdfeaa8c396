"""Signals that end a training after its step, with all that it learned on disk."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
# Only these are replaced: who handles a signal, or ignores it as nohup does, goes on to do so.
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_active: list[Interrupts] = []  # those that take signals, the innermost last


def received() -> int | None:
    """The signal that is to end the training after this step; None without one."""
    return _active[-1].received if _active else None


def error_of(number: int) -> BaseException:
    """What a training ends with after that signal: `KeyboardInterrupt` after a Ctrl-C, `SystemExit`
    with the exit code 128 + signal after another one."""
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return SystemExit(128 + number)


class Interrupts:
    """Takes Ctrl-C, SIGTERM and SIGHUP for the time of the block, in the main thread.

    The first is kept until `raise_received` is called, between two steps; a second one ends the
    training where it is. Neither ends the blocks of `writing`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._writing = False
        self._replaced: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) in _DEFAULTS:
                    self._replaced[number] = signal.signal(number, self._take)
        _active.append(self)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}
        _active.remove(self)
        if error is None:
            self.raise_received()  # it came too late to end the training, not to end the program

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A block that no signal interrupts."""
        outer, self._writing = self._writing, True
        try:
            yield
        finally:
            self._writing = outer

    def raise_received(self) -> None:
        """Raises `error_of` the signal that was received, once."""
        number, self.received = self.received, None
        if number is not None:
            raise error_of(number)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self._writing:
            self.received = self.received or number
            _say("the state is being written; the training ends when it is on disk")
        elif self.received is None:
            self.received = number
            if number == signal.SIGINT:
                _say("the training ends after this step; Ctrl-C again ends it at once")
        else:
            self.received = None
            raise error_of(number)


def _say(text: str) -> None:
    """Writes a line to standard error, as a signal handler may: not through its buffer."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
