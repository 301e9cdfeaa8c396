"""Where the nodes of a model were written: a table beside the graph, not on its nodes."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from nncompile.sites import Site, located

_lock = threading.RLock()


def _forget(trace: weakref.ref[Trace], key: int, _: object) -> None:
    """Takes a node that is gone out of the trace, where that is still there."""
    known = trace()
    if known is not None:
        known._entries.pop(key, None)


class Trace:
    """Where nodes were written: every site of every node, of one model's tracing.

    Sites are kept here and not on the interned node, which another file may share.
    """

    def __init__(self) -> None:
        # By identity: a WeakKeyDictionary would ask `==`, which is elementwise.
        self._entries: dict[int, tuple[weakref.ref[object], dict[Site, None]]] = {}

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
