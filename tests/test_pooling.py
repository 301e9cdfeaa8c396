"""Pooling against torch: values, gradients with their ties, sizes that only the data tell."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import (
    AdaptiveAveragePool2d,
    AdaptiveMaxPool1d,
    AveragePool1d,
    AveragePool2d,
    GlobalMaxPool,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    f32,
    i64,
)
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ops import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
)
from tests.backends import graph_of, in_onnxruntime
from tests.everywhere import check_against_torch, torch_function, with_gradients
from tests.layer_checks import model_of
from tests.leaves import leaf

# Those that both pools have.
WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
]
MAXIMA: list[dict[str, Any]] = [
    *WINDOWS,
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)},
    {"kernel_size": 5},
    {"kernel_size": 1},
]
AVERAGES: list[dict[str, Any]] = [
    *WINDOWS,
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": (2, 3), "stride": (3, 1)},
    {"kernel_size": 3, "padding": 1, "ceil_mode": True, "count_include_pad": False},
]


@pytest.mark.parametrize(
    ("pool", "name", "options"),
    [
        *((max_pool, "max_pool2d", options) for options in MAXIMA),
        *((average_pool, "avg_pool2d", options) for options in AVERAGES),
    ],
)
def test_pools_are_torchs(pool: Any, name: str, options: dict[str, Any]) -> None:
    check_against_torch(
        lambda x: pool(x, **options),
        torch_function(name, **options),
        ("n", 2, "h", "w"),
        (2, 2, 6, 6),
        (1, 2, 7, 10),
        (3, 2, 5, 11),
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_other_numbers_of_axes(rank: int) -> None:
    sizes = [(2, 3, *(6, 5, 4)[:rank]), (1, 3, *(9, 4, 7)[:rank])]
    for window in ((2, 2, 0), (3, 2, 1)):
        for pool, name in ((max_pool, "max_pool"), (average_pool, "avg_pool")):
            check_against_torch(
                lambda x, pool=pool, window=window: pool(x, *window),
                torch_function(f"{name}{rank}d", *window),
                ("n", 3, *"dhw"[:rank]),
                *sizes,
            )


@pytest.mark.parametrize("size", [1, 3, (2, 5), (7, 1)])
@pytest.mark.parametrize("space", [("h", "w"), (12, 10), (7, 11)])
def test_adaptive_pools_are_torchs(size: Any, space: Any) -> None:
    """Windows of several sizes, overlapping ones and ones that repeat elements."""
    fixed = all(isinstance(n, int) for n in space)
    sizes = [(2, 2, *space)] if fixed else [(2, 2, 7, 10), (1, 2, 3, 4), (3, 2, 14, 5)]
    for pool, name in (
        (adaptive_average_pool, "adaptive_avg_pool2d"),
        (adaptive_max_pool, "adaptive_max_pool2d"),
    ):
        check_against_torch(
            lambda x, pool=pool: pool(x, size),
            torch_function(name, size),
            ("n", 2, *space),
            *sizes,
        )


def test_even_adaptive_pools_are_plain_ones() -> None:
    x = leaf("x", f32["n", 2, "8*h", 12])
    assert adaptive_average_pool(x, ("2*h", 3)) is average_pool(x, 4)
    assert adaptive_max_pool(x, ("h", 12)) is max_pool(x, (8, 1))
    assert adaptive_average_pool(x, (None, 12)).shape == x.shape


def test_global_pools_are_means_and_maxima() -> None:
    x = leaf("x", f32["n", 3, "h", "w"])
    data = {"x": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)}
    results = evaluate([global_average_pool(x), global_max_pool(x, keepdims=True)], data)
    np.testing.assert_allclose(results[0], data["x"].mean((2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(results[1], data["x"].max((2, 3), keepdims=True))


def test_same_padding_is_kerass() -> None:
    """⌈n/stride⌉ windows; the odd element of padding comes last, and padding does not count."""
    data = np.arange(1.0, 6.0, dtype=np.float32).reshape(1, 1, 5)
    x = leaf("x", f32[1, 1, "n"])
    for strides, expected_max, expected_mean in (
        (1, [2, 3, 4, 5, 5], [1.5, 2.5, 3.5, 4.5, 5]),
        (2, [2, 4, 5], [1.5, 3.5, 5]),
    ):
        pools = {"max": max_pool, "mean": average_pool}
        graph = graph_of({name: pool(x, 2, strides, "same") for name, pool in pools.items()})
        for result in (evaluate(graph, {"x": data}), in_onnxruntime(graph, {"x": data})):
            np.testing.assert_array_equal(result["max"][0, 0], expected_max)
            np.testing.assert_array_equal(result["mean"][0, 0], expected_mean)


def test_infinite_elements() -> None:
    """A gradient does not leak to what lies beside an infinite element, or an infinite gradient."""
    graph = with_gradients(lambda v: max_pool(v, 2), [f32[1, 1, 4]])
    feeds = {
        "x0": np.array([[[1, np.inf, np.inf, 1]]], np.float32),
        "g": np.array([[[np.inf, 2]]], np.float32),
        "u0": np.zeros((1, 1, 4), np.float32),
    }
    expected = [[[0, np.inf, 2, 0]]]
    np.testing.assert_array_equal(evaluate(graph, feeds)["dx0"], expected)
    np.testing.assert_array_equal(in_onnxruntime(graph, feeds)["dx0"], expected)


def nodes(graph: Graph) -> list[str]:
    return [node.op_type for node in to_model(graph).graph.node]


def test_nodes_of_the_gradients() -> None:
    """Each in its fastest form: no indices of maxima where windows do not overlap."""

    def emitted(y: Callable[[Value], Value]) -> list[str]:
        x = leaf("x", f32["n", 4, "2*h", "2*w"])
        return nodes(Graph("gradient", {"dx": grad(y(x).sum(), x)}, (x,)))

    parted = emitted(lambda x: max_pool(x, 2))
    assert parted.count("MaxPool") == 1 and parted.count("Resize") == 2
    assert parted.count("Slice") == 3 and "ScatterElements" not in parted
    assert "ScatterElements" in emitted(lambda x: max_pool(x, 3, 2))
    assert "ConvTranspose" not in emitted(lambda x: average_pool(x, 2))
    assert "ConvTranspose" in emitted(lambda x: average_pool(x, 3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: x >> MaxPool2d(9),
            r"MaxPool2d: a window of 9 does not fit the height \(axis 2\) of size 8",
        ),
        (lambda x: x >> MaxPool2d(2, dilation=8), "MaxPool2d: a window of 9 does not fit"),
        (lambda x: x >> AveragePool1d(2), r"AveragePool1d needs \[batch, channels, length\]"),
        (lambda x: x >> MaxPool3d(2), r"needs \[batch, channels, depth, height, width\]"),
        (lambda x: x >> MaxPool2d((2, 2, 2)), "the kernel_size must be one number or 2"),
        (lambda x: x >> MaxPool2d(0), "the kernel_size must be one number or 2, at least 1"),
        (lambda x: x >> AveragePool2d(2.5), "the kernel_size must be whole numbers, got 2.5"),
        (
            lambda x: x >> AveragePool2d(2, padding="full"),
            'padding must be a number, "same" or "valid"',
        ),
        (lambda x: x >> AveragePool2d(2, padding=-1), "the padding must be one number or 2"),
        (
            lambda x: x >> MaxPool2d(2, padding=2),
            "MaxPool2d: a padding of 2 is more than half of a",
        ),
        (lambda x: x >> AveragePool2d((3, 2), padding=(1, 2)), "padding=1 at most"),
        (
            lambda x: x[..., 0] >> MaxPool1d(1, padding=1),
            "MaxPool1d: a padding of 1 .* kernel of 1",
        ),
        (lambda x: max_pool(x, 3, padding=2), "max_pool: a padding of 2 is more than half"),
        (lambda x: average_pool(x, 3, padding=2), "average_pool: a padding of 2 is more than half"),
        (
            lambda x: x >> MaxPool2d(2, ceil_mode=3),
            "ceil_mode of MaxPool2d must be True or False, got 3",
        ),
        (lambda x: (x > 0) >> MaxPool2d(2), "MaxPool2d needs numbers, x is bool"),
        (lambda x: x.astype(i64) >> AveragePool2d(2), "AveragePool2d needs floating numbers"),
        (lambda x: x >> MaxPool2d(2, padding=((1, 0),)), r"not a pair \(before, after\) for each"),
        (
            lambda x: x >> MaxPool2d(2, padding=((1, 0), (0, 2))),
            "a padding of 2 is all of a kernel",
        ),
        (
            lambda x: x >> MaxPool2d(2, padding=((1, 0), (0, -1))),
            "before and after an axis must be",
        ),
        (
            lambda x: x >> MaxPool2d((2, 12), padding=((0, 0), (1, 2))),
            r"12 does not fit the width \(axis 3\) of size 8 with 1 padded before and 2 after it",
        ),
        (lambda x: x >> AdaptiveAveragePool2d((2, 2, 2)), "AdaptiveAveragePool2d needs"),
        (lambda x: x >> AdaptiveMaxPool1d(2), "AdaptiveMaxPool1d needs"),
        (lambda x: x >> AdaptiveAveragePool2d(0), "output_size must be at least 1"),
        (lambda x: x[0, 0] >> GlobalMaxPool(), "global_max_pool needs"),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        model_of(make, x=f32["n", 3, 8, 8])


def test_paddings_are_refused_where_torch_refuses_them() -> None:
    """In one, two and three axes; at the declaration of the layer, before there is an x."""
    torch = pytest.importorskip("torch")
    layers: list[Any] = [MaxPool1d, MaxPool2d, MaxPool3d, AveragePool1d, AveragePool2d]
    for rank, layer in zip((1, 2, 3, 1, 2), layers, strict=True):
        is_max = layer.__name__.startswith("Max")
        theirs = getattr(torch.nn.functional, f"{'max' if is_max else 'avg'}_pool{rank}d")
        for kernel, padding, dilation in itertools.product((1, 2, 3, 4), range(5), (1, 2)):
            if dilation > 1 and not is_max:
                continue
            more = {"dilation": dilation} if is_max else {}
            try:
                theirs(torch.zeros(1, 1, *(9,) * rank), kernel, padding=padding, **more)
            except RuntimeError:
                with pytest.raises(CompileError, match=f"{layer.__name__}: a padding of {padding}"):
                    layer(kernel, padding=padding, **more)
            else:
                layer(kernel, padding=padding, **more)
