"""Python's search for garbage, paused while a graph is built: its nodes all live, and looking
through them again and again took a third of the time."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from nncompile.diagnostics.locations import message_name

P = ParamSpec("P")
R = TypeVar("R")


def without_collection(function: Callable[P, R]) -> Callable[P, R]:
    """The function, during whose calls no cycles are searched for."""

    @functools.wraps(function)
    @message_name()
    def paused(*args: P.args, **options: P.kwargs) -> R:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return function(*args, **options)
        finally:
            if enabled:
                gc.enable()

    return paused
