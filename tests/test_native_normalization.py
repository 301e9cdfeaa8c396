"""Normalizations and their gradients as calls of native kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.backends.onnx import check, to_model
from nncompile.ir.graph import Graph, Input, items
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Op
from nncompile.ir.types import Type, f32
from nncompile.ops.normalization.batch import BatchNorm
from nncompile.ops.normalization.gradients import BatchNormGradient, LayerNormGradient
from nncompile.ops.normalization.layer import LayerNorm
from tests.test_native import needs_library
from tests.test_native_products import threaded

SHAPES = {
    "rows": (7, 19),
    "wide rows": (70, 3, 257),
    "one": (1, 1),
    "nothing": (0, 4),
    "columns": (130, 33),
    "images": (5, 18, 3, 7),
    "one example": (1, 3, 40),
}


def case(op: Op, shape: tuple[int, ...]) -> tuple[Graph, dict[str, Any]]:
    """The op on numbers far from 0; what stands for 1/√v is positive."""
    kind = type(op)
    of_rows = kind in (LayerNorm, LayerNormGradient)
    part = shape[-1:] if of_rows else shape[1:2]
    statistic = (*shape[:-1], 1) if of_rows else part
    shapes = {
        LayerNorm: {"x": shape, "scale": part, "bias": part},
        LayerNormGradient: {"g": shape, "x": shape, "mean": statistic, "inverse": statistic},
        BatchNorm: dict.fromkeys(("x", "scale", "bias", "mean", "variance"), part),
        BatchNormGradient: dict.fromkeys(("g", "x", "scale", "mean", "inverse"), part),
    }[kind]
    shapes |= {name: shape for name in ("g", "x") if name in shapes}
    if kind is LayerNormGradient:
        shapes["scale"] = part
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(s, np.float32) for name, s in shapes.items()}
    for name in ("inverse", "variance"):
        if name in feeds:
            feeds[name] = np.abs(feeds[name]) + np.float32(0.5)
    feeds["x"] = feeds["x"] + np.float32(3)
    leaves = tuple(Input(name, Type(f32, x.shape))() for name, x in feeds.items())
    results = items(op(*leaves))
    return Graph("case", {f"y{i}": y for i, y in enumerate(results)}, leaves), feeds


OPS = (LayerNorm(1e-3), LayerNormGradient(True), BatchNorm(0.1, 1e-3), BatchNormGradient())


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_a_normalization_is_a_call(op: Op) -> None:
    graph, _ = case(op, (5, 3))
    proto = to_model(graph, kernels=True)
    check(proto)
    assert [node.op_type for node in proto.graph.node] == [type(op).__name__]


@needs_library
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_the_kernel_normalizes(op: Op, shape: str) -> None:
    graph, feeds = case(op, SHAPES[shape])
    proto = onnx.load_from_string(to_model(graph, kernels=True).SerializeToString())
    found = threaded(proto, feeds, 1)
    double = {name: x.astype(np.float64) for name, x in feeds.items()}
    for y, expected in zip(found, evaluate(graph, double, np.float64).values(), strict=True):
        scale = float(np.abs(expected).max(initial=1))
        np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5 * scale)
    for y, other in zip(found, threaded(proto, feeds, 3), strict=True):
        np.testing.assert_array_equal(y, other)


@needs_library
def test_little_cancels_where_numbers_are_far_from_0() -> None:
    """A mean of 10⁴ is rounded by half of 10⁻³; what is added up for it adds nothing to that."""
    graph, feeds = case(LayerNorm(1e-3), (3, 40_000))
    feeds["x"] = feeds["x"] + np.float32(1e4)
    feeds["scale"][:] = 1
    (found, *_) = threaded(to_model(graph, kernels=True), feeds, 1)
    double = {name: x.astype(np.float64) for name, x in feeds.items()}
    (expected, *_) = evaluate(graph, double, np.float64).values()
    np.testing.assert_allclose(found, expected, rtol=0, atol=7e-4)


@needs_library
@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_what_is_not_a_number_stays_in_its_part(op: Op) -> None:
    graph, feeds = case(op, (4, 18))
    feeds["x"][2, 17] = np.nan
    proto = to_model(graph, kernels=True)
    with np.errstate(all="ignore"):
        expected = evaluate(graph, feeds).values()
    for y, other in zip(threaded(proto, feeds, 1), expected, strict=True):
        np.testing.assert_array_equal(np.isnan(y), np.isnan(other))
