"""Sums of many numbers keep float32's digits, and those of integers all of theirs, in both
backends; the bound is that of 64 numbers that are alike in one accumulator, whatever the count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from dsl import Dense, adam, flatten, model, sgd, training
from nncompile import ops
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.compiler.compile import compile_step
from nncompile.ir.dims import substitute, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type, boolean, f32, i32, i64, u32
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.convolution.convolve import ConvWeightGradient
from nncompile.ops.core.long_sums import ACROSS, DOWN, ROW
from nncompile.runtime.session import Session
from tests.backends import script_of, session
from tests.leaves import leaf

BOUND = 1e-6  # relative to the sum of the sizes of what is added
EPSILON = float(np.finfo(np.float32).eps)
SYMBOLIC = ("n", "m", "k")
COUNTS = (0, 1, 100, 1000, 5000, 300_007)


def alike(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """What one accumulator rounds the same way again and again."""
    return np.full(shape, 0.1, np.float32)


def awkward(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of all float32 numbers the one of which 64 in one accumulator are the farthest off."""
    return np.full(shape, 1.9393959, np.float32)


def thousand(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.random(shape, np.float32) + np.float32(1000)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.random(shape, np.float32)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, np.float32)


DATA = [alike, awkward, thousand, positive, normal]


@cache
def bound_of(data: Callable[..., Array]) -> float:
    """1e-6; for numbers that are alike, what one accumulator makes of a column, where the runtime
    has one for it on this processor (without AVX2) and not four."""
    if data not in (alike, awkward):
        return BOUND
    x = np.full((DOWN, 2), 1.9393959, np.float32)
    ones, column = leaf("ones", f32[DOWN]), leaf("x", f32[x.shape])
    run = session(to_model(Graph("column", {"y": ones @ column}, (ones, column))))
    sums = run({"ones": np.ones(DOWN, np.float32), "x": x}, {"y": (2,)})["y"]
    one_accumulator = x.cumsum(0)[-1]  # numpy's is sequential
    return DOWN * EPSILON / 7.7 if np.array_equal(sums, one_accumulator) else BOUND


def everywhere(
    ours: Callable[..., Value], types: Sequence[Type], *feeds: Sequence[Array]
) -> list[dict[str, Array]]:
    """What each backend computes of each of the feeds, from one file for all of them."""
    leaves = [leaf(f"x{i}", t) for i, t in enumerate(types)]
    graph = Graph("long", {"y": ours(*leaves)}, tuple(leaves))
    run, script = session(to_model(graph)), script_of(graph)
    results = []
    for arrays in feeds:
        named = {f"x{i}": a for i, a in enumerate(arrays)}
        by_torch = script(named)["y"]
        by_onnx = run(named, {"y": by_torch.shape})["y"]
        results.append({"onnxruntime": by_onnx, "TorchScript": by_torch})
    return results


