"""Gradients of functions of values against central differences, and onnxruntime against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.autodiff.grad import grad, vjp
from nncompile.ir.dims import dim
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, dtype_of
from nncompile.ops import sum as total
from tests.backends import in_onnxruntime
from tests.differences import check_difference
from tests.leaves import leaf
from tests.op_checks import in_double
from tests.tolerances import assert_close


def check_gradient(function: Callable[..., Value], *points: Any, order: int = 2) -> None:
    """The gradients of `function` at arrays of f64, and those of its gradients, are differences."""
    rng = np.random.default_rng(0)
    arrays = [np.asarray(p, np.float64) for p in points]
    leaves = [leaf(f"x{i}", dtype_of(a)[a.shape]) for i, a in enumerate(arrays)]
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    outputs = [function(*leaves)]
    for _ in range(order):
        weights = [rng.uniform(-1, 1, y.shape) for y in outputs]
        gradients = vjp(outputs, leaves, weights)
        check_difference(outputs, gradients, weights, leaves, feeds, rng)
        outputs = gradients


def gradient_at(function: Callable[[Value], Value], point: Any) -> Array:
    """The gradient of Σ function at one point."""
    array = np.asarray(point, np.float64)
    x = leaf("x", dtype_of(array)[array.shape])
    return evaluate(grad(total(function(x)), x), {"x": array})  # type: ignore[no-any-return]


def check_runtime(function: Callable[..., Value], *arrays: Array) -> None:
    """onnxruntime computes what numpy does, every other size than one given by a name."""
    leaves = []
    for i, a in enumerate(arrays):
        # Equal sizes have equal names; one broadcasts only where it is known to be one.
        names = [1 if size == 1 else dim(f"d{size}") for size in a.shape]
        leaves.append(leaf(f"x{i}", dtype_of(a)[tuple(names)]))
    y = function(*leaves)
    graph = Graph("test", {"y": y}, tuple(leaves))
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    expected = in_double(graph, feeds)
    actual = in_onnxruntime(graph, feeds, expected)
    assert_close(actual["y"], expected["y"], y.dtype.name)
