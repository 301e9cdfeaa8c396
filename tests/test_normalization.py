"""Batch, layer, group, instance and RMS normalization against torch, in training and inference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    f32,
    f64,
    i64,
    mean_squared_error,
    model,
    relu,
    sgd,
    training,
)
from nncompile.backends.onnx import to_model
from nncompile.compiler import compile_step
from nncompile.errors import DTypeError, ModelError, ShapeError
from nncompile.export import export
from nncompile.grad import grad, vjp
from nncompile.graph import Graph, Input, Value
from nncompile.model import Model
from nncompile.ops import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from nncompile.ops.normalization import BatchNorm as Card
from nncompile.passes import inference, optimize
from nncompile.passes.bake import bake
from nncompile.passes.folding_normalization import fold_normalization
from nncompile.reference import evaluate
from nncompile.step import compose, initial_values
from nncompile.types import Array, Type
from tests.card_checks import session, valid_model
from tests.slopes import check_gradient
from tests.tolerances import assert_close

# Of an element of float32 against float64, in units of the largest: a few roundings.
ROUNDING = 1e-6
# The same after a hundred steps of training, where roundings have added up. Those of torch itself
# are as large.
TRAINED = 3e-6


def leaf(name: str, type_: Type) -> Value:
    return Input(name, type_)()


def off(actual: Any, exact: Any) -> float:
    """The largest difference in units of the largest number, or of 1."""
    actual, exact = np.asarray(actual, np.float64), np.asarray(exact, np.float64)
    assert actual.shape == exact.shape
    assert np.isfinite(actual).all()
    return float(np.abs(actual - exact).max(initial=0) / max(1.0, np.abs(exact).max(initial=0)))


def normalize(name: str) -> Callable[..., tuple[Value, ...]]:
    """A function of x, a scale and a bias, as our op has it and with several results."""
    functions: dict[str, Callable[..., tuple[Value, ...]]] = {
        "batch": lambda x, s, b: batch_norm(x, s, b, 0.5 * s, 2 * s, 0.3, 1e-3)[:1],
        "layer": lambda x, s, b: (layer_norm(x, s, b),),
        "layer2": lambda x, s, b: (layer_norm(x, s, b, axes=2, eps=1e-3),),
        "bare layer": lambda x, s, b: (layer_norm(x) * s + b,),
        "bias alone": lambda x, s, b: (layer_norm(x, bias=b) * s,),
        "group": lambda x, s, b: (group_norm(x, 2, s, b),),
        "instance": lambda x, s, b: (instance_norm(x, s, b, 1e-4),),
        "rms": lambda x, s, b: (rms_norm(x, s) + b,),
        "rms2": lambda x, s, b: (rms_norm(x, s, axes=2, eps=1e-3) + b,),
    }
    return functions[name]


def torch_normalize(name: str, x: Any, s: Any, b: Any) -> Any:
    """The same in torch."""
    F = pytest.importorskip("torch").nn.functional
    match name:
        case "batch":
            return F.batch_norm(x, None, None, s, b, True, 0.3, 1e-3)
        case "layer" | "bare layer":
            return F.layer_norm(x, s.shape, s, b)
        case "layer2":
            return F.layer_norm(x, s.shape, s, b, 1e-3)
        case "bias alone":
            return F.layer_norm(x, s.shape, None, b) * s
        case "group":
            return F.group_norm(x, 2, s, b)
        case "instance":
            return F.instance_norm(x, None, None, s, b, eps=1e-4)
        case "rms":
            return F.rms_norm(x, s.shape, s) + b
    return F.rms_norm(x, s.shape, s, 1e-3) + b


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
def test_results_and_slopes_agree_with_torch(
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
    actual = session(valid_model(graph))(feeds, shapes)
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
def test_slopes_of_the_second_order_are_differences(
    name: str, shape: tuple[int, ...], own: tuple[int, ...]
) -> None:
    arrays = operands(shape, own)
    check_gradient(lambda x, s, b: normalize(name)(x, s, b)[0], *(arrays[n] for n in "xsb"))


def test_statistics_have_slopes_too() -> None:
    """Of all results of the card together, at all of its arguments."""
    arrays = operands((4, 2, 3), (2,))

    def everything(*args: Value) -> Value:
        y, *statistics = batch_norm(*args, momentum=0.25)
        return (y * y).sum() + sum((v * v * v).sum() for v in statistics)  # type: ignore[no-any-return]

    check_gradient(everything, *(arrays[n] for n in "xsb"), arrays["b"], arrays["s"])


# Training.


@model(predict=("y",))
def images(image=f32["batch", 3, "h", "w"], target=f32["batch", 4]):  # type: ignore[no-untyped-def]
    h = relu(image >> BatchNorm(name="first", eps=1e-3)).mean(axis=(2, 3))
    y = h >> Dense(4, name="dense") >> BatchNorm(name="last", momentum=0.3)
    return {"y": y, "loss": mean_squared_error(y, target)}


def batches(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.normal(1, 2, (8, 3, 4, 5)).astype(np.float32),
            "target": rng.normal(size=(8, 4)).astype(np.float32),
        }
        for _ in range(count)
    ]


def torch_trained(first: dict[str, Array], steps: list[dict[str, Array]], dtype: Any) -> Any:
    """`images` in torch, trained by steps of size 0.1."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = nn.ModuleDict(
        {
            "first": nn.BatchNorm2d(3, eps=1e-3),
            "dense": nn.Linear(3, 4),
            "last": nn.BatchNorm1d(4, momentum=0.3),
        }
    ).to(dtype)
    with torch.no_grad():
        net["dense"].weight.copy_(torch.tensor(first["dense.weight"].T))
        net["dense"].bias.zero_()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for batch in steps:
        image, target = (torch.tensor(batch[n], dtype=dtype) for n in ("image", "target"))
        h = torch.relu(net["first"](image)).mean((2, 3))
        loss = nn.functional.mse_loss(net["last"](net["dense"](h)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {
        n: (x.T if n == "dense.weight" else x).double().numpy()
        for n, x in net.state_dict().items()
        if not n.endswith("num_batches_tracked")
    }


def test_a_hundred_steps_agree_with_torch() -> None:
    """Weights and running statistics, in float32, against torch in float64."""
    torch = pytest.importorskip("torch")
    recipe = training(images, minimize="loss", optimizer=sgd(0.1), batch=8)
    step = compile_step(recipe)
    first = step.source.initial()
    runner = step.runner(first, threads=1)
    steps = batches(100)
    for batch in steps:
        runner.step(batch)
    ours = runner.state()
    exact = torch_trained(first, steps, torch.float64)
    theirs = torch_trained(first, steps, torch.float32)
    assert set(exact) <= set(ours)
    assert off(ours["last.running_var"], np.ones(4)) > 0.1  # they have moved
    for name, reference in exact.items():
        assert off(ours[name], reference) < TRAINED, name
        assert off(theirs[name], reference) < TRAINED, name


def test_predictions_are_by_the_running_statistics() -> None:
    state = initial_values(images, 0)
    rng = np.random.default_rng(3)
    for name in state:
        if "running" in name:
            state[name] = rng.uniform(0.5, 2, state[name].shape).astype(np.float32)
    batch = batches(1)[0]
    whole = evaluate(images.inference(), state | batch)["y"]
    for i in range(8):  # each example by itself gives the same
        one = {n: x[i : i + 1] for n, x in batch.items()}
        assert_close(evaluate(images.inference(), state | one)["y"], whole[i : i + 1], "float32")
    x = batch["image"].astype(np.float64)
    shift = state["first.running_mean"][:, None, None]
    h = (x - shift) / np.sqrt(state["first.running_var"] + 1e-3)[:, None, None]
    h = np.maximum(h, 0).mean((2, 3)) @ state["dense.weight"]
    y = (h - state["last.running_mean"]) / np.sqrt(state["last.running_var"] + 1e-5)
    assert off(whole, y) < ROUNDING


def test_inference_leaves_no_batch_normalization() -> None:
    plain = inference(images.whole)
    assert not any(isinstance(v.op, Card) for v in plain.nodes)
    for path, state in images.states.items():
        assert plain.outputs[f"{path}.next"] is state


def test_a_frozen_scope_keeps_its_statistics() -> None:
    frozen = inference(images.whole, "first")
    assert frozen.outputs["first.running_mean.next"] is images.states["first.running_mean"]
    assert frozen.outputs["first.running_var.next"] is images.states["first.running_var"]
    updates = {n: frozen.outputs[f"{n}.next"] for n in images.states}
    outputs = {n: frozen.outputs[n] for n in images.outputs}
    partly = Model("partly", images.graph.with_outputs(outputs), images.initial, updates)
    step = compose(training(partly, minimize="loss", optimizer=sgd(0.1), batch=8))
    state, batch = step.initial(), batches(1)[0]
    after = evaluate(step.step, state | batch)
    np.testing.assert_array_equal(after["first.running_mean.next"], np.zeros(3))
    assert off(after["last.running_mean.next"], np.zeros(4)) > 1e-3
    assert off(after["first.weight.next"], np.ones(3)) > 1e-4  # it is trained nevertheless


def test_two_calls_of_one_layer_chain_their_updates() -> None:
    norm = BatchNorm(momentum=0.5, name="norm")

    @model
    def twice(a=f32["n", 2], b=f32["m", 2]):  # type: ignore[no-untyped-def]
        return {"y": a >> norm, "z": b >> norm}

    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(4, 2)).astype(np.float32) for _ in range(2))
    feeds = {**initial_values(twice, 0), "a": a, "b": b}
    after = evaluate(twice.whole, feeds)["norm.running_mean.next"]
    assert_close(after, a.mean(0) / 4 + b.mean(0) / 2, "float32")
    used = inference(twice.whole)
    assert used.outputs["norm.running_mean.next"] is twice.states["norm.running_mean"]


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


