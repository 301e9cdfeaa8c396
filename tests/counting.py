"""How much work a function does, counted: the same on every machine, unlike seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def calls(function: Callable[[], Any]) -> int:
    """How many functions are called while `function` runs, those of C included.

    >>> calls(lambda: [abs(x) for x in range(10)]) < calls(lambda: [abs(x) for x in range(20)])
    True
    """
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def lines(function: Callable[[], Any]) -> int:
    """How many lines of Python run in `function`: it sees loops that call nothing.

    >>> lines(lambda: calls(lambda: None)) > 5
    True
    """
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count
