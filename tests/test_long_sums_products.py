"""Products of matrices, convolutions and updates that sum many terms keep float32's digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.dims import substitute, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f32, i64
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.convolution.convolve import ConvWeightGradient
from tests.leaves import leaf
from tests.long_sum_checks import alike, everywhere, near, normal, positive, thousand


@pytest.mark.parametrize("data", [thousand, positive, normal])
@pytest.mark.parametrize(
    "left,right,product",
    [
        (("n", 3), ("n", 5), lambda a, b: gemm(a, b, transpose_a=True)),
        ((3, "n"), (5, "n"), lambda a, b: gemm(a, b, transpose_b=True)),
        (("n", 3), (5, "n"), lambda a, b: gemm(a, b, transpose_a=True, transpose_b=True)),
        ((3, "n"), ("n", 5), lambda a, b: gemm(a, b, 2.0, alpha=0.5, beta=-1.0)),
        ((3, "n"), ("n", 5), matmul),
        (("n",), ("n", 5), matmul),
        ((3, "n"), ("n",), matmul),
        (("n",), ("n",), matmul),
        ((2, 3, "n"), ("n", 5), matmul),
        (("n",), (2, "n", 5), matmul),
        ((2, 1, 3, "n"), (4, "n", 1), matmul),
        (("n", 3), (2, "n"), lambda a, b: ops.einsum("ni,jn->ij", a, b)),
        (("n", 2), (2, "n"), lambda a, b: ops.einsum("nb,bn->b", a, b)),
    ],
)
def test_products_with_many_to_sum(
    data: Callable[..., Array], left: Any, right: Any, product: Callable[..., Value]
) -> None:
    rng = np.random.default_rng(8)
    counts = (1, 3000, 300_007)
    feeds = [
        [data(rng, tuple(n if d == "n" else d for d in shape)) for shape in (left, right)]
        for n in counts
    ]
    found = everywhere(product, [f32[left], f32[right]], *feeds)
    exact = everywhere(
        product, [f32[left], f32[right]], *([np.abs(a) for a in each] for each in feeds)
    )
    leaves = [leaf("x0", f32[left]), leaf("x1", f32[right])]
    graph = Graph("exact", {"y": product(*leaves)}, tuple(leaves))
    for arrays, results, scales in zip(feeds, found, exact, strict=True):
        named = {"x0": arrays[0], "x1": arrays[1]}
        expected = evaluate(graph, named, precision=np.float64)["y"]
        near(results["onnxruntime"], expected, np.abs(scales["TorchScript"]) + 4, "onnxruntime")
        near(results["TorchScript"], expected, np.abs(scales["TorchScript"]) + 4, "torch", 1e-5)


@pytest.mark.parametrize("width,counted", [(3, 0), ("m", 1)])
def test_blocks_of_known_widths_are_cut_without_their_sizes(width: Any, counted: int) -> None:
    """Their number is inferred, where no other size may be zero."""
    a, b = leaf("a", f32["n", width]), leaf("b", f32["n", 5])
    model = to_model(Graph("product", {"y": gemm(a, b, transpose_a=True)}, (a, b)))
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    nodes = [node for branch in choice.attribute for node in branch.g.node]
    kinds = Counter(node.op_type for node in nodes)
    assert (kinds["Pad"], kinds["Div"]) == (2, counted)
    assert sum(x.name == "allowzero" for node in nodes for x in node.attribute) == counted


def test_gradients_of_a_layer_for_a_million_rows() -> None:
    rng = np.random.default_rng(9)
    x, g = thousand(rng, (1_000_003, 3)), alike(rng, (1_000_003, 2))

    def gradients(x: Value, w: Value, b: Value, g: Value) -> Value:
        gradients = vjp([x @ w + b], [w, b], [g])
        return ops.concatenate([gradients[0], ops.reshape(gradients[1], (1, 2))], 0)

    types = [f32["n", 3], f32[3, 2], f32[2], f32["n", 2]]
    wide = x.astype(np.float64), g.astype(np.float64)
    expected = np.concatenate([wide[0].T @ wide[1], wide[1].sum(0, keepdims=True)])
    weights = np.ones((3, 2), np.float32), np.ones(2, np.float32)
    (results,) = everywhere(gradients, types, [x, *weights, g])
    near(results["onnxruntime"], expected, expected, "onnxruntime")


@pytest.mark.parametrize("data", [thousand, positive, normal])
@pytest.mark.parametrize(
    "x,kernel,strides,pads,dilations,groups,sizes",
    [
        ((1, 3, 1000, 1000), (3, 3), (1, 1), (1,) * 4, (1, 1), 1, {}),
        (("n", 16, 28, 28), (3, 3), (1, 1), (1,) * 4, (1, 1), 1, {"n": 65}),
        (("n", 3, "h", "w"), (3, 3), (1, 1), (1,) * 4, (1, 1), 1, {"n": 3, "h": 99, "w": 101}),
        (("n", 3, "h", "w"), (3, 3), (1, 1), (1,) * 4, (1, 1), 1, {"n": 1, "h": 2, "w": 5000}),
        (("n", 4, "h", "w"), (3, 2), (2, 3), (1, 0, 2, 1), (2, 1), 2, {"n": 2, "h": 90, "w": 300}),
        (("n", 4, 20), (3,), (2,), (1, 1), (1,), 4, {"n": 317}),
        (("n", 4, "h"), (3,), (3,), (0, 1), (2,), 1, {"n": 2, "h": 50_003}),
        (
            ("n", 2, "h", 7, 9),
            (3, 2, 1),
            (2, 1, 1),
            (1, 1, 0, 0, 2, 0),
            (1, 1, 1),
            1,
            {"n": 3, "h": 501},
        ),
    ],
)
def test_gradients_at_the_weights_of_convolutions(
    data: Callable[..., Array],
    x: Any,
    kernel: Any,
    strides: Any,
    pads: Any,
    dilations: Any,
    groups: int,
    sizes: dict[str, int],
) -> None:
    op = ConvWeightGradient(kernel, strides, pads, dilations, groups)
    given = f32[x]
    gradient = f32[(x[0], 4, *op.window.results(given.shape[2:]))]
    rng = np.random.default_rng(19)
    named = {symbol(name): size for name, size in sizes.items()}
    feeds = [data(rng, tuple(substitute(d, named) for d in t.shape)) for t in (given, gradient)]
    leaves = [leaf("x0", given), leaf("x1", gradient)]
    graph = Graph("exact", {"y": op(*leaves)}, tuple(leaves))

    def exact(arrays: Sequence[Array]) -> Array:
        return evaluate(graph, dict(zip(("x0", "x1"), arrays, strict=True)), precision=np.float64)[
            "y"
        ]

    expected, scale = exact(feeds), exact([np.abs(a) for a in feeds])
    (results,) = everywhere(op, [given, gradient], feeds)
    for backend, result in results.items():
        near(result, expected, scale, backend, 2e-6)


def test_many_updates_of_one_place() -> None:
    """The gradient of a table of which few rows are used by many."""
    rng = np.random.default_rng(14)

    def gradient(table: Value, indices: Value, g: Value) -> Value:
        return vjp([ops.take(table, indices, 0)], [table], [g])[0]

    feeds = []
    for count in (0, 1, 1000, 300_007):
        indices = rng.integers(0, 3, count)
        feeds.append([np.zeros((3, 2), np.float32), indices, alike(rng, (count, 2))])
    found = everywhere(gradient, [f32[3, 2], i64["n"], f32["n", 2]], *feeds)
    for (_, indices, g), results in zip(feeds, found, strict=True):
        expected = np.zeros((3, 2))
        np.add.at(expected, indices, g.astype(np.float64))
        for backend, result in results.items():
            near(result, expected, expected, f"{backend} of {g.shape}", 6e-6)