def with_slopes(type_: Type) -> Graph:
    """All of them, and the slope of each at x from a slope g."""
    x, g = leaf("x", type_), leaf("g", type_)
    outputs = all_layers(x)
    slopes = {
        f"slope of {n}": vjp([y], [x], [g])[0] for n, y in outputs.items() if y.rank == x.rank
    }
    return optimize(Graph("norms", outputs | slopes, (x, g)))


def computed(graph: Graph, x: Array) -> tuple[dict[str, Array], dict[str, Array]]:
    """By onnxruntime in float32, and in double."""
    g = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    feeds = {n: a for n, a in {"x": x, "g": g}.items() if n in graph.leaves}
    exact = evaluate(graph, feeds, np.float64)
    return session(valid_model(graph))(feeds, {n: a.shape for n, a in exact.items()}), exact


def test_one_file_works_at_several_sizes() -> None:
    graph = with_slopes(f32["batch", 4, "h", 3])
    run = session(valid_model(graph))
    for batch, height in ((1, 1), (1, 5), (6, 2), (33, 7)):
        x, g = np.random.default_rng(batch).normal(1, 2, (2, batch, 4, height, 3))
        feeds = {"x": x.astype(np.float32), "g": g.astype(np.float32)}
        exact = evaluate(graph, feeds, np.float64)
        actual = run(feeds, {n: a.shape for n, a in exact.items()})
        for name, reference in exact.items():
            assert off(actual[name], reference) < 2 * ROUNDING, (name, batch, height)


