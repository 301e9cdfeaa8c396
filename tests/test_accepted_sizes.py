"""Which sizes a graph accepts: indices, slices, loops, assertions of one's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import f32
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.dims import symbol
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value
from nncompile.ops import concatenate, const, scan, zeros_like
from nncompile.ops.core.assertions import in_range, limited
from nncompile.program.shape_check import SizeCheck
from tests.size_checks import told
from tests.source_lines import line_of


def check_of(function: Callable[..., Value], **types: Any) -> SizeCheck:
    inputs = {name: Input(name, t)() for name, t in types.items()}
    return SizeCheck(Graph("net", {"y": function(**inputs)}), inputs)


def test_sizes_of_places_and_symbolic_slices() -> None:
    fifth = check_of(lambda x: x[:, 4], x=f32["n", "time"])
    assert {str(s): n for s, n in fifth({"x": (2, 5)}).items()} == {"n": 2, "time": 5}
    message = told(lambda: fifth({"x": (2, 3)}))
    assert "indexing (slice): 1 elements from 4 by 1 are not on axis 1 of f32[2, 3]" in message
    assert "hint: feed data with time at least 5" in message
    time = symbol("time")
    rest = check_of(lambda x: x[:, : time - 3], x=f32["n", "time"])
    rest({"x": (0, 3)})  # no rows, and nothing in each
    assert re.search(r" time +at least 3 +got 1\n", told(lambda: rest({"x": (2, 1)})))
    named = check_of(lambda x: x[:, 0], x=f32["n", "4*h"])  # the message names the size
    assert re.search(r" h +at least 1 +got 0\n", told(lambda: named({"x": (2, 0)})))


def test_slices_by_numbers_take_what_there_is() -> None:
    for key in (np.s_[:, :5], np.s_[:, 3:], np.s_[:, -5:], np.s_[:, 1:-1], np.s_[:, 4:1:-2]):
        known = check_of(lambda x, key=key: x[key], x=f32["n", "time"])  # type: ignore[misc]
        for time in range(7):
            known({"x": (2, time)})


def test_a_slice_stands_beside_what_has_the_size_that_it_asks_for() -> None:
    """Whether there is as much, the data tell."""
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    first = check_of(lambda x: (x[:, :3] + table).reshape((x.shape[0], 12)), x=f32["n", "time", 4])
    for time in (3, 5):
        first({"x": (2, time, 4)})
    for time in (1, 2):  # one row does not repeat: its gradient would be that of three
        message = told(lambda time=time: first({"x": (2, time, 4)}))  # type: ignore[misc]
        assert f"f32[2, {time}, 4] has {8 * time} elements, f32[2, 3, 4] has 24" in message
        assert "hint: feed data with time at least 3" in message
    changes = check_of(
        lambda x: concatenate([zeros_like(x[:, 0:1]), x[:, 1:] - x[:, :-1]], 1) + x,
        x=f32["n", "time"],
    )
    for time in range(4):
        changes({"x": (2, time)})


def test_sizes_within_a_loop() -> None:
    def halves(x: Value) -> Value:
        return scan(lambda row: row[3] * 2, None, x)  # type: ignore[no-any-return]

    check = check_of(
        lambda x: scan(lambda c, row: (c, row[3] * 2), const(0.0), x)[1], x=f32["n", "time"]
    )
    check({"x": (3, 4)})
    message = told(lambda: check({"x": (3, 2)}))
    assert "1 elements from 3 by 1 are not on axis 0 of f32[2]" in message
    assert f"at {line_of(__file__, 'row[3] * 2), const')}" in message


def test_data_that_contradict_each_other_or_have_another_rank() -> None:
    check = check_of(lambda a, b: a + b, a=f32["n", 2], b=f32["n", 2])
    assert "the data do not fit: expected size 3 for n, got 4" in told(
        lambda: check({"a": (3, 2), "b": (4, 2)})
    )
    assert "input 'a' has rank 1" in told(lambda: check({"a": (3,), "b": (3, 2)}))


def test_claims_of_one_s_own() -> None:
    def claimed(x: Value) -> Value:
        return limited(x, x.shape[0], 3, "the ring has {limit} seats for {size}", "seat {limit}")

    message = told(lambda: check_of(claimed, x=f32["n"])({"x": (4,)}))
    assert "the model does not accept input 'x': the ring has 3 seats for 4" in message
    assert "hint: seat 3" in message
    with pytest.raises(ShapeError, match="the ring has 3 seats for 4"):
        claimed(const(np.zeros(4)))
    with pytest.raises(DTypeError, match="the seats must be integers, got f32"):
        in_range(const([1.0]), 0, 1, "the seats must be")
