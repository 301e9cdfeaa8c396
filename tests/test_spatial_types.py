"""Functions of images in element types other than float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, bf16, f16, i8, i16, u8, u16, u64
from nncompile.ops import ones_like
from tests.backends import script_of, session
from tests.leaves import leaf

Functions = dict[str, Callable[[Value], Value]]
ALL = (0, 0)
FUNCTIONS: Functions = {
    "pad wrap": lambda x: dsl.pad(x, (ALL, ALL, (2, 2), (1, 1)), "wrap"),
    "pad reflect": lambda x: dsl.pad(x, (ALL, ALL, (2, 2), (1, 1)), "reflect"),
    "max_pool": lambda x: dsl.max_pool(x, 2),
    "max_pool uneven": lambda x: dsl.max_pool(x, 3, 2, ((1, 0), (0, 1))),
    "indices": lambda x: dsl.max_pool_with_indices(x, 3, 2, 1)[1],
    "indices uneven": lambda x: dsl.max_pool_with_indices(x, 3, 2, ((1, 0), (0, 1)))[1],
    "adaptive_max_pool": lambda x: dsl.adaptive_max_pool(x, (3, 2)),
    "global_max_pool": dsl.global_max_pool,
    "unfold": lambda x: dsl.unfold(x, 2, padding=1),
    "fold": lambda x: dsl.fold(dsl.unfold(x, 2, padding=1), ("h", "w"), 2, padding=1),
    "pixel_shuffle": lambda x: dsl.pixel_unshuffle(dsl.pixel_shuffle(x, 2), (2, 1)),
}
REAL: Functions = {
    "average dilated": lambda x: dsl.average_pool(x, 2, 2, 1, dilation=2),
    "average uneven": lambda x: dsl.average_pool(x, 3, 2, ((1, 0), (0, 1)), False, False),
    "cubic": lambda x: dsl.resize(x, (7, 3), mode="cubic"),
    "antialias": lambda x: dsl.resize(x, (2, 3), mode="linear", antialias=True),
    "align_corners": lambda x: dsl.resize(x, (7, 3), mode="linear", align_corners=True),
    "nearest-exact": lambda x: dsl.resize(x, (7, 3), mode="nearest-exact"),
    "area": lambda x: dsl.resize(x, (2, 3), mode="area"),
    "lp_pool": lambda x: dsl.lp_pool(dsl.abs(x) + 0.5, 3, 2),
    "local_response_norm": lambda x: dsl.local_response_norm(x, 3),
    "max_unpool": lambda x: dsl.max_unpool(
        *dsl.max_pool_with_indices(x, 2), 2, output_size=("h", "w")
    ),
    "circular": lambda x: dsl.conv(
        x, dsl.const(np.ones((2, 4, 3, 3)), x.dtype), padding=1, padding_mode="circular"
    ),
}


@pytest.mark.parametrize("dtype", [u8, i8, u16, i16, u64, f16, bf16], ids=str)
def test_all_types_are_right_everywhere(dtype: DType) -> None:
    x = leaf("x", dtype["n", 4, "h", "w"])
    functions = FUNCTIONS | REAL if dtype.is_float else FUNCTIONS
    outputs = {name: function(x) for name, function in functions.items()}
    if dtype.is_float:
        real = {name: y for name, y in outputs.items() if y.dtype.is_float}
        outputs |= {f"gradient of {n}": vjp([y], [x], [ones_like(y)])[0] for n, y in real.items()}
    graph = Graph("types", {name.replace(" ", "_"): y for name, y in outputs.items()}, (x,))
    rng = np.random.default_rng(0)
    shape = (2, 4, 5, 6)
    drawn = rng.normal(size=shape) if dtype.is_float else rng.integers(0, 120, shape)
    feeds = {"x": drawn.astype(dtype.numpy)}
    expected = evaluate(graph, feeds, precision=np.float64 if dtype.is_float else None)
    found = session(to_model(graph))(feeds, expected)
    for results in (found, script_of(graph)(feeds)):
        for name, result in results.items():
            assert result.dtype == graph.outputs[name].dtype.numpy
            _check(result, expected[name], graph.outputs[name].dtype, name)


def _check(result: Any, expected: Any, dtype: DType, name: str) -> None:
    if not dtype.is_float:
        np.testing.assert_array_equal(result, expected, err_msg=name)
        return
    scale = max(1.0, np.abs(expected).max())
    away = np.abs(result.astype(np.float64) - expected).max()
    assert away <= 4 * dtype.eps * scale, f"{name}: {away / dtype.eps / scale} eps"


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
def test_places_are_told_apart(dtype: DType) -> None:
    """Among thousands of elements, which no number of 16 bits counts."""
    size = 5000
    x, theta = leaf("x", dtype[1, 1, "n"]), leaf("theta", dtype[1, 1, 2])
    data = (np.arange(size) % 7).astype(dtype.numpy).reshape(1, 1, size)
    places = np.linspace(-1, 1, 9).astype(dtype.numpy).reshape(1, 9, 1)
    grid = leaf("grid", dtype[1, "p", 1])
    sampled = dsl.grid_sample(x, grid)
    moved = dsl.affine_grid(theta, (1, 1, "n"))
    graph = Graph("places", {"sampled": sampled, "moved": moved}, (x, grid, theta))
    feeds = {"x": data, "grid": places, "theta": np.array([[[1, 0]]], dtype.numpy)}
    found = session(to_model(graph))(feeds, {"sampled": (1, 1, 9), "moved": (1, size, 1)})
    exact = ((places.astype(np.float64) + 1) * size - 1) / 2
    row = np.concatenate([[0], data[0, 0].astype(np.float64), [0]])
    expected = np.interp(exact[0, :, 0] + 1, np.arange(size + 2), row)
    for results in (found, script_of(graph)(feeds)):
        np.testing.assert_allclose(
            results["sampled"][0, 0].astype(np.float64), expected, atol=8 * dtype.eps
        )
        middles = (2 * np.arange(size) + 1) / size - 1
        np.testing.assert_allclose(
            results["moved"][0, :, 0].astype(np.float64), middles, atol=dtype.eps
        )
