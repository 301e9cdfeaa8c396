"""Float64 matrix products in onnxruntime are right to the last places, whatever multiplies them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f64, i64
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, u32
from nncompile.ops import layer_norm
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.loops.scan import scan
from nncompile.ops.random.generator import Dropout
from nncompile.passes import optimize
from tests.backends import in_onnxruntime, session
from tests.gradient_checks import leaf

RANDOM = np.random.default_rng(0)
A, B, C, ROW = leaf("a", f64["n", 3]), leaf("b", f64[3, 4]), leaf("c", f64[4]), leaf("row", f64[3])
Q, K, V = (leaf(name, f64["n", "t", 3]) for name in "qkv")
BITS = leaf("bits", u32["n", 4])
TURN = RANDOM.normal(size=(3, 3))
TAU = Input("tau", f64[()], "parameter")()
ONE = Input("one", f64[1], "parameter")()
WEIGHTS = {"tau": np.asarray(0.7), "one": np.asarray([0.3])}
FEEDS: dict[str, Array] = {
    "a": RANDOM.normal(size=(5, 3)),
    "b": RANDOM.normal(size=(3, 4)),
    "c": RANDOM.normal(size=4),
    "row": RANDOM.normal(size=3),
    "bits": RANDOM.integers(0, 2**32, (5, 4)).astype(np.uint32),
    **{name: RANDOM.normal(size=(2, 5, 3)) for name in "qkv"},
}


def turned(x: Value) -> Value:
    return dsl.swapaxes(x, -1, -2)


def attention_gradient() -> Value:
    return dsl.grad((dsl.scaled_dot_product_attention(Q, K, V) ** 2).sum(), K)  # type: ignore[no-any-return]


USES: dict[str, Callable[[], Value]] = {
    "attention": lambda: dsl.scaled_dot_product_attention(Q, K, V),
    "its gradient": attention_gradient,
    "a factor after": lambda: (Q @ turned(K)) * 0.1,
    "a divisor after": lambda: (Q @ turned(K)) / 3,
    "a factor and a divisor before": lambda: (Q / 7) @ turned(0.3 * K),
    "a value": lambda: (Q @ turned(K)) * dsl.const(0.1, f64),
    "a weight": lambda: (Q @ turned(K)) * TAU,
    "a weight of one element": lambda: (Q @ turned(K)) / ONE,
    "a vector on the left": lambda: (0.1 * ROW) @ (0.3 * B),
    "a vector on the right": lambda: (A @ (0.1 * ROW)) * 0.3,
    "dropout": lambda: Dropout(0.1)(A @ B, BITS),
    "a sum": lambda: 0.1 * (A @ B) + 0.3 * C,
    "a gemm": lambda: gemm(A, B, C, alpha=0.1, beta=0.3),
    "a gemm that is transposed": lambda: gemm(
        B, A, transpose_a=True, transpose_b=True, alpha=1e-300
    ),
    "a gemm with a matrix": lambda: gemm(A, B, A @ B, beta=1e300),
    "an update": lambda: B - 0.1 * (A.T @ (A @ B)),
    "a loop of constants": lambda: scan(
        lambda c, x: (c @ TURN) * 0.1 + x, dsl.const(np.eye(3), f64), dsl.const(TURN[None] * 0.7)
    ),
    "after a loop of constants": lambda: (
        (scan(lambda c, x: c + x, dsl.const(TURN, f64), dsl.const(TURN[None] * 0.7)) @ TURN) * 0.1
    ),
    "constants alone": lambda: (dsl.const(TURN, f64) @ TURN) * 0.1,
    "a layer normalization": lambda: layer_norm(A * 1e-3, eps=1e-6),
    "its gradient, too": lambda: dsl.grad((layer_norm(A * 1e-3, ROW, eps=1e-6) ** 3).sum(), A),
    "a loop": lambda: scan(lambda c, x: c + turned(0.1 * x) @ (0.3 * x), 0.0 * (A.T @ A), Q * 1),
}


def ran(y: Value) -> tuple[list[str], Array]:
    """The operators of the optimized graph, and its result after onnxruntime's own optimizing."""
    known = Graph("use", {"y": y}).leaves
    inputs = {n: v for n, v in known.items() if n not in WEIGHTS}
    graph = optimize(Graph("use", {"y": y}, tuple(inputs.values())))
    weights: Any = {n: x for n, x in WEIGHTS.items() if n in known}
    proto = to_model(graph, initializers=weights)
    return [node.op_type for node in proto.graph.node], session(proto)(FEEDS)["y"]