def near(result: Array, expected: Any, scale: Any, label: str, bound: float = BOUND) -> None:
    """As near as the bound, relative to `scale`, elementwise."""
    assert result.dtype == np.float32
    error = np.abs(result - np.asarray(expected, np.float64))
    assert np.all(error <= bound * np.asarray(scale, np.float64)), f"{label}: {error.max()}"


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "shape,axes,keepdims",
    [
        (("n",), (0,), False),
        (("n",), (0,), True),
        (("n", 2), (0,), False),
        (("n", 2), (0,), True),
        (("n", 2), (0, 1), False),
        ((2, "n"), (1,), False),
        ((2, "n", 3), (1,), False),
        (("n", 2, 3), (0, 2), True),
        ((2, "n", 3), (0, 1), False),
    ],
)
def test_a_sum_is_right_however_many_there_are(
    data: Callable[..., Array], shape: tuple[Any, ...], axes: tuple[int, ...], keepdims: bool
) -> None:
    rng = np.random.default_rng(3)
    feeds = [[data(rng, tuple(count if d == "n" else d for d in shape))] for count in COUNTS]
    found = everywhere(lambda x: ops.sum(x, axes, keepdims), [f32[shape]], *feeds)
    for (x,), results in zip(feeds, found, strict=True):
        exact = x.sum(axes, dtype=np.float64, keepdims=keepdims)
        scale = np.abs(x).sum(axes, dtype=np.float64, keepdims=keepdims)
        for backend, result in results.items():
            near(result, exact, scale, f"{backend} of {x.shape}", bound_of(data))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "shape,axes",
    [
        ((1_000_003,), (0,)),
        ((2000, 1000), (0, 1)),
        ((300_007, 3), (0,)),
        ((2, 1009, 513), (1, 2)),
        ((7, 128, 64, 64), (0, 2, 3)),
        ((64, 40_000), (0, 1)),
        ((3, 257, 257, 2), (1, 2)),
    ],
)
def test_a_sum_of_a_known_size(
    data: Callable[..., Array], shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = data(np.random.default_rng(5), shape)
    (results,) = everywhere(lambda x: ops.sum(x, axes), [f32[shape]], [x])
    for backend, result in results.items():
        exact, scale = (a.sum(axes, dtype=np.float64) for a in (x, np.abs(x)))
        near(result, exact, scale, backend, bound_of(data))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "shape,axes",
    [
        ((ROW,), (0,)),
        ((2, ROW), (1,)),
        ((DOWN, 2), (0,)),
        ((DOWN, 64), (0,)),
        ((2, ACROSS, 3), (1,)),
        ((ACROSS, 2, 2), (0,)),
        ((2 * ACROSS, 3, ROW), (0, 2)),
    ],
)
def test_a_sum_of_as_many_as_one_node_adds(
    data: Callable[..., Array], shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    test_a_sum_of_a_known_size(data, shape, axes)
    symbolic = [f"n{i}" if i in axes else d for i, d in enumerate(shape)]
    x = data(np.random.default_rng(5), shape)
    (results,) = everywhere(lambda x: ops.sum(x, axes), [f32[tuple(symbolic)]], [x])
    for backend, result in results.items():
        exact, scale = (a.sum(axes, dtype=np.float64) for a in (x, np.abs(x)))
        near(result, exact, scale, backend, bound_of(data))


@pytest.mark.parametrize("shape", [("64*n", 5), ("n", 128, 5), ("n", "m", 5), (2, "n", 64, 5)])
def test_a_sum_over_sizes_with_factors(shape: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(6)
    axes = tuple(range(len(shape) - 1))
    sizes = {"64*n": 64 * 5003, "n": 2003, "m": 151}
    feeds = [
        [alike(rng, tuple(sizes.get(d, d) for d in shape))],
        [alike(rng, tuple({"64*n": 128, "n": 2, "m": 3}.get(d, d) for d in shape))],
        [alike(rng, tuple(0 if isinstance(d, str) else d for d in shape))],
    ]
    found = everywhere(lambda x: ops.sum(x, axes), [f32[shape]], *feeds)
    for (x,), results in zip(feeds, found, strict=True):
        for backend, result in results.items():
            exact = x.sum(axes, dtype=np.float64)
            near(result, exact, exact, f"{backend} of {x.shape}")


@pytest.mark.slow
def test_twenty_million() -> None:
    x = thousand(np.random.default_rng(1), (20_000_000,))
    functions: dict[str, Callable[[Value], Value]] = {
        "mean": lambda x: ops.mean(x),
        "last running sum": lambda x: ops.cumsum(x)[-1],
    }
    exact = float(x.sum(dtype=np.float64))
    expected = {"mean": exact / x.size, "last running sum": exact}
    for name, function in functions.items():
        (results,) = everywhere(function, [f32["n"]], [x])
        for backend, result in results.items():
            near(result, expected[name], expected[name], f"{name}, {backend}")


def test_means_and_spreads_of_numbers_that_are_alike() -> None:
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((1_000_000, 2))).astype(np.float32)
    wide = x.astype(np.float64)
    million = 999_000 + x
    assert not everywhere(lambda x: ops.std(x), [f32["n"]], [alike(rng, (70_001,))])[0][
        "onnxruntime"
    ]
    (results,) = everywhere(lambda x: ops.var(x, 0), [f32["n", 2]], [million])
    near(results["onnxruntime"], million.var(0, np.float64), 1, "var of millions", 2e-6)
    cases: dict[str, tuple[Callable[[Value], Value], Array]] = {
        "mean": (lambda x: ops.mean(x, 0), wide.mean(0)),
        "std": (lambda x: ops.std(x, 0), wide.std(0)),
        "var": (lambda x: ops.var(x, 0), wide.var(0)),
        "var of all": (lambda x: ops.var(x), wide.var()),
        "norm": (lambda x: ops.norm(x, axis=0), np.sqrt((wide * wide).sum(0))),
    }
    for name, (function, expected) in cases.items():
        (results,) = everywhere(function, [f32["n", 2]], [x])
        for backend, result in results.items():
            near(result, expected, expected, f"{name}, {backend}", 2e-6)


def test_running_sums() -> None:
    rng = np.random.default_rng(2)
    for exclusive, reverse in ((False, False), (True, False), (False, True), (True, True)):
        feeds = [[data(rng, (2, n, 2))] for data in DATA[:4] for n in (0, 1, 60, 100, 40_000)]
        found = everywhere(
            lambda x, e=exclusive, r=reverse: ops.cumsum(x, 1, e, r), [f32[2, "n", 2]], *feeds
        )
        for (x,), results in zip(feeds, found, strict=True):
            wide = np.flip(x, 1) if reverse else x
            sums = wide.cumsum(1, dtype=np.float64)
            sums = sums - wide if exclusive else sums
            sums = np.flip(sums, 1) if reverse else sums
            for backend, result in results.items():
                near(result, sums, np.abs(sums) + np.abs(x), f"{backend} of {x.shape}")


def test_sums_of_exponentials() -> None:
    rng = np.random.default_rng(4)
    for spread in (0.0, 3.0):
        x = (spread * rng.standard_normal((2, 1_000_003))).astype(np.float32) - np.float32(0.7)
        x[:, 0] = 2 + 5 * spread
        powers = np.exp(x.astype(np.float64) - x[:, :1])
        total = powers.sum(1, keepdims=True)
        logs = np.log(total) + x[:, :1]
        for backend, result in everywhere(lambda x: ops.logsumexp(x, 1, True), [f32[2, "n"]], [x])[
            0
        ].items():
            near(result, logs, np.abs(logs), f"logsumexp {backend}")
        for backend, result in everywhere(lambda x: ops.softmax(x, 1), [f32[2, "n"]], [x])[
            0
        ].items():
            near(result, powers / total, powers / total, f"softmax {backend}", 3e-6)
        for backend, result in everywhere(lambda x: ops.log_softmax(x, 1), [f32[2, "n"]], [x])[
            0
        ].items():
            near(result, x - logs, np.abs(x - logs), f"log_softmax {backend}", 2e-6)


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


@pytest.mark.slow
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


def whole(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> Array:
    """Integers of all sizes that the type has."""
    if dtype.is_bool:
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype.numpy)
    return rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)