@pytest.mark.parametrize("constant", [0.0, 1.0, -0.1, 1000.1, 12345.678])
@pytest.mark.parametrize("shape", [(1, 4, 1, 3), (5, 4, 6, 3), (64, 4, 16, 3)])
def test_constant_inputs_are_finite_and_right(constant: float, shape: tuple[int, ...]) -> None:
    """The variance is 0: the result is the bias, and the statistics are the number and 0."""
    x = np.full(shape, constant, np.float32)
    actual, exact = computed(with_slopes(f32["batch", 4, "h", 3]), x)
    for name in ("batch", "layer", "group", "instance"):
        assert off(actual[name], np.ones(shape)) < 1e-5, name
        assert off(actual[f"slope of {name}"], exact[f"slope of {name}"]) < 1e-5, name
    assert off(actual["mean"], np.full(4, 0.1 * x.flat[0].astype(np.float64))) < 1e-6
    np.testing.assert_allclose(actual["variance"], 0.9, rtol=1e-6)
    for name in ("rms", "slope of rms"):
        assert off(actual[name], exact[name]) < 1e-4, name


def test_a_batch_of_one_number_a_channel_gives_the_bias() -> None:
    """torch refuses it; the variance that it counts with is 0, not 0/0."""
    x = leaf("x", f32["batch", 3])
    s, b = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    y, mean, variance = batch_norm(x, s, b, 0 * s, s, momentum=0.25)
    graph = optimize(Graph("one", {"y": y, "mean": mean, "variance": variance,
                                   "slope": grad((y * y).sum(), x)}, (x,)))  # fmt: skip
    actual, _ = computed(graph, np.array([[7, -8, 9]], np.float32))
    np.testing.assert_array_equal(actual["y"], [[4, 5, 6]])
    np.testing.assert_allclose(actual["mean"], [1.75, -2, 2.25], rtol=1e-6)
    np.testing.assert_allclose(actual["variance"], 0.75 * s, rtol=1e-6)
    np.testing.assert_array_equal(actual["slope"], np.zeros((1, 3)))


