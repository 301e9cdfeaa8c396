"""Where nodes were written: what the table of locations keeps alive, and what it does not."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from operator import add
from typing import Any

import pytest

from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import Input
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace, transformed
from nncompile.ir.types import f32
from nncompile.ops import softmax


class Place:
    """Stands for a location, and can be watched."""


def node(name: str) -> Value:
    return apply(Input(name, f32[2]))


def test_a_trace_and_its_entries_go_at_once() -> None:
    """Without the search for cycles: an entry that only its own weak reference kept alive was
    freed amid the search for the others of a node that went, which crashed Python 3.11."""
    x, place = node("traced"), Place()
    watched = weakref.ref(place)
    gc.disable()
    try:
        traces = [LocationTable() for _ in range(4)]
        for locations in traces:
            locations.record(x, place)  # type: ignore[arg-type]
        del locations, place
        assert watched() is not None
        traces.clear()
        assert watched() is None
    finally:
        gc.enable()


def test_a_node_that_goes_leaves_no_entry() -> None:
    locations = LocationTable()
    x: Any = node("going")
    key = id(x)
    locations.record(x, Place())  # type: ignore[arg-type]
    assert locations.all_locations(x)
    del x
    assert key not in locations._entries


def test_a_node_is_where_the_user_is_however_deep_the_frames_of_others() -> None:
    """Frames of ours, and those of the library that ours call through, are passed over."""

    @formula
    def cube(x: Any) -> Any:
        return x * x * x

    with recording_locations(LocationTable()) as locations:
        x = node("deep")
        values = [x.mean()]
        values += [functools.singledispatch(softmax)(x, 0)]
        values += [cube(x)]
        values += [functools.reduce(add, [x, x])]
    for value, text in zip(values, ("x.mean()", "softmax", "cube(x)", "add, [x, x]"), strict=True):
        location = locations.location(value)
        assert location is not None
        assert location.file == __file__
        assert text in location.text


@pytest.mark.parametrize("change", [replace, lambda old, new: transformed(old, known=new)])
def test_what_is_made_anew_is_where_the_old_was(change: Callable[..., list[Value]]) -> None:
    with recording_locations(LocationTable()) as locations:
        old = node("old").mean() * 2
        (new,) = change([old], {node("old"): node("new")})
    assert new is not old
    assert locations.location(new) == locations.location(old)