@pytest.mark.parametrize("dtype", [i64, i32, u32, boolean])
def test_sums_and_products_of_integers_are_exact(dtype: DType) -> None:
    rng = np.random.default_rng(7)
    shapes = [(3, n, 2) for n in (0, 1, 40, 3000)]
    feeds = [[whole(rng, dtype, shape)] for shape in shapes]
    for axis in (None, 0, 1, 2, (0, 1), (1, 2), (0, 2)):
        for keepdims in (False, True):
            found = everywhere(
                lambda x, a=axis, k=keepdims: ops.sum(x, a, k), [dtype[3, "n", 2]], *feeds
            )
            for (x,), results in zip(feeds, found, strict=True):
                exact = x.sum(axis, dtype=np.int64, keepdims=keepdims)
                for backend, result in results.items():
                    np.testing.assert_array_equal(result, exact, err_msg=backend)
    for axis in (0, 1, (0, 2), None):
        found = everywhere(lambda x, a=axis: ops.prod(x, a), [dtype[3, "n", 2]], *feeds)
        for (x,), results in zip(feeds, found, strict=True):
            exact = x.prod(axis, dtype=np.int64)
            for backend, result in results.items():
                np.testing.assert_array_equal(result, exact, err_msg=backend)
    found = everywhere(lambda x: ops.cumsum(x, 1), [dtype[3, "n", 2]], *feeds)
    for (x,), results in zip(feeds, found, strict=True):
        for backend, result in results.items():
            np.testing.assert_array_equal(result, x.cumsum(1, dtype=np.int64), err_msg=backend)


def test_four_million_integers_of_32_bits() -> None:
    x = np.full(4_200_001, 2**32 - 1, np.uint32)
    (results,) = everywhere(lambda x: ops.sum(x), [u32["n"]], [x])
    for backend, result in results.items():
        assert result == int(x[0]) * x.size, backend


def test_products_of_integer_matrices_are_exact() -> None:
    rng = np.random.default_rng(10)
    for dtype in (i64, i32, u32):
        shapes = [((2, n), (n, 3)) for n in (0, 1, 2000)]
        feeds = [[whole(rng, dtype, shape) for shape in pair] for pair in shapes]
        found = everywhere(matmul, [dtype[2, "n"], dtype["n", 3]], *feeds)
        for (a, b), results in zip(feeds, found, strict=True):
            for backend, result in results.items():
                np.testing.assert_array_equal(result, a @ b, err_msg=backend)


