"""A function in a child process: what it raises, a crash, and the end of its time are errors."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from nncompile.diagnostics.errors import BackendError, CompileError, ProcessError

T = TypeVar("T")
TIMED_OUT = 124  # the exit code of `timeout`; of a crash it is 128 and the signal, as in a shell

# A fork takes milliseconds, and a new interpreter a second. It is safe here as nothing has run in
# the parent whose threads the child would miss.
_METHOD = "fork" if sys.platform.startswith("linux") else "spawn"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def in_child(
    function: Callable[..., T], *arguments: Any, what: str, timeout: float | None = None
) -> T:
    """What `function(*arguments)` returns, in a process of its own, which ends with this one.

    Raises what the function raises, and `ProcessError` where the process is killed: by a crash of
    what it calls, by the system as there is no memory left, or here after `timeout` seconds.
    `what` it does is named in the error. What cannot be pickled can be neither an argument, a
    result nor an error.
    """
    context: Any = multiprocessing.get_context(_METHOD)
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sending, function, arguments), daemon=True)
    with warnings.catch_warnings():
        # Python warns of any thread, also of those of numpy, which take a fork well.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sending.close()  # so that its end is seen here
    try:
        with receiving:
            if not receiving.poll(timeout):
                raise ProcessError(
                    f"{what} took more than {timeout:g} seconds, and was ended",
                    exit_code=TIMED_OUT,
                    hint="--timeout SECONDS gives it more, --timeout 0 as many as it needs",
                )
            try:
                result, error = receiving.recv()
            except (EOFError, ConnectionError):
                process.join()
                raise _killed(what, -process.exitcode) from None
    finally:
        process.kill()  # it is at its end, or is to be
        process.join()
    if error is not None:
        raise error
    value: T = result
    return value


def _child(sending: Connection, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    outcome: tuple[Any, BaseException | None]
    try:
        outcome = function(*arguments), None
    except MemoryError:
        outcome = None, BackendError("there is not enough memory for it")
    except CompileError as error:
        error.add_note(traceback.format_exc())  # for --debug: a traceback cannot be sent
        outcome = None, error
    except Exception as error:  # a fault of ours: the parent shows where
        outcome = None, RuntimeError(f"{error!r} in the child process\n{traceback.format_exc()}")
    sys.stderr.flush()
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and nobody waits for it
        sending.send(outcome)


def end_with_parent(number: int) -> None:
    """Has the system send this process that signal when the parent is gone, where it can."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, number)


def _end_with_parent() -> None:
    """Has the system end this process where the parent is killed, and take its memory before
    that of others when there is none left."""
    if not sys.platform.startswith("linux"):
        return
    end_with_parent(signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _killed(what: str, number: int) -> ProcessError:
    """The error for the signal that ended the process, or its exit code where that is below 0."""
    if number == getattr(signal, "SIGKILL", 9):
        return ProcessError(
            f"{what} was killed: most likely it needs more memory than there is",
            exit_code=128 + number,
            hint="give it fewer examples at once, or fewer threads",
        )
    if number <= 0:
        return ProcessError(f"{what} ended with exit code {-number}", exit_code=1)
    name = signal.strsignal(number) or f"signal {number}"
    return ProcessError(
        f"{what} crashed: {name.lower()}",
        exit_code=128 + number,
        hint="the file is broken, or this version of the runtime has a fault",
    )
