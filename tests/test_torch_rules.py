"""Rules for graphs that are lowered to torch: what they make, what they leave, and the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from nncompile.elementwise import relu
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f32, f64
from nncompile.ops import softmax, swapaxes
from nncompile.ops.contraction.attention import Attention
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul

pytest.importorskip("torch")

from nncompile.backends.torchscript import source
from nncompile.backends.torchscript.rules import native
from tests.leaves import leaf

X, W, B = leaf("x", f32["n", "t", 3]), leaf("w", f32[3, 5]), leaf("b", f32[5])
Q, K = leaf("q", f32["n", 2, "t", 4]), leaf("k", f32["n", 2, "s", 4])
V, BIAS = leaf("v", f32["n", 2, "s", 6]), leaf("bias", f32["t", "s"])
SIZES = {"n": 2, "t": 3, "s": 5}


def made(*values: Value) -> tuple[Graph, list[type]]:
    """The graph after the rules, checked to compute the same, and its ops."""
    graph = Graph("test", {f"y{i}": v for i, v in enumerate(values)})
    after = native(graph)
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.standard_normal([SIZES.get(str(d), d) for d in v.shape])
        for name, v in graph.leaves.items()
    }
    before, now = (evaluate(g, feeds, np.float64) for g in (graph, after))
    for name, value in graph.outputs.items():
        assert after.outputs[name].type == value.type
        np.testing.assert_allclose(now[name], before[name], rtol=1e-13, atol=1e-14)
    again = native(after)
    assert all(again.outputs[name] is v for name, v in after.outputs.items())
    return after, [type(v.op) for v in after.nodes]


def test_a_bias_after_products_with_one_matrix_is_a_gemm_of_all_rows() -> None:
    graph, op_types = made(relu(X @ W + B))
    assert Gemm in op_types and MatMul not in op_types
    assert "torch.addmm(b, " in source(graph)


def scores(bias: Value | None) -> Value:
    product = Q @ swapaxes(K, -1, -2)
    return product if bias is None else product + bias


@pytest.mark.parametrize("bias", [None, BIAS, leaf("one", f32["n", 1, 1, "s"])])
def test_a_softmax_between_two_products_is_attention(bias: Value | None) -> None:
    graph, op_types = made(softmax(scores(bias)) @ V)
    assert Attention in op_types and MatMul not in op_types
    assert "scaled_dot_product_attention(q, k" in source(graph)


def test_weights_that_are_needed_are_kept() -> None:
    weights = softmax(scores(BIAS))
    assert Attention not in made(weights @ V, weights)[1]


def test_a_softmax_along_the_queries_is_no_attention() -> None:
    square = leaf("square", f32["n", 2, "t", 4])
    weights = softmax(Q @ swapaxes(square, -1, -2), axis=-2)
    assert Attention not in made(weights @ square)[1]


def test_a_bias_that_makes_more_scores_is_left() -> None:
    """The kernel would not broadcast queries and keys to it."""
    more = leaf("more", f32[7, 1, 2, "t", "s"])
    weights = softmax(scores(more))
    assert Attention not in made(weights @ V)[1]


def test_leading_axes_that_broadcast_are_left() -> None:
    alone = leaf("alone", f32[1, 2, "s", 6])
    assert Attention not in made(softmax(scores(None)) @ alone)[1]


def test_double_stays_double() -> None:
    q = leaf("q", f64["n", "t", 4])
    graph, op_types = made(softmax(q @ swapaxes(q, -1, -2)) @ q)
    assert Attention in op_types
    assert graph.outputs["y0"].type == f64["n", "t", 4]