def test_a_step_for_a_batch_of_any_size() -> None:
    """The step that a runner has for small batches has no choices in it; for large ones another
    model takes its place, and back."""

    @model
    def line(x: Value = f32["batch", 3], y: Value = f32["batch"]) -> dict[str, Value]:
        predicted = x >> Dense(1) >> flatten
        return {"loss": ops.mean((ops.reshape(predicted, y.shape) - y) ** 2)}

    for optimizer in (sgd(1e-9), adam(1e-3)):
        compiled = compile_step(training(line, optimizer=optimizer, batch_size=8))
        small, bounds = compiled._small_step
        assert "If" not in {node.op_type for node in small.graph.node}
        assert "If" in {node.op_type for node in compiled._general_step.graph.node}
        assert min(bounds.values()) >= 128
        state = compiled.source.initial(0)
        runner = compiled.runner(state, threads=1)
        first = runner.session
        rng = np.random.default_rng(0)
        for rows in (8, 300_007, 8, 300_007):
            batch = {"x": thousand(rng, (rows, 3)), "y": thousand(rng, (rows,))}
            expected = evaluate(compiled.source.step, {**state, **batch}, precision=np.float64)
            runner.step(batch)
            assert (runner.session is first) == (rows == 8)
            loss = runner.metrics()["loss"]
            near(loss, expected["loss"], expected["loss"], f"loss of {rows}", 3e-6)
            state = runner.state()
            for path, following in compiled.source.state_map.items():
                if state[path].dtype == np.float32:
                    scale = np.abs(expected[following]).max() + 1e-30
                    near(state[path], expected[following], scale, f"{path} of {rows}", 3e-6)


def test_a_step_in_a_file_sums_as_the_batch_of_the_recipe_asks() -> None:
    @model
    def scaled(x: Value = f32["batch"]) -> dict[str, Value]:
        return {"loss": ops.mean((ops.reshape(x, (-1, 1)) >> Dense(1)) ** 2)}

    rng = np.random.default_rng(0)
    for rows in (64, 300_007):
        compiled = compile_step(training(scaled, optimizer=sgd(1e-9), batch_size=rows))
        assert "If" not in {node.op_type for node in compiled.step_model.graph.node}
        feeds = {**compiled.source.initial(0), "x": thousand(rng, (rows,))}
        exact = evaluate(compiled.source.step, feeds, precision=np.float64)["loss"]
        given = {x.name: feeds[x.name] for x in compiled.step_model.graph.input}
        found = Session(compiled.step_model.SerializeToString()).run(given)["loss"]
        near(found, exact, exact, f"loss of {rows}", 3e-6)


@pytest.mark.parametrize("size", [128, 1000, 5000, 100_003])
def test_layer_normalization_of_numbers_that_are_alike(size: int) -> None:
    x = thousand(np.random.default_rng(12), (3, size))
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    for shape in ((3, size), ("n", "m")):
        (results,) = everywhere(ops.layer_norm, [f32[shape]], [x])
        for backend, result in results.items():
            near(result, expected, 1, f"{backend} of {size}", 3e-6)


@pytest.mark.parametrize(
    "function",
    [lambda x: ops.group_norm(x, 2), ops.instance_norm, lambda x: ops.layer_norm(x, axes=3)],
    ids=["group", "instance", "layer"],
)
def test_normalization_within_an_example_of_a_million(function: Callable[[Value], Value]) -> None:
    shape = (1, 4, 500, 500)
    x = thousand(np.random.default_rng(17), shape)
    x_leaf = leaf("x", f32[shape])
    graph = Graph("exact", {"y": function(x_leaf)}, (x_leaf,))
    expected = evaluate(graph, {"x": x}, precision=np.float64)["y"]
    (results,) = everywhere(function, [f32["n", 4, "h", "w"]], [x])
    for backend, result in results.items():
        near(result, expected, 1, backend, 3e-6)


def test_normalization_along_an_axis_that_may_be_empty() -> None:
    for size in (0, 1, 2):
        x = thousand(np.random.default_rng(18), (3, size))
        (results,) = everywhere(ops.layer_norm, [f32["n", "m"]], [x])
        for backend, result in results.items():
            assert result.shape == x.shape, backend
            assert np.isfinite(result).all(), backend


