"""Element types: which one two of them come to, and what is fed, computed, trained and saved in
types of 8 and 16 bits."""

from __future__ import annotations

import copy
import pickle
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
    bf16,
    cross_entropy,
    f16,
    f32,
    flatten,
    i64,
    model,
    mse,
    parameter,
    relu,
    u8,
)
from nncompile import Graph, Trainer, Value, compile_model, training
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import DTypeError, FeedError
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    dtype_of,
    holds,
    i8,
    promote,
    u16,
    u64,
)
from nncompile.ops import cast
from nncompile.ops.random import generator as random
from nncompile.runtime.checkpoint import load_state, save_state
from nncompile.runtime.session import Session
from tests.leaves import leaf
from tests.tolerances import assert_close

HALVES = [f16, bf16]


def undefined(a: DType, b: DType) -> bool:
    """Whether no type holds both: uint64 with a signed one."""
    return u64 in (a, b) and any(d.is_integer and d.is_signed for d in (a, b))


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_promotion_is_that_of_torch_and_of_numpy(
    a: DType, b: DType, torchscript: SimpleNamespace
) -> None:
    torch = torchscript.torch
    if undefined(a, b):
        with pytest.raises(DTypeError, match="no integer type holds both"):
            promote(a, b)
        return
    found = promote(a, b)
    assert found is promote(b, a)
    if a.is_float or b.is_float or u64 not in (a, b):
        kinds = (getattr(torch, d.name) for d in (a, b))
        try:
            assert str(torch.promote_types(*kinds)) == f"torch.{found.name}"
        except RuntimeError:  # torch leaves its newer unsigned types out here and there
            assert not {u16, dsl.u32, u64}.isdisjoint((a, b))
    if not (a.is_float or b.is_float):
        assert np.promote_types(a.numpy, b.numpy) == found.numpy


