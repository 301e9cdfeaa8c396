"""Rows added to those of a table as calls of a native kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.backends.onnx import check, to_model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.types import f32, i64
from nncompile.ops import full, scatter_add
from tests.test_native import needs_library, run
from tests.test_native_products import threaded

CASES = ((5, 3, 7), (1, 1, 1), (4, 130, 3), (3, 8, 0), (300, 65, 5000))


def added(rows: int, width: int, onto_zeros: bool) -> onnx.ModelProto:
    """A table, or zeros, with rows added."""
    x, indices, updates = (
        Input("x", f32[rows, width])(),
        Input("indices", i64["n"])(),
        Input("updates", f32["n", width])(),
    )
    table = full((rows, width), 0, f32) if onto_zeros else x
    leaves = (indices, updates) if onto_zeros else (x, indices, updates)
    graph = Graph("rows", {"y": scatter_add(table, indices, updates)}, leaves)
    return to_model(graph, kernels=True)


def feeds_of(rows: int, width: int, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((rows, width), np.float32),
        "indices": rng.integers(-rows, rows, count),
        "updates": rng.standard_normal((count, width), np.float32),
    }


def expected(feeds: dict[str, Any], onto_zeros: bool) -> Any:
    table = feeds["x"].astype(np.float64) * (not onto_zeros)
    np.add.at(table, feeds["indices"], feeds["updates"].astype(np.float64))
    return table


@pytest.mark.parametrize("onto_zeros", [False, True])
def test_added_rows_are_a_call(onto_zeros: bool) -> None:
    proto = added(5, 3, onto_zeros)
    check(proto)
    (call,) = (node for node in proto.graph.node if node.domain)
    assert (call.op_type, len(call.input)) == ("RowScatterAdd", 2 if onto_zeros else 3)
    feeds = feeds_of(5, 3, 7)
    found = run(proto, feeds)["y"]
    np.testing.assert_allclose(found, expected(feeds, onto_zeros), rtol=1e-6, atol=1e-6)


@needs_library
@pytest.mark.parametrize("onto_zeros", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernel_adds_rows(case: tuple[int, int, int], onto_zeros: bool) -> None:
    proto, feeds = added(*case[:2], onto_zeros), feeds_of(*case)
    (found,) = threaded(proto, feeds, 1)
    np.testing.assert_allclose(found, expected(feeds, onto_zeros), rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(threaded(proto, feeds, 3)[0], found)


@needs_library
def test_a_row_that_is_not_there() -> None:
    proto, feeds = added(5, 3, False), feeds_of(5, 3, 7)
    feeds["updates"][2, 1] = np.nan
    (found,) = threaded(proto, feeds, 1)
    assert np.isnan(found).sum() == 1
    feeds["indices"][3] = 5
    with pytest.raises(Exception, match="RowScatterAdd: a row number out of range"):
        threaded(proto, feeds, 1)