def test_large_numbers_that_are_alike_are_told_apart() -> None:
    """A mean a thousand times the deviation takes no more than the rounding of x itself costs."""
    x = np.random.default_rng(0).normal(1000, 1, (64, 4, 16, 3)).astype(np.float32)
    actual, exact = computed(with_slopes(f32["batch", 4, "h", 3]), x)
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
    loaded = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    before = {n: a.copy() for n, a in arrays.items()}
    first = loaded.run(None, arrays)
    for n, a in arrays.items():
        np.testing.assert_array_equal(a, before[n], n)
    for a, b in zip(first, loaded.run(None, arrays), strict=True):
        np.testing.assert_array_equal(a, b)


# Folding.


def moved(of: Model) -> dict[str, Array]:
    """Weights and statistics as after training: none of them trivial."""
    rng = np.random.default_rng(5)
    first = initial_values(of, 0)
    return {n: (x + rng.uniform(0.2, 1.5, x.shape)).astype(x.dtype) for n, x in first.items()}


@model(predict=("y",))
def dense(x=f32["batch", 6], target=f32["batch", 2]):  # type: ignore[no-untyped-def]
    h = relu(x >> Dense(5) >> BatchNorm())
    y = h >> Dense(2, use_bias=False) >> BatchNorm(affine=False)
    return {"y": y, "loss": mean_squared_error(y, target)}


@model(predict=("y",))
def convolved(x=f32["batch", 4, "h", "w"], target=f32["batch", 3]):  # type: ignore[no-untyped-def]
    h = relu(x >> Conv2d(6, 3, groups=2) >> BatchNorm())
    y = h >> Conv2d(3, 2, stride=2, use_bias=False) >> BatchNorm(eps=1e-2)
    return {"y": y, "loss": mean_squared_error(y.mean(axis=(2, 3)), target)}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    ("of", "shape", "kinds"),
    [(dense, (6,), ["Gemm", "Relu", "Gemm"]), (convolved, (4, 7, 8), ["Conv", "Relu", "Conv"])],
)
def test_an_exported_model_has_batch_normalization_in_its_weights(
    tmp_path: Path, of: Model, shape: tuple[int, ...], kinds: list[str], external: bool
) -> None:
    state = moved(of)
    *_, path = export(of, tmp_path / "model.onnx", params=state, external_data=external)
    proto = onnx.load(path)
    assert [n.op_type for n in proto.graph.node] == kinds
    names = {t.name for t in proto.graph.initializer}
    assert not names & {*of.states, *(n for n in of.parameters if "batch_norm" in n)}
    loaded = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 9):
        x = np.random.default_rng(count).normal(size=(count, *shape)).astype(np.float32)
        (y,) = loaded.run(["y"], {"x": x})
        feeds = {n: a for n, a in state.items() if n in of.inference().leaves}
        exact = evaluate(of.inference(), {"x": x} | feeds, np.float64)["y"]
        assert off(y, exact) < ROUNDING