@pytest.mark.parametrize("wide", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_holds_a_type_gives_its_numbers_back(wide: DType, dtype: DType) -> None:
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        numbers = [limits.min, limits.min + 1, limits.max - 1, limits.max, 0, 1]
    else:
        numbers = [0, 1] if dtype.is_bool else [1 + 2.0 ** -(7 if dtype is bf16 else 10), 3.0, 1e38]
    with np.errstate(all="ignore"):
        x = np.asarray(numbers).astype(dtype.numpy)
        same = np.array_equal(x.astype(wide.numpy).astype(dtype.numpy), x)
        same = same and (wide.is_float or not dtype.is_float)
        # Integers that wrap round come back, too.
        same = same and bool((x.astype(wide.numpy).astype(float) == x.astype(float)).all())
    assert same or not holds(wide, dtype)


def computed(graph: Graph, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    return Session(to_model(graph)).run(feeds)


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("target", DTYPES)
def test_casts(source: DType, target: DType, torchscript: SimpleNamespace) -> None:
    """Integers wrap round, reals go towards zero; what is no number of the target is undefined."""
    numbers: Any = [0, 1, 2, 100]
    if source.is_integer:
        limits = np.iinfo(source.numpy)
        numbers = [0, 1, limits.max, limits.max - 1, limits.max // 2 + 3, limits.min, 7]
        if target.is_half:
            numbers = [0, 1, 100]  # beyond 65504 are none of float16
    elif source.is_float:
        numbers = [0.0, 0.75, 1.5, 100.25] + ([] if not target.is_signed else [-1.5, -100.75])
    x = np.asarray(numbers, None if source.is_float else source.numpy).astype(source.numpy)
    graph = Graph("casts", {"y": cast(leaf("x", source["n"]), target)})
    with np.errstate(all="ignore"):
        expected = x.astype(target.numpy)
    script = torchscript.backend.to_function(graph)
    for found in (computed(graph, x=x)["y"], script({"x": x})["y"], evaluate(graph, {"x": x})["y"]):
        assert found.dtype == target.numpy
        np.testing.assert_array_equal(found, expected)


@model
def digits(image: Value = u8["batch", 8, 8], label: Value = i64["batch"]) -> Any:
    logits = (image.astype(f32) / 255) >> flatten >> Dense(16, relu) >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def images(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (count, 8, 8), np.uint8)
    return {"image": image, "label": image[:, 0, 0].astype(np.int64) // 64}


def test_images_are_fed_as_bytes() -> None:
    data = images(64)
    trainer = Trainer(training(digits, minimize="loss", optimizer=dsl.adam(1e-2), batch_size=16))
    history = trainer.fit(data, epochs=20)
    assert history.last["loss"] < 0.7
    logits = trainer.predict({"image": data["image"]})["logits"]
    assert logits.dtype == np.float32
    inputs = {p.name: p.type for p in Session(compile_model(digits).model).inputs}
    assert inputs["image"] == "u8[batch, 8, 8]"
    with pytest.raises(FeedError, match="wrong element type") as error:
        trainer.predict({"image": data["image"].astype(np.float32)})
    assert "u8[batch, 8, 8]" in str(error.value) and "image.astype(np.uint8)" in str(error.value)


def test_lists_of_numbers_are_fed_where_the_type_has_them() -> None:
    graph = Graph("bytes", {"y": leaf("x", u8["n"]) + 1, "z": leaf("h", bf16["n"]) * 2})
    session = Session(to_model(graph))
    found = session.run({"x": [0, 255], "h": [1, 0.5]})
    np.testing.assert_array_equal(found["y"], np.array([1, 0], np.uint8))
    assert found["z"].dtype == bf16.numpy and found["z"].tolist() == [2.0, 1.0]
    with pytest.raises(FeedError, match="wrong element type"):
        session.run({"x": [256, 0], "h": [1.0, 2.0]})
    with pytest.raises(FeedError, match=r"h\.astype\(ml_dtypes\.bfloat16\)"):
        session.run({"x": [1], "h": np.ones(1, np.float32)})


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


def test_every_type_is_saved(tmp_path: Path) -> None:
    tensors = {d.name: np.arange(6).reshape(2, 3).astype(d.numpy) for d in DTYPES}
    tensors |= {f"{d.name} number": np.ones((), d.numpy) for d in DTYPES}
    loaded, _ = load_state(save_state(tmp_path / "all.safetensors", tensors))
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name], array)


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


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_that_meet_a_type_take_it(dtype: DType) -> None:
    x = leaf("x", dtype["n"])
    assert [v.dtype for v in (x + 1, 0.5 * x, x > 0, x**2, -x)] == [dtype] * 2 + [
        dsl.boolean,
        dtype,
        dtype,
    ]
    assert (leaf("k", i8["n"]) + x).dtype is dtype


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_divided_into_reals(dtype: DType) -> None:
    n = leaf("n", dtype["n"])
    assert (n / 2).dtype is f32 and (n // 2).dtype is dtype and (n * 0.5).dtype is f32
    assert dsl.sqrt(n).dtype is f32
    total = dsl.sum(n)
    assert total.dtype is (u64 if dtype is u64 else i64)


def test_a_number_that_a_type_does_not_have_is_refused() -> None:
    with pytest.raises(DTypeError, match="u8 cannot hold 300"):
        leaf("x", u8["n"]) + 300
    with pytest.raises(DTypeError, match="does not fit in u8"):
        dsl.const(300, u8)


@pytest.mark.parametrize("dtype", HALVES)
def test_arrays_and_numbers_become_values(dtype: DType) -> None:
    x = np.asarray([1.5, 2.5], dtype.numpy)
    assert dsl.const(x).dtype is dtype and dtype_of(x) is dtype and dtype_of(x[0]) is dtype
    assert (leaf("x", dtype[2]) * x[0]).dtype is dtype
    assert_close(evaluate(dsl.const(x) * 2, {}), x.astype(float) * 2, dtype.name)


@pytest.mark.parametrize("source", [f16, bf16, u8, i64, f32])
def test_a_transposition_a_cast_and_a_product(source: DType) -> None:
    """onnxruntime joins the three, and ended the process where the first axis moves."""
    target = dsl.f64 if source is f32 else f32
    x, w = leaf("x", source["a", "b", 3]), leaf("w", target[3, "c"])
    turned = dsl.transpose(x, (1, 0, 2)).astype(target)
    flat = x[:, :, 0].T.astype(target)
    graph = Graph("turned", {"y": turned @ w, "z": flat @ x[:, :, 1].astype(target)})
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.integers(0, 9, (2, 4, 3)).astype(source.numpy),
        "w": rng.integers(0, 9, (3, 5)).astype(target.numpy),
    }
    found, expected = computed(graph, **feeds), evaluate(graph, feeds)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def seen(x: Value) -> Value:
    planes = x >> Conv2d(4, 3) >> BatchNorm() >> relu >> MaxPool2d(2)
    return planes >> GroupNorm(2) >> Dropout(0.1) >> GlobalAveragePool()


def heard(x: Value) -> Value:
    states = dsl.reshape(x, (-1, 12, 9)) >> LSTM(4, return_sequences=True) >> LayerNorm()
    return dsl.mean(states >> MultiHeadAttention(2) >> FeedForward(8), axis=1)


@pytest.mark.slow
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


def test_files_of_numpy_have_bfloat16(tmp_path: Path) -> None:
    """numpy reads it as two bytes without a meaning."""
    x = np.array([1.5, -2, 3e38], bf16.numpy)
    np.save(tmp_path / "x.npy", x)
    read = np.load(tmp_path / "x.npy")
    assert read.dtype == np.dtype("V2")
    session = Session(to_model(Graph("same", {"y": leaf("x", bf16["n"]) * 1})))
    np.testing.assert_array_equal(session.run({"x": read})["y"], x)
    with pytest.raises(FeedError, match="wrong element type"):
        Session(to_model(Graph("other", {"y": leaf("x", f16["n"]) * 1}))).run({"x": read})


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_numpy_and_torch_name_element_types(dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    x = Input("x", dsl.f32["n"])()
    assert x.astype(dtype.numpy.type).dtype is dtype
    assert x.astype(getattr(torch, dtype.name)).dtype is dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_is_the_same_element_type(dtype: DType) -> None:
    """They are compared by `is`, also by those that come from another process."""
    assert copy.copy(dtype) is copy.deepcopy(dtype) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype
