"""How this process ends where something in it would keep it from that."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

_codes = [0]  # the last is what the process is to end with


def ends_with(code: int) -> None:
    """Notes the exit code of this process, for `end_in_time`."""
    _codes.append(code)


def end_in_time(finish: Callable[[], object], seconds: float) -> None:
    """Calls a function that may not come to its end, but lets other threads run, as the process
    does: after so many seconds the process is ended, with the exit code that was noted, or 1 after
    an error that nobody caught."""
    threading.Thread(target=_end, args=(seconds,), daemon=True).start()
    finish()


def _end(seconds: float) -> None:
    time.sleep(seconds)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(1 if getattr(sys, "last_value", None) is not None else _codes[-1])