def test_torchscript_keeps_the_weights_under_their_names(
    tmp_path: Path, torchscript: SimpleNamespace
) -> None:
    state = moved(convolved)
    (path,) = export(convolved, tmp_path / "model.pt", to="torchscript", params=state)
    module = torchscript.torch.jit.load(path)
    assert "batch_norm.running_mean" in module.state_dict()
    x = np.random.default_rng(0).normal(size=(3, 4, 7, 8)).astype(np.float32)
    actual = module(torchscript.torch.from_numpy(x))["y"].detach().numpy()
    feeds = {n: a for n, a in state.items() if n in convolved.inference().leaves}
    exact = evaluate(convolved.inference(), {"x": x} | feeds, np.float64)["y"]
    assert off(actual, exact) < ROUNDING


def folded(y: Value, *kept: Value) -> Graph:
    return fold_normalization(Graph("test", {f"y{i}": v for i, v in enumerate((y, *kept))}))


def test_only_what_is_by_channel_and_of_weights_is_folded() -> None:
    x, w = leaf("x", f32["n", 3]), Input("w", f32[3, 2], "parameter")()
    f, c = (Input(n, f32[2], "parameter")() for n in "fc")
    rows = leaf("rows", f32[2])
    product = x @ w
    assert folded(product * f + c).outputs["y0"] is x @ (w * f) + c
    assert folded((product + c) * f).outputs["y0"] is x @ (w * f) + c * f
    assert folded(product + c).outputs["y0"] is product + c
    refused = [product * rows, product * product, (product * f, product)]
    for case in refused:
        y, *kept = case if isinstance(case, tuple) else (case,)
        assert folded(y, *kept).outputs["y0"] is y
    sequence = leaf("sequence", f32["n", 2, 3]) @ w
    by_row = f.reshape((2, 1))
    assert folded(sequence * by_row).outputs["y0"] is sequence * by_row
    assert folded(sequence * f).outputs["y0"] is sequence.args[0] @ (w * f)


def test_a_shared_weight_is_not_kept_twice() -> None:
    x = leaf("x", f32["n", 40])
    w, f = Input("w", f32[40, 40], "parameter")(), Input("f", f32[40], "parameter")()
    arrays = {"w": np.ones((40, 40), np.float32), "f": np.ones(40, np.float32)}
    alone, weights = bake(Graph("one", {"y": x @ (w * f)}), arrays)
    assert set(weights) == {"w_folded"}
    np.testing.assert_array_equal(weights["w_folded"], arrays["w"])
    assert list(alone.leaves) == ["x", "w_folded"]
    both = Graph("two", {"y": x @ (w * f) + x @ w})
    same, weights = bake(both, arrays)
    assert same.outputs["y"] is both.outputs["y"]
    assert set(weights) == {"w", "f"}


# Layers and mistakes.


