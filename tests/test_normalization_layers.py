"""Layers of normalization: training as torch's, running statistics, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    RMSNorm,
    f32,
    f64,
    i64,
    model,
    sgd,
    training,
)
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array, Type
from nncompile.ops import batch_norm, group_norm, instance_norm, layer_norm, rms_norm
from nncompile.ops.normalization.batch import BatchNorm as BatchNormOp
from nncompile.passes import inference
from nncompile.program.composition import compose
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from tests.backends import in_onnxruntime
from tests.layer_checks import built
from tests.leaves import leaf
from tests.normalized import ROUNDING, batches, images, off
from tests.tolerances import assert_close

# The same after a hundred steps of training, where roundings have added up. Those of torch itself
# are as large.
TRAINED = 3e-6


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
    recipe = training(images, minimize="loss", optimizer=sgd(0.1), batch_size=8)
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
    assert not any(isinstance(v.op, BatchNormOp) for v in plain.nodes)
    for path, state in images.states.items():
        assert plain.outputs[f"{path}.next"] is state


def test_a_frozen_scope_keeps_its_statistics() -> None:
    frozen = inference(images.whole, "first")
    assert frozen.outputs["first.running_mean.next"] is images.states["first.running_mean"]
    assert frozen.outputs["first.running_var.next"] is images.states["first.running_var"]
    updates = {n: frozen.outputs[f"{n}.next"] for n in images.states}
    outputs = {n: frozen.outputs[n] for n in images.outputs}
    partly = Model("partly", images.graph.with_outputs(outputs), images.initial, updates)
    step = compose(training(partly, minimize="loss", optimizer=sgd(0.1), batch_size=8))
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


# Cumulative statistics, and none.


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_cumulative_statistics_are_torchs(dtype: Any) -> None:
    """The mean of all batches, of several sizes, in the exported step; a step from a checkpoint
    goes on counting."""
    torch = pytest.importorskip("torch")

    @model(predict="y")
    def net(x=dtype["n", 3]):  # type: ignore[no-untyped-def]
        y = x >> BatchNorm(momentum=None, name="norm")
        return {"y": y, "loss": (y * y * y).mean()}

    theirs = torch.nn.BatchNorm1d(3, momentum=None, dtype=torch.float64)
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1)
    step = compile_step(training(net, optimizer=sgd(0.1)))
    runner = step.runner(step.source.initial(), threads=1)
    rng = np.random.default_rng(4)
    for number in range(1, 8):
        batch = rng.normal(number, 2, (3 + number, 3)).astype(dtype.numpy)
        runner.step({"x": batch})
        optimizer.zero_grad()
        (theirs(torch.tensor(batch.astype(np.float64))) ** 3).mean().backward()
        optimizer.step()
        state = runner.state()
        assert state["norm.num_batches_tracked"] == number
        for name, x in theirs.state_dict().items():
            assert_close(state[f"norm.{name}"], x.numpy(), dtype.name, f"{name} after {number}")
        if number == 3:
            runner = step.runner(state, threads=1)
    x = rng.normal(size=(4, 3)).astype(dtype.numpy)
    found = evaluate(net.inference(), state | {"x": x})["y"]
    expected = theirs.eval()(torch.tensor(x.astype(np.float64))).detach().numpy()
    assert_close(found, expected, dtype.name)


def test_without_running_statistics_the_batch_has_its_own() -> None:
    """In inference as in training, with no state; beside one that has a state, and frozen."""

    @model(predict=("y", "z"))
    def net(x=f32["n", 3, "l"]):  # type: ignore[no-untyped-def]
        y = x >> BatchNorm(track_running_stats=False, name="own")
        z = x >> BatchNorm(name="kept")
        return {"y": y, "z": z, "loss": (y * y * y).mean() + z.mean()}

    assert not [path for path in net.states if path.startswith("own")]
    rng = np.random.default_rng(5)
    x = rng.normal(3, 2, (4, 3, 5)).astype(np.float32)
    feeds = {"x": x, **initial_values(net, 0)}
    distance = x - x.mean((0, 2), keepdims=True)
    expected = distance / np.sqrt((distance**2).mean((0, 2), keepdims=True) + 1e-5)
    graph = net.inference()
    assert_close(evaluate(graph, feeds)["y"], expected, "float32")
    found = in_onnxruntime(graph, feeds, {"y": x.shape, "z": x.shape})
    assert_close(found["y"], expected, "float32")
    frozen = compose(training(net, optimizer=sgd(0.1), freeze="own.*"))
    assert any(isinstance(v.op, BatchNormOp) for v in frozen.step.nodes)


def test_batch_normalization_without_a_bias() -> None:
    made = built(BatchNorm(bias=False, name="norm"), f32["n", 3])
    assert set(made.parameters) == {"norm.weight"}
    for layer in (GroupNorm(2, bias=False), InstanceNorm(affine=True, bias=False)):
        assert [p.rpartition(".")[2] for p in built(layer, f32["n", 4, 5]).parameters] == ["weight"]


# Layers and mistakes.


def test_layers_have_the_parameters_of_torchs() -> None:
    @model
    def many(x=f32["n", 4, 6, 5]):  # type: ignore[no-untyped-def]
        return {
            "batch": x >> BatchNorm(),
            "layer": x >> LayerNorm(axes=2),
            "plain": x >> LayerNorm(bias=False, name="plain"),
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
        (LayerNorm(axes=3), f32["n", 3], ShapeError, "LayerNorm normalizes the last 3 axes"),
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
        (lambda: GroupNorm(0), "num_groups of GroupNorm"),
        (lambda: RMSNorm(eps=-1.0), "eps of RMSNorm"),
        (lambda: InstanceNorm(eps=float("nan")), "eps of InstanceNorm"),
    ],
)
def test_options_that_make_no_sense_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_ops_say_what_does_not_fit() -> None:
    x, c = leaf("x", f32["n", 3, 2]), np.ones(3, np.float32)
    with pytest.raises(ShapeError, match="bias needs one number for each channel"):
        batch_norm(x, c, np.ones(2, np.float32), c, c)
    with pytest.raises(DTypeError, match="variance is f64"):
        batch_norm(x, c, c, c, np.ones(3))
    with pytest.raises(ModelError, match="Keras"):
        batch_norm(x, c, c, c, c, momentum=-0.1)
    with pytest.raises(ShapeError, match="the scale for"):
        layer_norm(x, c)
    with pytest.raises(ShapeError, match="2 groups do not divide 3 channels"):
        group_norm(x, 2)
    with pytest.raises(ShapeError, match="scale needs one number for each channel"):
        instance_norm(x, np.ones(2, np.float32))
    with pytest.raises(ShapeError, match="over the last 4 axes"):
        rms_norm(x, axes=4)
