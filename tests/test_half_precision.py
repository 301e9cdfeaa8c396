"""Models, formulas, losses and random numbers of 16 bits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    LSTM,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    FeedForward,
    GlobalAveragePool,
    GroupNorm,
    LayerNorm,
    MaxPool2d,
    MultiHeadAttention,
    cross_entropy,
    f32,
    model,
    mse,
    parameter,
    relu,
    u8,
)
from nncompile import Graph, Trainer, Value, compile_model, training
from nncompile.backends.onnx import to_model
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import DType
from nncompile.ops.random import generator as random
from nncompile.runtime.session import Session
from tests.element_type_checks import HALVES, computed
from tests.leaves import leaf
from tests.tolerances import assert_close


def regression(dtype: DType) -> Any:
    @model
    def line(x: Value = dtype["batch", 8], y: Value = dtype["batch", 1]) -> Any:
        prediction = x @ parameter("weight", (8, 1), dtype=dtype)
        return {"prediction": prediction, "loss": mse(prediction, y)}

    return line


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("optimizer", [dsl.sgd(0.05), dsl.adam(0.3)])
def test_parameters_of_16_bits_are_trained_and_saved(
    dtype: DType, optimizer: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 8)).astype(dtype.numpy)
    y = (x.astype(float) @ rng.normal(size=(8, 1))).astype(dtype.numpy)
    trainer = Trainer(
        training(regression(dtype), minimize="loss", optimizer=optimizer, batch_size=16)
    )
    history = trainer.fit({"x": x, "y": y}, epochs=30)
    assert history.last["loss"] < 0.02
    assert trainer.predict({"x": x})["prediction"].dtype == dtype.numpy
    file = tmp_path / "line.safetensors"
    trainer.save(file)
    other = Trainer(
        training(regression(dtype), minimize="loss", optimizer=optimizer, batch_size=16)
    )
    other.load(file)
    for name, array in trainer.state.items():
        assert other.state[name].dtype == array.dtype
        np.testing.assert_array_equal(other.state[name], array)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_formula_is_rounded_once(dtype: DType, torchscript: SimpleNamespace) -> None:
    """(x + 1) − 1 in one formula keeps the digits that 16 bits would lose between."""

    @dsl.formula
    def there_and_back(x: Any, y: Any) -> Any:
        return dsl.maximum(x + y, -1e9) - y

    x = np.array([2**-9, 0.30078125, -0.75, 3e-5], dtype.numpy)
    y = np.full(4, 8, dtype.numpy)
    graph = Graph("one", {"found": there_and_back(leaf("x", dtype["n"]), leaf("y", dtype["n"]))})
    apart = Graph("two", {"found": (leaf("x", dtype["n"]) + leaf("y", dtype["n"])) * 1})
    expected = x.astype(np.float32) + 8 - 8
    for run in (Session(to_model(graph)).run, torchscript.backend.to_function(graph)):
        np.testing.assert_array_equal(run({"x": x, "y": y})["found"], expected.astype(dtype.numpy))
    rounded = (x.astype(np.float32) + 8).astype(dtype.numpy)
    np.testing.assert_array_equal(computed(apart, x=x, y=y)["found"], rounded)


def seen(x: Value) -> Value:
    planes = x >> Conv2d(4, 3) >> BatchNorm() >> relu >> MaxPool2d(2)
    return planes >> GroupNorm(2) >> Dropout(0.1) >> GlobalAveragePool()


def heard(x: Value) -> Value:
    states = dsl.reshape(x, (-1, 12, 9)) >> LSTM(4, return_sequences=True) >> LayerNorm()
    return dsl.mean(states >> MultiHeadAttention(2) >> FeedForward(8), axis=1)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layers", [seen, heard])
def test_networks_of_16_bits_are_trained(
    layers: Any, dtype: DType, torchscript: SimpleNamespace
) -> None:
    @model(predict="logits")
    def net(x: Value = dtype["batch", 3, 6, 6], label: Value = u8["batch"]) -> Any:
        logits = layers(x) >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3, 6, 6)).astype(dtype.numpy)
    label = (3 * rng.random(24)).astype(np.uint8)
    recipe = training(net, minimize="loss", optimizer=dsl.adamw(0.01), clip_norm=1.0, batch_size=8)
    trainer = Trainer(recipe)
    history = trainer.fit({"x": x, "label": label}, epochs=8)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    for path, leaf_ in trainer.compiled.source.model.parameters.items():
        assert leaf_.dtype is dtype and trainer.state[path].dtype == dtype.numpy
        assert trainer.state[f"{path}.v"].dtype == np.float32
    logits = trainer.predict({"x": x})["logits"]
    assert logits.dtype == dtype.numpy
    graph = compile_model(net).graph
    expected = evaluate(graph, {**trainer.state, "x": x})["logits"]  # rounded at every node, too
    assert_close(logits, expected, dtype.name)
    script = torchscript.backend.to_function(graph)
    found = script({name: trainer.state.get(name, x) for name in graph.leaves})["logits"]
    assert found.dtype == dtype.numpy
    assert_close(found, expected, dtype.name)


@pytest.mark.parametrize("dtype", HALVES)
def test_what_comes_between_may_be_beyond_16_bits(dtype: DType) -> None:
    """Sums, squares and counts of functions of several ops are float32."""
    v = leaf("x", dtype["n", 2])
    functions = {
        "mean": dsl.mean(v),
        "var": dsl.var(v),
        "std": dsl.std(v, 0),
        "norm": dsl.norm(v[:50]),
        "median": dsl.median(v, 0),
        "quantile": dsl.quantile(v, 0.3, 0),
        "rms_norm": dsl.rms_norm(v),
        "unit_norm": dsl.unit_norm(v * 0),
        "distances": dsl.cdist(v[:3], v[3:5]),
    }
    graph = Graph("wide", functions)
    x = np.random.default_rng(0).normal(300, 30, (70_000, 2)).astype(dtype.numpy)
    found, expected = computed(graph, x=x), evaluate(graph, {"x": x}, np.float64)
    for name, y in functions.items():
        assert y.dtype is dtype
        # Distances of numbers that are alike keep few digits in float32.
        error = np.abs(found[name].astype(float) - expected[name])
        assert np.max(error) <= dtype.eps * np.max(np.abs(expected[name])), name


@pytest.mark.parametrize("dtype", HALVES)
def test_losses_of_16_bits_are_float32(dtype: DType) -> None:
    logits, target = leaf("z", dtype["n", 3]), leaf("t", dtype["n", 3])
    label = leaf("label", u8["n"])
    losses = [mse(logits, target), cross_entropy(logits, label), dsl.huber(logits, target)]
    assert [loss.dtype for loss in losses] == [f32] * 3
    graph = Graph("losses", {str(i): loss for i, loss in enumerate(losses)})
    feeds = {
        "z": np.full((4, 3), 400, dtype.numpy),
        "t": np.full((4, 3), -400, dtype.numpy),
        "label": np.array([0, 1, 2, 1], np.uint8),
    }
    expected = evaluate(graph, feeds, np.float64)
    for name, loss in Session(to_model(graph)).run(feeds).items():
        assert_close(loss, expected[name], "float32", name)


@pytest.mark.parametrize("dtype", HALVES)
def test_random_numbers_of_16_bits(dtype: DType) -> None:
    key = random.random_key("key", 1)
    drawn = {
        "uniform": random.uniform(key, (50_000,), dtype=dtype),
        "normal": random.normal(key, (50_000,), dtype=dtype),
        "truncated": random.truncated_normal(key, (50_000,), dtype=dtype),
    }
    found = evaluate(Graph("drawn", drawn), {})
    assert all(x.dtype == dtype.numpy for x in found.values())
    wide = {name: x.astype(float) for name, x in found.items()}
    assert wide["uniform"].min() >= 0 and wide["uniform"].max() < 1
    assert abs(wide["uniform"].mean() - 0.5) < 0.005
    assert abs(wide["normal"].std() - 1) < 0.02 and np.abs(wide["normal"]).max() > 3.5
    assert np.abs(wide["truncated"]).max() <= 2
