"""Python's search for garbage, paused while what is made all lives: the nodes of a graph, or the
classes of a package. Looking through them again and again took a third of the time."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from nncompile.diagnostics.locations import message_name

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def collection_paused() -> Iterator[None]:
    """No cycles are searched for within the statement. What is made there counts as old from the
    beginning: cycles are searched for in it as rarely as in all that is old."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not _somebody_froze():  # what is frozen stays so
                gc.freeze()
                gc.unfreeze()
            gc.enable()


_frozen: list[bool] = []


def _somebody_froze() -> bool:
    """Whether a program has ever frozen what it has. To count that takes as long as it is much, so
    it is asked no more once it was found."""
    if not _frozen and gc.get_freeze_count():
        _frozen.append(True)
    return bool(_frozen)


kept = collection_paused
"""Its name where what is made is there to stay, as the classes of a package."""


def without_collection(function: Callable[P, R]) -> Callable[P, R]:
    """The function, during whose calls no cycles are searched for."""

    @functools.wraps(function)
    @message_name()
    def paused(*args: P.args, **options: P.kwargs) -> R:
        with collection_paused():
            return function(*args, **options)

    return paused