def test_layers_have_the_parameters_of_torchs() -> None:
    @model
    def many(x=f32["n", 4, 6, 5]):  # type: ignore[no-untyped-def]
        return {
            "batch": x >> BatchNorm(),
            "layer": x >> LayerNorm(axes=2),
            "plain": x >> LayerNorm(use_bias=False, name="plain"),
            "rms": x >> RMSNorm(),
            "group": x >> GroupNorm(2),
            "instance": x >> InstanceNorm(),
            "affine": x >> InstanceNorm(affine=True, name="affine"),
        }

    shapes = {n: v.shape for n, v in {**many.parameters, **many.states}.items()}
    assert shapes == {
        "batch_norm.weight": (4,),
        "batch_norm.bias": (4,),
        "layer_norm.weight": (6, 5),
        "layer_norm.bias": (6, 5),
        "plain.weight": (5,),
        "rmsnorm.weight": (5,),
        "group_norm.weight": (4,),
        "group_norm.bias": (4,),
        "affine.weight": (4,),
        "affine.bias": (4,),
        "batch_norm.running_mean": (4,),
        "batch_norm.running_var": (4,),
    }


def built(layer: Any, type_: Type) -> Model:
    @model
    def one(x=type_):  # type: ignore[no-untyped-def]
        return {"y": x >> layer}

    return one


def test_layers_are_of_the_element_type_of_x() -> None:
    for layer in (BatchNorm(), LayerNorm(), RMSNorm(), GroupNorm(2), InstanceNorm(affine=True)):
        made = built(layer, f64["n", 4, 3])
        assert {v.dtype for v in (*made.parameters.values(), *made.outputs.values())} == {f64}


@pytest.mark.parametrize(
    ("layer", "type_", "error", "message"),
    [
        (BatchNorm(), f32["n"], ShapeError, r"BatchNorm needs \[batch, channels, …\]"),
        (BatchNorm(), f32["n", "c"], ShapeError, "BatchNorm needs a known number of channels"),
        (BatchNorm(), i64["n", 3], DTypeError, "BatchNorm needs floating numbers"),
        (LayerNorm(axes=3), f32["n", 3], ShapeError, "LayerNorm is over the last 3 axes"),
        (LayerNorm(), f32[3, "n"], ShapeError, "LayerNorm needs last axes of known size"),
        (RMSNorm(), f32[3, "n"], ShapeError, "RMSNorm needs last axes of known size"),
        (GroupNorm(3), f32["n", 4, 2], ShapeError, "3 groups do not divide 4 channels"),
        (InstanceNorm(), f32["n", 4], ShapeError, "InstanceNorm needs .*size"),
        (InstanceNorm(), i64["n", 4, 2], DTypeError, "InstanceNorm needs floating numbers"),
    ],
)
def test_layers_say_what_does_not_fit(
    layer: Any, type_: Type, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        built(layer, type_)
    assert str(type_) in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm(momentum=1.5), "momentum of BatchNorm"),
        (lambda: BatchNorm(eps=0), "eps of BatchNorm"),
        (lambda: LayerNorm(axes=0), "axes of LayerNorm"),
        (lambda: GroupNorm(0), "groups of GroupNorm"),
        (lambda: RMSNorm(eps=-1.0), "eps of RMSNorm"),
        (lambda: InstanceNorm(eps=float("nan")), "eps of InstanceNorm"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_ops_say_what_does_not_fit() -> None:
    x, c = leaf("x", f32["n", 3, 2]), np.ones(3, np.float32)
    with pytest.raises(ShapeError, match="bias is one number for each channel"):
        batch_norm(x, c, np.ones(2, np.float32), c, c)
    with pytest.raises(DTypeError, match="variance is f64"):
        batch_norm(x, c, c, c, np.ones(3))
    with pytest.raises(ModelError, match="Keras"):
        batch_norm(x, c, c, c, c, momentum=-0.1)
    with pytest.raises(ShapeError, match="the scale for"):
        layer_norm(x, c)
    with pytest.raises(ShapeError, match="2 groups do not divide 3 channels"):
        group_norm(x, 2)
    with pytest.raises(ShapeError, match="scale is one number for each channel"):
        instance_norm(x, np.ones(2, np.float32))
    with pytest.raises(ShapeError, match="over the last 4 axes"):
        rms_norm(x, axes=4)
