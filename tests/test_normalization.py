"""Normalization: torch's results and gradients, whatever the data are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import f32, f64
from nncompile.autodiff.grad import grad, vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.ops import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from nncompile.passes import optimize
from tests.backends import in_onnxruntime, session, valid_model
from tests.gradient_checks import check_gradient
from tests.leaves import leaf
from tests.normalized import ROUNDING, normalize, off, torch_normalize

CASES = [
    ("batch", (7, 4), (4,)),
    ("batch", (3, 4, 5), (4,)),
    ("batch", (3, 4, 5, 2), (4,)),
    ("batch", (2, 4, 3, 2, 2), (4,)),
    ("layer", (6, 5), (5,)),
    ("layer", (2, 3, 5), (5,)),
    ("layer2", (2, 3, 5), (3, 5)),
    ("bare layer", (4, 5), (5,)),
    ("bias alone", (4, 5), (5,)),
    ("group", (3, 4), (4,)),
    ("group", (3, 4, 2, 5), (4,)),
    ("instance", (3, 4, 6), (4,)),
    ("instance", (2, 4, 3, 2), (4,)),
    ("rms", (3, 2, 5), (5,)),
    ("rms2", (3, 2, 5), (2, 5)),
]


def operands(shape: tuple[int, ...], own: tuple[int, ...], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(1, 2, shape),
        "s": rng.uniform(0.5, 2, own),
        "b": rng.normal(size=own),
        "g": rng.normal(size=shape),
    }


@pytest.mark.parametrize(("name", "shape", "own"), CASES)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_results_and_gradients_agree_with_torch(
    name: str, shape: tuple[int, ...], own: tuple[int, ...], dtype: Any
) -> None:
    """onnxruntime after all passes, with a symbolic batch, against torch in float64."""
    torch = pytest.importorskip("torch")
    arrays = operands(shape, own)
    leaves = {n: leaf(n, dtype[a.shape]) for n, a in arrays.items()}
    for n in "xg":
        leaves[n] = leaf(n, dtype[("n", *shape[1:])])
    x, s, b, g = leaves.values()
    (y,) = normalize(name)(x, s, b)
    outputs = {"y": y, **dict(zip("xsb", vjp([y], [x, s, b], [g]), strict=True))}
    outputs = {f"of {n}": v for n, v in outputs.items()}
    graph = optimize(Graph("norm", outputs, tuple(leaves.values())))
    feeds = {n: a.astype(dtype.numpy) for n, a in arrays.items()}
    shapes = dict(zip(outputs, (shape, shape, own, own), strict=True))
    actual = in_onnxruntime(graph, feeds, shapes)
    exact = [torch.tensor(feeds[n].astype(np.float64), requires_grad=True) for n in "xsb"]
    result = torch_normalize(name, *exact)
    result.backward(torch.tensor(feeds["g"].astype(np.float64)))
    expected = [result.detach(), *(t.grad for t in exact)]
    if name == "rms" and dtype is f32:  # its eps is that of the element type
        expected = [evaluate(v, feeds, np.float64) for v in graph.outputs.values()]
    bound = ROUNDING if dtype is f32 else 1e-13
    for label, reference in zip(outputs, expected, strict=True):
        assert off(actual[label], reference) < bound, label


def test_the_statistics_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    arrays = operands((5, 3, 4), (3,))
    mean, variance = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.25, 3.0])
    args = [leaf(n, f64[a.shape]) for n, a in arrays.items() if n != "g"]
    _, *following = batch_norm(*args, mean, variance, momentum=0.3)
    norm = torch.nn.BatchNorm1d(3, momentum=0.3, dtype=torch.float64)
    norm.running_mean[:], norm.running_var[:] = torch.tensor(mean), torch.tensor(variance)
    norm(torch.tensor(arrays["x"]))
    actual = evaluate(following, arrays)
    assert off(actual[0], norm.running_mean) < 1e-14
    assert off(actual[1], norm.running_var) < 1e-14


@pytest.mark.parametrize(("name", "shape", "own"), CASES[1:2] + CASES[4:9] + CASES[10:])
def test_gradients_of_the_second_order_are_differences(
    name: str, shape: tuple[int, ...], own: tuple[int, ...]
) -> None:
    arrays = operands(shape, own)
    check_gradient(lambda x, s, b: normalize(name)(x, s, b)[0], *(arrays[n] for n in "xsb"))


def test_statistics_have_gradients_too() -> None:
    """Of all results of the op together, at all of its arguments."""
    arrays = operands((4, 2, 3), (2,))

    def everything(*args: Value) -> Value:
        y, *statistics = batch_norm(*args, momentum=0.25)
        return (y * y).sum() + sum((v * v * v).sum() for v in statistics)  # type: ignore[no-any-return]

    check_gradient(everything, *(arrays[n] for n in "xsb"), arrays["b"], arrays["s"])


# What the data may be.


def all_layers(x: Value) -> dict[str, Value]:
    channels, last = x.shape[1], x.shape[-1]
    ones, other = np.ones(channels, np.float32), np.full(last, 0.5, np.float32)  # type: ignore[arg-type]
    zeros = np.zeros(channels, np.float32)  # type: ignore[arg-type]
    y, mean, variance = batch_norm(x, ones, ones, zeros, ones)
    return {
        "batch": y,
        "mean": mean,
        "variance": variance,
        "layer": layer_norm(x, other, 2 * other),
        "group": group_norm(x, 2, ones, ones),
        "instance": instance_norm(x, ones, ones),
        "rms": rms_norm(x, other),
    }


def with_gradients(type_: Type) -> Graph:
    """All of them, and the gradient of each at x from a gradient g."""
    x, g = leaf("x", type_), leaf("g", type_)
    outputs = all_layers(x)
    gradients = {
        f"gradient of {n}": vjp([y], [x], [g])[0] for n, y in outputs.items() if y.rank == x.rank
    }
    return optimize(Graph("norms", outputs | gradients, (x, g)))


def computed(graph: Graph, x: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """By onnxruntime in float32, and in double."""
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    feeds = {n: a for n, a in {"x": x, "g": g}.items() if n in graph.leaves}
    exact = evaluate(graph, feeds, np.float64)
    return in_onnxruntime(graph, feeds, exact), exact


def test_one_file_works_at_several_sizes() -> None:
    graph = with_gradients(f32["batch", 4, "h", 3])
    run = session(valid_model(graph))
    for batch, height in ((1, 1), (1, 5), (6, 2), (33, 7)):
        x, g = np.random.default_rng(batch).normal(1, 2, (2, batch, 4, height, 3))
        feeds = {"x": x.astype(np.float32), "g": g.astype(np.float32)}
        exact = evaluate(graph, feeds, np.float64)
        actual = run(feeds, exact)
        for name, reference in exact.items():
            assert off(actual[name], reference) < 2 * ROUNDING, (name, batch, height)


@pytest.mark.parametrize("constant", [0.0, 1.0, -0.1, 1000.1, 12345.678])
@pytest.mark.parametrize("shape", [(1, 4, 1, 3), (5, 4, 6, 3), (64, 4, 16, 3)])
def test_constant_inputs_are_finite_and_right(constant: float, shape: tuple[int, ...]) -> None:
    """The variance is 0: the result is the bias, and the statistics are the number and 0."""
    x = np.full(shape, constant, np.float32)
    actual, exact = computed(with_gradients(f32["batch", 4, "h", 3]), x)
    for name in ("batch", "layer", "group", "instance"):
        assert off(actual[name], np.ones(shape)) < 1e-5, name
        assert off(actual[f"gradient of {name}"], exact[f"gradient of {name}"]) < 1e-5, name
    assert off(actual["mean"], np.full(4, 0.1 * x.flat[0].astype(np.float64))) < 1e-6
    np.testing.assert_allclose(actual["variance"], 0.9, rtol=1e-6)
    for name in ("rms", "gradient of rms"):
        assert off(actual[name], exact[name]) < 1e-4, name


def test_a_batch_of_one_number_a_channel_gives_the_bias() -> None:
    """torch refuses it; the variance that it counts with is 0, not 0/0."""
    x = leaf("x", f32["batch", 3])
    s, b = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    y, mean, variance = batch_norm(x, s, b, 0 * s, s, momentum=0.25)
    graph = optimize(Graph("one", {"y": y, "mean": mean, "variance": variance,
                                   "gradient": grad((y * y).sum(), x)}, (x,)))  # fmt: skip
    actual, _ = computed(graph, np.array([[7, -8, 9]], np.float32))
    np.testing.assert_array_equal(actual["y"], [[4, 5, 6]])
    np.testing.assert_allclose(actual["mean"], [1.75, -2, 2.25], rtol=1e-6)
    np.testing.assert_allclose(actual["variance"], 0.75 * s, rtol=1e-6)
    np.testing.assert_array_equal(actual["gradient"], np.zeros((1, 3)))


def test_large_numbers_that_are_alike_are_told_apart() -> None:
    """A mean a thousand times the deviation takes no more than the rounding of x itself costs."""
    x = np.random.default_rng(0).normal(1000, 1, (64, 4, 16, 3)).astype(np.float32)
    actual, exact = computed(with_gradients(f32["batch", 4, "h", 3]), x)
    for name in ("batch", "mean", "variance", "group", "instance"):
        assert off(actual[name], exact[name]) < 1e-4, name
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.batch_norm(torch.tensor(x), None, None, training=True) + 1
    assert off(actual["batch"], exact["batch"]) < 2 * off(theirs, exact["batch"])


def test_the_callers_arrays_are_not_overwritten() -> None:
    """ONNX's own operator in training would write statistics over its inputs."""
    rng = np.random.default_rng(0)
    arrays = {n: rng.uniform(1, 2, 3).astype(np.float32) for n in ("s", "b", "mean", "variance")}
    arrays["x"] = rng.normal(size=(5, 3, 2)).astype(np.float32)
    args = {n: leaf(n, f32[a.shape]) for n, a in arrays.items()}
    y, *following = batch_norm(*(args[n] for n in ("x", "s", "b", "mean", "variance")))
    graph = Graph("norm", {"y": y, "m": following[0], "v": following[1]}, tuple(args.values()))
    proto = to_model(optimize(graph))
    training = [a for n in proto.graph.node for a in n.attribute if a.name == "training_mode"]
    assert not any(a.i for a in training)
    run = session(proto)  # which looks whether the feeds are the same afterwards
    first, second = run(arrays), run(arrays)
    for n, a in first.items():
        np.testing.assert_array_equal(a, second[n], n)