@pytest.mark.parametrize("use", USES)
def test_no_number_beside_a_product_is_rounded_to_float32(use: str) -> None:
    y = USES[use]()
    exact = evaluate(y, {n: {**FEEDS, **WEIGHTS}[n] for n in Graph("use", {"y": y}).leaves})
    _, found = ran(y)
    assert found.dtype == np.float64
    assert np.abs(found - exact).max() <= 1e-14 * np.abs(exact).max()


def test_numbers_that_float32_has_are_left_to_the_runtime() -> None:
    operators, found = ran(0.5 * (A @ B) - 3 * C)
    assert operators == ["Gemm"]
    np.testing.assert_allclose(found, 0.5 * (FEEDS["a"] @ FEEDS["b"]) - 3 * FEEDS["c"], 1e-14)
    operators, _ = ran((Q / 4) @ turned(V * 2))
    # The transposition stays apart, for before 1.24 onnxruntime joins it with no kernel for that.
    assert {"Mul", "Transpose", "MatMul"} <= set(operators)
    assert "FusedMatMul" not in operators


def test_what_is_known_late_stays_on_the_device_of_a_number_that_is_given() -> None:
    """A size is taken in main memory, and not every runtime has `Size`."""
    step = leaf("step", i64[()])
    y = 0.1 * (A @ B) + dsl.minimum(step, 0).astype(f64)
    graph = optimize(Graph("use", {"y": y}))
    proto = to_model(graph)
    assert "Size" not in {node.op_type for node in proto.graph.node}
    feeds = {"a": FEEDS["a"], "b": FEEDS["b"], "step": np.array(3)}
    found, expected = session(proto)(feeds)["y"], 0.1 * (FEEDS["a"] @ FEEDS["b"])
    assert np.abs(found - expected).max() <= 1e-14 * np.abs(expected).max()


def test_of_float32_nothing_is_added() -> None:
    a, b = (x.astype(dsl.f32) for x in (A, B))
    assert ran(0.1 * (a @ b))[0] == ["Cast", "Cast", "Gemm"]


@pytest.mark.parametrize("tiny", [1e-46, 1e-300])
def test_numbers_below_those_of_float32_are_added(tiny: float) -> None:
    """onnxruntime drops a sum with a constant that it reads as float32's 0."""
    x = leaf("x", f64["n"])
    results = {
        "sum": (abs(x) + tiny) * 1e40,
        "difference": (abs(x) - tiny) * 1e40,
        "turned": (tiny - abs(x)) * 1e40,
    }
    graph = Graph("tiny", results)
    feeds = {"x": np.array([0.0, 1e-60])}
    found = in_onnxruntime(graph, feeds)
    for name, expected in evaluate(graph, feeds).items():
        assert expected.any()
        np.testing.assert_allclose(found[name], expected, 1e-14, 0, err_msg=name)


def test_transpositions_that_onnxruntime_moves() -> None:
    """It moves the first one behind the exponential, where the second one undoes it, and joins it
    with the product: of float64 there is no such kernel before 1.24."""
    x = leaf("x", f64["n", "n"])
    z = dsl.exp(turned(x))
    graph = Graph("moved", {"y": x @ z + turned(z) @ x})
    feeds = {"x": RANDOM.normal(size=(5, 5))}
    found = in_onnxruntime(graph, feeds)["y"]
    np.testing.assert_allclose(found, evaluate(graph, feeds)["y"], 1e-13)
