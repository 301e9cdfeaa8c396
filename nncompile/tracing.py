"""Where the nodes of a model were written: a table beside the graph, not on its nodes."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import sympy as sp

from nncompile.sites import Site, located

_lock = threading.RLock()


def _forget(trace: weakref.ref[Trace], key: int, _: object) -> None:
    """Takes a node that is gone out of the trace, where that is still there."""
    known = trace()
    if known is not None:
        known._entries.pop(key, None)


class Trace:
    """Where nodes were written: every site of every node, of one model's tracing.

    Sites are kept here and not on the interned node, which another file may share. `makers` are
    the nodes that made the sizes which depend on data: such a size outlives what was selected.
    """

    def __init__(self) -> None:
        # By identity: a WeakKeyDictionary would ask `==`, which is elementwise.
        self._entries: dict[int, tuple[weakref.ref[object], dict[Site, None]]] = {}
        self.makers: dict[sp.Symbol, Any] = {}

    def record(self, node: object, site: Site | None) -> None:
        if site is None:
            return
        key, entries = id(node), self._entries
        with _lock:
            if key not in entries:
                gone = weakref.ref(node, functools.partial(_forget, weakref.ref(self), key))
                entries[key] = gone, {}
            entries[key][1][site] = None

    def sites(self, node: object) -> tuple[Site, ...]:
        """All sites of the node, oldest first."""
        with _lock:
            entry = self._entries.get(id(node))
            return tuple(entry[1]) if entry else ()

    def site(self, node: object) -> Site | None:
        """Where the node was first written."""
        return next(iter(self.sites(node)), None)

    def located(self, node: object) -> AbstractContextManager[None]:
        """Nodes made in the block are reported where `node` was first written."""
        return located(self.site(node))


# What makes sizes in a graph that is being rewritten, in the place of the trace's.
_makers: ContextVar[dict[sp.Symbol, Any] | None] = ContextVar("makers", default=None)

_trace: ContextVar[Trace] = ContextVar("trace", default=Trace())  # noqa: B039 (shared on purpose)


def current_trace() -> Trace:
    return _trace.get()


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    """Records the sites of nodes made in the block in `trace`."""
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def current_makers() -> dict[sp.Symbol, Any]:
    """The nodes that make the sizes which depend on data."""
    found = _makers.get()
    return _trace.get().makers if found is None else found


def record_maker(size: sp.Symbol, node: object) -> None:
    """Notes what makes a size: as it was written first, or in the graph that is being rewritten."""
    found = _makers.get()
    if found is None:
        _trace.get().makers.setdefault(size, node)
    else:
        found[size] = node


@contextmanager
def making(makers: dict[sp.Symbol, Any]) -> Iterator[None]:
    """Takes these for the nodes that make sizes in the block."""
    token = _makers.set(makers)
    try:
        yield
    finally:
        _makers.reset(token)
