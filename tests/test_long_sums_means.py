"""Means, spreads and normalization of many numbers that are alike keep float32's digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nncompile import ops
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f32
from tests.leaves import leaf
from tests.long_sum_checks import alike, everywhere, near, thousand


def test_means_and_spreads_of_numbers_that_are_alike() -> None:
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((1_000_000, 2))).astype(np.float32)
    wide = x.astype(np.float64)
    million = 999_000 + x
    assert not everywhere(lambda x: ops.std(x), [f32["n"]], [alike(rng, (70_001,))])[0][
        "onnxruntime"
    ]
    (results,) = everywhere(lambda x: ops.var(x, 0), [f32["n", 2]], [million])
    near(results["onnxruntime"], million.var(0, np.float64), 1, "var of millions", 2e-6)
    cases: dict[str, tuple[Callable[[Value], Value], Array]] = {
        "mean": (lambda x: ops.mean(x, 0), wide.mean(0)),
        "std": (lambda x: ops.std(x, 0), wide.std(0)),
        "var": (lambda x: ops.var(x, 0), wide.var(0)),
        "var of all": (lambda x: ops.var(x), wide.var()),
        "norm": (lambda x: ops.norm(x, axis=0), np.sqrt((wide * wide).sum(0))),
    }
    for name, (function, expected) in cases.items():
        (results,) = everywhere(function, [f32["n", 2]], [x])
        for backend, result in results.items():
            near(result, expected, expected, f"{name}, {backend}", 2e-6)


@pytest.mark.parametrize("size", [128, 1000, 5000, 100_003])
def test_layer_normalization_of_numbers_that_are_alike(size: int) -> None:
    x = thousand(np.random.default_rng(12), (3, size))
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    for shape in ((3, size), ("n", "m")):
        (results,) = everywhere(ops.layer_norm, [f32[shape]], [x])
        for backend, result in results.items():
            near(result, expected, 1, f"{backend} of {size}", 3e-6)


@pytest.mark.parametrize(
    "function",
    [lambda x: ops.group_norm(x, 2), ops.instance_norm, lambda x: ops.layer_norm(x, axes=3)],
    ids=["group", "instance", "layer"],
)
def test_normalization_within_an_example_of_a_million(function: Callable[[Value], Value]) -> None:
    shape = (1, 4, 500, 500)
    x = thousand(np.random.default_rng(17), shape)
    x_leaf = leaf("x", f32[shape])
    graph = Graph("exact", {"y": function(x_leaf)}, (x_leaf,))
    expected = evaluate(graph, {"x": x}, precision=np.float64)["y"]
    (results,) = everywhere(function, [f32["n", 4, "h", "w"]], [x])
    for backend, result in results.items():
        near(result, expected, 1, backend, 3e-6)


def test_normalization_along_an_axis_that_may_be_empty() -> None:
    for size in (0, 1, 2):
        x = thousand(np.random.default_rng(18), (3, size))
        (results,) = everywhere(ops.layer_norm, [f32["n", "m"]], [x])
        for backend, result in results.items():
            assert result.shape == x.shape, backend
            assert np.isfinite(result).all(), backend


def test_means_of_large_windows() -> None:
    x = thousand(np.random.default_rng(13), (2, 2, 401, 300))
    expected = x.mean((2, 3), dtype=np.float64, keepdims=True)
    for shape in ((2, 2, 401, 300), ("n", 2, "h", "w")):
        (results,) = everywhere(lambda x: ops.average_pool(x, (401, 300)), [f32[shape]], [x])
        for backend, result in results.items():
            near(result, expected, expected, backend)
    (results,) = everywhere(
        lambda x: ops.average_pool(x, 100, 50, 20, count_include_pad=False), [f32[x.shape]], [x]
    )
    leaves = [leaf("x", f32[x.shape])]
    graph = Graph("one", {"y": ops.average_pool(leaves[0], 100, 50, 20, False, False)}, (*leaves,))
    exact = evaluate(graph, {"x": x}, precision=np.float64)["y"]
    assert exact.max() < 1001
    for backend, result in results.items():
        near(result, exact, exact, backend)
