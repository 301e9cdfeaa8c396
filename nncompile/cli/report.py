"""What the command line prints: timings, node counts and figures."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.ir.graph import Graph
from nncompile.ir.types import Array, is_real
from nncompile.program.summary import memory

try:
    import resource
except ModuleNotFoundError:  # Windows has no such module, and peak_memory says so
    resource = None  # type: ignore[assignment]  # the module is not there

LINES = 20  # of a table that are printed


class Timing:
    """The seconds that a block takes."""

    seconds = 0.0

    def __enter__(self) -> Timing:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start


class Counts:
    """The number of nodes before and after each pass, and the seconds since the one before; given
    as `observe` to a compilation."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int, float]] = []
        self._last = time.perf_counter()

    def __call__(self, name: str, before: Graph, after: Graph) -> None:
        now = time.perf_counter()
        self.rows.append((name, len(before.nodes), len(after.nodes), now - self._last))
        self._last = now


def peak_memory() -> str | None:
    """The most memory that this process has used so far; None where the system does not say."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return memory(peak if sys.platform == "darwin" else 1024 * peak)


def summary(x: Array) -> str:
    """A few numbers that describe an array."""
    if x.size <= 8:
        return np.array2string(x, precision=4, separator=", ", max_line_width=10**6)
    if not is_real(x.dtype):
        return f"{', '.join(map(str, x.ravel()[:8].tolist()))}, ..."
    finite = x[np.isfinite(x)]
    lost = f"{x.size - finite.size:,} of {x.size:,} not finite" if finite.size < x.size else ""
    if not finite.size:
        return lost
    text = f"min {finite.min():.4g}  mean {finite.mean():.4g}  max {finite.max():.4g}"
    return f"{text}  {lost}".rstrip()


def first_sentence(function: Callable[..., Any]) -> str:
    """What the docstring says first, without the full stop."""
    return " ".join((inspect.getdoc(function) or "").split()).partition(". ")[0].rstrip(".")