def test_means_of_large_windows() -> None:
    x = thousand(np.random.default_rng(13), (2, 2, 401, 300))
    expected = x.mean((2, 3), dtype=np.float64, keepdims=True)
    for shape in ((2, 2, 401, 300), ("n", 2, "h", "w")):
        (results,) = everywhere(lambda x: ops.average_pool(x, (401, 300)), [f32[shape]], [x])
        for backend, result in results.items():
            near(result, expected, expected, backend)
    (results,) = everywhere(
        lambda x: ops.average_pool(x, 100, 50, 20, count_include_pad=False), [f32[x.shape]], [x]
    )
    leaves = [leaf("x", f32[x.shape])]
    graph = Graph("one", {"y": ops.average_pool(leaves[0], 100, 50, 20, False, False)}, (*leaves,))
    exact = evaluate(graph, {"x": x}, precision=np.float64)["y"]
    assert exact.max() < 1001
    for backend, result in results.items():
        near(result, exact, exact, backend)


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


def test_products_of_many_numbers() -> None:
    rng = np.random.default_rng(15)
    near_one = [(1 + 1e-6 * rng.standard_normal((2, n))).astype(np.float32) for n in (0, 3, 70_001)]
    for function, exact in (
        (lambda x: ops.prod(x, 1), lambda x: x.prod(1)),
        (lambda x: ops.cumprod(x, 1), lambda x: x.cumprod(1)),
        (lambda x: vjp([ops.prod(x, 1)], [x], [ops.prod(x, 1)])[0], None),
    ):
        found = everywhere(function, [f32[2, "n"]], *([x] for x in near_one))
        for x, results in zip(near_one, found, strict=True):
            wide = x.astype(np.float64)
            total = wide.prod(1, keepdims=True)
            expected = exact(wide) if exact else total * total / wide
            for backend, result in results.items():
                near(result, expected, np.abs(expected), f"{backend} of {x.shape}")


SUMS: dict[str, tuple[Callable[..., Value], list[tuple[Any, ...]]]] = {
    "sum": (lambda x: ops.sum(x), [("n",)]),
    "sum down": (lambda x: ops.sum(x, 0), [("n", 2)]),
    "sum down, kept": (lambda x: ops.sum(x, 0, True), [("n", 2)]),
    "sum across": (lambda x: ops.sum(x, (1, 2)), [(2, "n", "m", 3)]),
    "sum of blocks": (lambda x: ops.sum(x, 0), [("64*n", 3)]),
    "mean square": (lambda x: ops.mean(x * x, (0, 2)), [("n", 3, "m")]),
    "cumsum": (lambda x: ops.cumsum(x, 0), [("n", 2)]),
    "prod": (lambda x: ops.prod(x, 0), [("n", 2)]),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), [(2, "n+1")]),
    "softmax": (lambda x: ops.softmax(x, 1), [(2, "n")]),
    "log_softmax": (lambda x: ops.log_softmax(x, 0), [("n", 2)]),
    "layer_norm": (lambda x: ops.layer_norm(x), [(2, "n+1")]),
    "dot": (matmul, [("n",), ("n",)]),
    "row": (matmul, [("n",), ("n", 3)]),
    "column": (matmul, [(3, "n"), ("n",)]),
    "stack": (matmul, [("m", 3, "n"), ("n", 2)]),
    "gemm": (lambda a, b, c: gemm(a, b, c, transpose_a=True), [("n", 3), ("n", 2), (2,)]),
    "gemm, rows": (lambda a, b: gemm(a, b, transpose_b=True), [("m", "n"), (2, "n")]),
    "einsum": (lambda a, b: ops.einsum("nbi,nb->bi", a, b), [("n", "m", 3), ("n", "m")]),
}


@pytest.mark.parametrize("name", SUMS)
def test_forms_for_many_are_right_for_few(name: str) -> None:
    """A file for large batches, too, meets a small one, and one without examples."""
    function, shapes = SUMS[name]
    leaves = [leaf(f"x{i}", f32[shape]) for i, shape in enumerate(shapes)]
    graph = Graph("many", {"y": function(*leaves)}, tuple(leaves))
    expected = dict.fromkeys((symbol("n"), symbol("m")), 10**6)
    model = to_model(graph, sizes=expected)
    assert "If" not in {node.op_type for node in model.graph.node}
    run = session(model)
    rng = np.random.default_rng(16)
    for n, m in ((0, 2), (1, 1), (5, 0), (300, 3)):
        sizes = {symbol("n"): n, symbol("m"): m}
        feeds = {
            v.op.name: positive(rng, tuple(substitute(d, sizes) for d in v.shape)) for v in leaves
        }
        exact = evaluate(graph, feeds, precision=np.float64)["y"]
        found = run(feeds, {"y": exact.shape})["y"]
        np.testing.assert_allclose(found, exact, 2e-6, 2e-6, err_msg=f"n = {n}, m = {m}")
