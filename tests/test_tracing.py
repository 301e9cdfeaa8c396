"""Where nodes were written: what the table keeps alive, and what not."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from nncompile.diagnostics.locations import Trace
from nncompile.ir.graph import Input, Value, apply
from nncompile.ir.types import f32


class Place:
    """Stands for a site, and can be watched."""


def node(name: str) -> Value:
    return apply(Input(name, f32[2]))


def test_a_trace_and_its_entries_go_at_once() -> None:
    """Without the search for cycles: an entry that only its own weak reference kept alive was
    freed amid the search for the others of a node that went, which crashed Python 3.11."""
    x, place = node("traced"), Place()
    watched = weakref.ref(place)
    gc.disable()
    try:
        traces = [Trace() for _ in range(4)]
        for trace in traces:
            trace.record(x, place)  # type: ignore[arg-type]
        del trace, place
        assert watched() is not None
        traces.clear()
        assert watched() is None
    finally:
        gc.enable()


def test_a_node_that_goes_leaves_no_entry() -> None:
    trace = Trace()
    x: Any = node("going")
    key = id(x)
    trace.record(x, Place())  # type: ignore[arg-type]
    assert trace.sites(x)
    del x
    assert key not in trace._entries
