"""What writes a page into each run that ends: registered by what needs training, and known to
training, which imports neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

M = TypeVar("M", bound=Callable[[], Any])
PAGE_MAKERS: list[Callable[[], Any]] = []


def adds_to_runs(make: M) -> M:
    """Has what `make` gives add a file to each run that ends."""
    PAGE_MAKERS.append(make)
    return make
