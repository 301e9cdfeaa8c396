"""What a gradient's mask leaves out is 0 in onnxruntime, also where the gradient is infinite or NaN
there; what it keeps passes bit for bit. The mask is a product unless that would be wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import sympy as sp

from dsl import celu, elu, leaky_relu, selu
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.backends.onnx.protos import all_nodes
from nncompile.elementwise import clip, maximum, relu, where
from nncompile.ir.dims import Dim, dim, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32, f64, u32
from nncompile.ops import max_pool, ones_like
from nncompile.ops.core.finite import CHOSEN
from nncompile.ops.random.generator import RANGE, Dropout
from nncompile.passes import optimize
from tests.backends import session
from tests.leaves import leaf

FUNCTIONS: dict[str, Callable[[Value, Value], Value]] = {
    "relu": lambda x, bits: relu(x),
    "clip": lambda x, bits: clip(x, -0.5, 1.0),
    "maximum": lambda x, bits: maximum(x, 0.25),
    "hard swish": lambda x, bits: clip(x / 6 + 0.5, 0, 1),
    "where": lambda x, bits: where(x < 0, 0.0, 3 * x),
    "pooling": lambda x, bits: max_pool(x, 2) if x.dtype is f32 else relu(x),
    "dropout": lambda x, bits: Dropout(0.3)(x, bits),
}
SPECIAL = {
    "finite": [0.0, -0.0],
    "infinite": [np.inf, -np.inf, 0.0],
    "nan": [np.nan, np.inf],
    "large": [3e38, -3e38],
}


def graphs_of(name: str, dtype: DType) -> tuple[Graph, Graph]:
    """One of the functions, of so many numbers for each of `n` rows, and its gradient."""
    x, bits = leaf("x", dtype["n", 3, 6, 8]), leaf("bits", u32["n", 3, 6, 8])
    y = FUNCTIONS[name](x, bits)
    g = leaf("g", y.type)
    gradient = Graph("gradient", {"dx": vjp([y], [x], [g])[0]}, (x, g, bits))
    return Graph("function", {"y": y}, (x, bits)), gradient


N = symbol("n")
# For batches of some size, and of any.
FEW, MANY = CHOSEN // (3 * 6 * 8), CHOSEN // (3 * 6 * 8) + 1
SIZES: list[dict[sp.Symbol, int]] = [{}, {N: FEW}, {N: MANY}]


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=["any size", "few", "many"])
def test_what_is_masked_is_zero(name: str, dtype: DType, sizes: dict[sp.Symbol, int]) -> None:
    function, graph = graphs_of(name, dtype)
    model = to_model(graph, sizes=sizes)
    constants = {tensor.name for tensor in model.graph.initializer}
    choices = [node for node in model.graph.node if node.op_type == "Where"]
    of_numbers = [constants >= {*node.input[1:]} for node in choices]
    has_two_ways = "If" in [node.op_type for node in model.graph.node]
    if sizes.get(N) != FEW or (name == "pooling" and dtype is f32):
        assert has_two_ways
        assert all(of_numbers)
    else:  # chosen at once, which takes less time of few numbers
        assert not has_two_ways
        assert not all(of_numbers)
    taken = {name for node in all_nodes(model.graph.node) for name in node.input}
    made = constants | {name for node in model.graph.node for name in node.output}
    assert made - taken == {"dx"}  # nothing is emitted in vain
    run = session(model)
    rng = np.random.default_rng(7)
    feeds = {
        "x": rng.normal(size=(2, 3, 6, 8)).astype(dtype.numpy),
        "bits": rng.integers(0, RANGE, (2, 3, 6, 8), np.uint32),
    }
    like = evaluate(function, feeds)["y"]
    for special in SPECIAL.values():
        numbers = rng.normal(size=like.shape)
        numbers = np.where(rng.random(like.shape) < 0.2, rng.choice(special, like.shape), numbers)
        feeds["g"] = numbers.astype(dtype.numpy)
        expected = evaluate(graph, feeds)["dx"]
        got = run(feeds)["dx"]
        np.testing.assert_array_equal(got, expected)
        kept = expected != 0
        assert got[kept].tobytes() == expected[kept].tobytes()


def test_up_to_how_many_numbers_a_file_chooses_is_a_bound_of_it() -> None:
    _, graph = graphs_of("relu", f32)
    bounds: dict[Dim, int] = {}
    to_model(graph, bounds=bounds, sizes={N: FEW})
    assert bounds == {dim(N * 3 * 6 * 8): CHOSEN}
    bounds = {}
    to_model(graph, bounds=bounds, sizes={N: MANY})
    assert bounds == {}


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    "activation", [leaky_relu, lambda x: elu(x, 2.0), selu, lambda x: celu(x, 0.5)]
)
def test_choices_by_a_sign_are_extremes(
    activation: Callable[[Value], Value], order: int, dtype: DType
) -> None:
    x = leaf("x", dtype["n"])
    y = vjp([activation(x)], [x], [ones_like(x)])[0] if order else activation(x)
    graph = optimize(Graph("choice", {"y": y}, (x,)))
    model = to_model(graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    choices = [node for node in model.graph.node if node.op_type == "Where"]
    assert all(constants >= {*node.input[1:]} for node in choices)
    numbers = [1.5, -2, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 800, -800, -1e-3]
    feeds = {"x": np.array(numbers, dtype.numpy)}
    with np.errstate(over="ignore"):
        expected = evaluate(graph, feeds)["y"]
    got = session(model)(feeds)["y"]
    np.testing.assert_allclose(got, expected, rtol=16 * dtype.eps)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))
