"""How a process waits for others: asking, so that a signal or the end of the time is noticed."""

from __future__ import annotations

import time
from collections.abc import Callable

from nncompile.diagnostics.errors import ProcessError
from nncompile.train.interrupts import error_of, received

TIMEOUT = 600.0  # seconds for what another process may do meanwhile: to write files, to evaluate
_EAGER = 2e-4  # seconds in which an answer is asked for again and again
_PAUSE = 5e-5  # seconds between two questions after that: others need the processor
_PATIENCE = 0.3  # seconds to go on waiting when a signal came: it may have ended the others, too


def wait_until(are_done: Callable[[], bool], rank: int, timeout: float) -> None:
    """Waits for the others. Raises `ProcessError` after so many seconds, and what ends a training
    after a signal where they do not answer."""
    start = time.perf_counter()
    while not are_done():
        waited = time.perf_counter() - start
        if waited < _EAGER:
            continue
        if waited > timeout:
            raise ProcessError(
                f"another process has not answered process {rank} for {waited:.0f} s",
                hint="it may be busy: timeout=3600 waits longer",
            )
        number = received() if waited > _PATIENCE else None
        if number is not None:
            raise error_of(number)
        time.sleep(_PAUSE)
