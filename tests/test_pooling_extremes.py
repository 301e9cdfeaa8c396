"""Maximum pooling of NaN, infinities and the ends of the range, with its gradients of two orders:
onnxruntime and TorchScript against numpy, and that against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type, f32, f64
from nncompile.ops import adaptive_max_pool, max_pool
from tests.backends import in_onnxruntime, script_of, session

WINDOWS: tuple[dict[str, Any], ...] = (
    {"kernel_size": (2, 2)},
    {"kernel_size": (2, 3)},
    {"kernel_size": (3, 3), "stride": 2, "padding": 1},
    {"kernel_size": (2, 2), "stride": 1, "padding": 1, "dilation": 2},
    {"kernel_size": (2, 2), "ceil_mode": True},
    {"kernel_size": (5, 5)},
    {"kernel_size": (3,), "stride": 1, "padding": 1},
    {"kernel_size": (2, 2, 2), "stride": (2, 1, 2), "padding": (0, 1, 0)},
)


def pooled(options: dict[str, Any], dtype: Any) -> Graph:
    """A pooling, its gradient, and the gradient of that."""
    space = [f"size{i}" for i in range(len(options["kernel_size"]))]
    x = apply(Input("x", dtype["n", 2, *space]))
    y = max_pool(x, **options)
    g, u = apply(Input("g", y.type)), apply(Input("u", x.type))
    (gradient,) = vjp([y], [x], [g])
    (picked,) = vjp([gradient], [g], [u])
    return Graph("pooled", {"y": y, "gradient": gradient, "picked": picked}, (x, g, u))


def fed(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(x.size)
    y = evaluate(Graph("y", {"y": graph.outputs["y"]}, graph.inputs[:1]), {"x": x})["y"]
    return {name: rng.normal(size=a.shape).astype(x.dtype) for name, a in (("g", y), ("u", x))} | {
        "x": x
    }


def drawn(dtype: Any, rank: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Normal numbers, a share of them replaced by what a kernel may lose."""
    largest = np.finfo(dtype.numpy).max
    kinds = rng.choice([np.nan, np.inf, -np.inf, -largest, largest, 0.0], 3)
    shape = (2, 2, *rng.integers(5, 9, rank))
    special = rng.choice(kinds, shape)
    return np.where(rng.random(shape) < share, special, rng.normal(size=shape)).astype(dtype.numpy)


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("options", WINDOWS)
def test_onnxruntime_and_torch_pool_special_values_as_numpy(
    dtype: Any, options: dict[str, Any]
) -> None:
    graph = pooled(options, dtype)
    runs = session(to_model(graph)), script_of(graph)
    rng = np.random.default_rng(1)
    for share in (0.02, 0.1, 0.5, 1.0) * 2:
        feeds = fed(graph, drawn(dtype, len(options["kernel_size"]), share, rng))
        expected = evaluate(graph, feeds)
        for results in (run(feeds) for run in runs):
            for name, array in expected.items():
                np.testing.assert_allclose(results[name], array, 1e-5, 1e-5, err_msg=name)


def _run(y: Value, x: Value, array: np.ndarray) -> np.ndarray:
    graph = Graph("pooled", {"y": y}, (x,))
    result = in_onnxruntime(graph, {"x": array})["y"]
    np.testing.assert_array_equal(result, evaluate(graph, {"x": array})["y"])
    return result


@pytest.mark.parametrize("place", range(9))
def test_nan_anywhere_in_a_window_is_its_result(place: int) -> None:
    x = apply(Input("x", f32["n", 1, "h", "w"]))
    array = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    array.reshape(-1)[place] = np.nan
    assert np.isnan(_run(max_pool(x, 3), x, array)).all()


def test_a_window_of_minus_infinity_is_minus_infinity() -> None:
    for type_ in (f32["n", 1, "w"], f64["n", 1, "w"], f32["n", 1, "w", 2]):
        x = apply(Input("x", type_))
        array = np.full((1, 1, *[4, 2][: x.rank - 2]), -np.inf, type_.dtype.numpy)
        assert (_run(max_pool(x, 2, padding=1), x, array) == -np.inf).all()


def test_adaptive_windows_of_uneven_sizes_keep_nan() -> None:
    x = apply(Input("x", Type(f32, (1, 1, 7))))
    array = np.asarray([[[1, np.nan, 3, -np.inf, -np.inf, -np.inf, 2]]], np.float32)
    found = _run(adaptive_max_pool(x, 5), x, array)
    np.testing.assert_array_equal(found, [[[np.nan, np.nan, 3, -np.inf, 2]]])
