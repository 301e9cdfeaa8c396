"""Where onnxruntime's own optimizer, or its kernels for tensors without elements, would go wrong,
what is lowered keeps clear of them. All of these were found by the fuzzer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import f32, f64, u32
from nncompile.ops import (
    average_pool,
    broadcast_to,
    cast,
    conv,
    einsum,
    max_pool,
    pad,
    solve,
    swapaxes,
    transpose,
)
from tests.backends import in_onnxruntime, session, valid_model
from tests.gradient_checks import check_gradient, check_runtime
from tests.leaves import leaf
from tests.op_checks import in_double
from tests.tolerances import assert_close

LEFT = [(2, "n"), ("n",), (3, 2, "n"), (3, 1, 2, "n"), (1, 3, 2, "n")]
RIGHT = [("n", 2), (3, "n", 2), (3, 1, "n", 2), (3, 3, "n", 2), (1, 3, "n", 2)]


@pytest.mark.parametrize("dtype", [f32, f64, u32])
@pytest.mark.parametrize("left", LEFT, ids=str)
def test_products_without_elements_are_zeros(left: Any, dtype: Any) -> None:
    a = leaf("a", dtype[left])
    outputs: dict[str, Value] = {}
    for i, shape in enumerate(RIGHT):
        b = leaf(f"b{i}", dtype[shape])
        outputs[f"y{i}"] = a @ b
    flipped = leaf("flipped", dtype[3, "n", 2])
    outputs["transposed"] = swapaxes(flipped, 1, 2) @ leaf("b1", dtype[3, "n", 2])
    outputs["einsum"] = einsum("bij,bik->bjk", flipped, leaf("b1", dtype[3, "n", 2]))
    graph = Graph("products", outputs)
    run = session(valid_model(graph))
    for n in (0, 1, 3):
        rng = np.random.default_rng(n)
        feeds = {
            name: rng.integers(1, 9, [d if isinstance(d, int) else n for d in v.shape]).astype(
                v.dtype.numpy
            )
            for name, v in graph.leaves.items()
        }
        expected = in_double(graph, feeds)
        actual = run(feeds, expected)
        for name, array in expected.items():
            assert_close(actual[name], array, dtype.name, f"{name} at {n}")


@pytest.mark.parametrize("sizes", list(itertools.product((0, 2), repeat=3)), ids=str)
def test_products_of_moved_axes_without_rows_or_columns(sizes: tuple[int, ...]) -> None:
    """Joined, they would end the process by a division by zero."""
    rows, columns, batch = sizes
    a, b = leaf("a", f32["rows", "batch", 5, 3]), leaf("b", f32["columns", "batch", 5, 3])
    left, right = transpose(a, (1, 2, 0, 3)), transpose(b, (1, 2, 3, 0))
    outputs = {"y": left @ right, "einsum": einsum("mbhk,nbhk->bhmn", a, b)}
    graph = Graph("products", outputs)
    run = session(valid_model(graph))
    rng = np.random.default_rng(0)
    shapes = {"a": (rows, batch, 5, 3), "b": (columns, batch, 5, 3)}
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    expected = in_double(graph, feeds)
    actual = run(feeds, expected)
    for name, array in expected.items():
        assert_close(actual[name], array, "float32", name)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_counts_in_windows(
    pool: Callable[..., Value], width: int, dtype: type[np.floating[Any]]
) -> None:
    """Zeros around negative numbers are the greatest; and there may be more of them than a window
    is wide."""
    x = -1 - np.random.default_rng(0).uniform(0, 1, (2, 3, 4, 5))
    around = [(0, 0), (0, 0), (width, width), (width, width)]

    def padded(v: Value) -> Value:
        return pool(pad(v, around), 3, stride=2)

    check_runtime(padded, x.astype(dtype))
    check_gradient(padded, x, order=1)
    check_runtime(lambda v: pool(cast(pad(v, around), f32), 3, stride=2), x)


def test_copies_of_size_zero_have_no_elements() -> None:
    check_runtime(lambda x: pad(broadcast_to(x, (0, 1)), [(1, 2), (0, 1)]), np.ones((1, 1)))


@pytest.mark.parametrize("batch", [2, "n"])
def test_padded_weights_are_not_taken_for_a_padded_image(batch: Any) -> None:
    """Joined, the session would refuse the model."""
    x, w = leaf("x", f32[batch, 2, 7]), leaf("w", f32[2, 2, 3])
    graph = Graph("padded", {"y": conv(x, pad(w, [(0, 0), (0, 0), (0, 1)]))})
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((2, 2, 7)), "w": rng.standard_normal((2, 2, 3))}
    feeds = {name: a.astype(np.float32) for name, a in feeds.items()}
    expected = in_double(graph, feeds)
    actual = in_onnxruntime(graph, feeds, {"y": expected["y"].shape})
    assert_close(actual["y"], expected["y"], "float32")


@pytest.mark.parametrize(
    "name", ["det", "slogdet", "inv", "solve", "cholesky", "prod", "cumprod", "softmax"]
)
@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (0, 0, 0), (0, "n", "n"), (0, 1, 1)])
def test_results_without_elements_are_results(name: str, shape: Any) -> None:
    """A session without output buffers returns its results, gradients among them."""
    functions: dict[str, Callable[[Value], Any]] = {
        "slogdet": lambda x: ops.slogdet(x)[1],
        "solve": lambda x: ops.solve(x, x),
        "prod": lambda x: ops.prod(x, -1),
        "cumprod": lambda x: ops.cumprod(x, -1),
    }
    x = leaf("x", f32[shape])
    y = functions.get(name, lambda x: getattr(ops, name)(x))(x)
    outputs = {"y": y}
    for factor in (1.0, y):
        (gradient,) = grad(ops.sum(y * factor), [x])
        (second,) = grad(ops.sum(gradient * gradient), [x])
        outputs |= {f"gradient{len(outputs)}": gradient, f"second{len(outputs)}": second}
    graph = Graph("nothing", outputs, (x,))
    empty = np.zeros([3 if d == "n" else d for d in shape], np.float32)
    results = in_onnxruntime(graph, {"x": empty})
    for key, array in in_double(graph, {"x": empty}).items():
        assert results[key].shape == array.shape, key
        np.testing.assert_array_equal(results[key], array)


@pytest.mark.parametrize(
    ("rows", "inner", "order", "operator"),
    [
        ("n", 4, (1, 0, 2), "Reshape"),  # moves the first axis, and there may be no rows
        (6, 4, (1, 0, 2), "Transpose"),
        ("n", 4, (0, 2, 1), "Transpose"),  # leaves the first axis
        ("n", 0, (0, 2, 1), "Reshape"),  # there is nothing to sum
    ],
)
def test_what_ends_the_process_is_not_joined(
    rows: Any, inner: Any, order: tuple[int, ...], operator: str
) -> None:
    """Some versions of onnxruntime join a transposition with the product of stacks after it, by a
    kernel that ends the process where there are no rows: it is seen in what is emitted."""
    shape = (3, rows, inner)
    x = leaf("x", f32[tuple(shape[order.index(i)] for i in range(3))])
    product = transpose(x, order) @ leaf("y", f32[3, inner, 5])
    nodes = to_model(Graph("product", {"z": product})).graph.node
    (matmul,) = (node for node in nodes if node.op_type == "MatMul")
    assert [node.op_type for node in nodes if matmul.input[0] in node.output] == [operator]


def test_transpositions_that_the_runtime_moves_are_not_joined_either() -> None:
    """The last one leaves the first axis; but the one in which `solve` ends moves it, and goes
    through the choice between its numbers and NaN."""
    x = solve(leaf("a", f32["n", 4, 4]), leaf("b", f32["n", 4, "m"]))
    product = transpose(x, (0, 2, 1)) @ leaf("y", f32["n", 4, 5])
    nodes = to_model(Graph("product", {"z": product})).graph.node
    makers = {name: node for node in nodes for name in node.output}
    apart = makers[nodes[-1].input[0]]
    assert (nodes[-1].op_type, apart.op_type) == ("MatMul", "Reshape")
    turned = makers[apart.input[0]]
    chosen = makers[turned.input[0]]
    moved = makers[chosen.input[1]]
    assert [v.op_type for v in (turned, chosen, moved)] == ["Transpose", "Where", "Transpose"]
    assert next(iter(moved.attribute[0].ints)) != 0
