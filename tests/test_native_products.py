"""Long products of matrices as calls of a native kernel, in any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.backends.onnx import check, to_model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.types import f32
from nncompile.ops import gemm
from tests.native_checks import needs_library, run

SHAPES = (
    *((1, 1, 2), (13, 31, 64), (14, 32, 514), (33, 600, 300), (2, 3, 0)),
    *((7, 40, 2), (10, 33, 4)),  # too few products to pack
)


def product(rows: int, columns: int, transposed: bool, added: bool) -> onnx.ModelProto:
    """α·aᵀ·b + β·c of a depth that the type tells to be long."""
    shapes = {
        "a": ("2*n", rows),
        "b": (columns, "2*n") if transposed else ("2*n", columns),
        "c": (rows, columns),
    }
    leaves = {n: Input(n, f32[shape])() for n, shape in shapes.items()}
    c = (leaves["c"],) if added else ()
    y = gemm(
        *(leaves["a"], leaves["b"], *c),
        transpose_a=True,
        transpose_b=transposed,
        alpha=-0.5,
        beta=2.0 if added else 1.0,
    )
    names = ("a", "b", "c") if added else ("a", "b")
    return to_model(Graph("product", {"y": y}, tuple(leaves[n] for n in names)), kernels=True)


def threaded(proto: onnx.ModelProto, feeds: dict[str, Any], threads: int) -> list[Any]:
    """All outputs, with the library in so many threads."""
    return list(run(proto, feeds, with_library=True, threads=threads).values())


def feeds_of(shape: tuple[int, int, int], transposed: bool, added: bool) -> dict[str, Any]:
    rows, columns, depth = shape
    rng = np.random.default_rng(0)
    shapes = {"a": (depth, rows), "b": (columns, depth) if transposed else (depth, columns)}
    if added:
        shapes["c"] = (rows, columns)
    return {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_a_long_product_is_a_call(transposed: bool, added: bool) -> None:
    proto = product(5, 7, transposed, added)
    check(proto)
    assert [node.op_type for node in proto.graph.node if node.domain] == ["Gemm"]
    feeds = feeds_of((5, 7, 6), transposed, added)
    b = feeds["b"].T if transposed else feeds["b"]
    expected = -0.5 * feeds["a"].T @ b + 2 * feeds.get("c", 0)
    np.testing.assert_allclose(run(proto, feeds)["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "added", "native"),
    [(255, False, False), (256, False, True), (63, True, False), (64, True, True)],
)
def test_a_product_over_the_examples_of_a_batch_is_a_call_where_its_result_is_large(
    columns: int, added: bool, native: bool
) -> None:
    a, b = Input("a", f32["n", 256])(), Input("b", f32["n", columns])()
    c = (Input("c", f32[256, columns])(),) if added else ()
    graph = Graph("product", {"y": gemm(a, b, *c, transpose_a=True)}, (a, b, *c))
    calls = [node for node in to_model(graph, kernels=True).graph.node if node.domain]
    assert len(calls) == native


@needs_library
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_multiplies(shape: tuple[int, int, int], transposed: bool, added: bool) -> None:
    proto = product(*shape[:2], transposed, added)
    feeds = feeds_of(shape, transposed, added)
    (found,) = threaded(proto, feeds, 1)
    double = {n: x.astype(np.float64) for n, x in feeds.items()}
    b = double["b"].T if transposed else double["b"]
    expected = -0.5 * double["a"].T @ b + 2 * double.get("c", 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(threaded(proto, feeds, 3)[0], found)


@needs_library
def test_what_is_not_finite_stays_so() -> None:
    proto, feeds = product(14, 40, False, True), feeds_of((14, 40, 70), False, True)
    feeds["a"][3, 2], feeds["b"][5, 39], feeds["c"][0, 0] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        expected = -0.5 * feeds["a"].T @ feeds["b"] + 2 * feeds["c"]
    (found,) = threaded(proto, feeds, 1)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_array_equal(found[~np.isfinite(found)], expected[~np.isfinite(found)])
