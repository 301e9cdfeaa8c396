"""Training with the rounding of 8-bit integers, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    adam,
    cross_entropy,
    f32,
    flatten,
    i64,
    model,
    quantization_aware,
    relu,
    training,
)
from nncompile import ModelError, Session, Trainer, export, load_onnx
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import apply
from nncompile.ir.types import DType, i8, u8
from nncompile.ops.quantization.linear import Quantize, fake_quantize
from nncompile.program.quantization_aware import UnknownRangeWarning
from tests.backends import session
from tests.leaves import leaf
from tests.quantization_table import in_file, in_floats, rounded, spiky, with_rounding
from tests.test_quantization import plain, squares


def test_gradients_go_straight_through_what_is_not_cut_off() -> None:
    x, scale, zero = leaf("x", f32["n"]), leaf("s", f32[()]), leaf("z", u8[()])
    y = fake_quantize(x, scale, zero)
    feeds = {"x": np.array([-3, -0.26, 0, 0.3, 70, 190], np.float32)}
    feeds |= {"s": np.float32(0.5), "z": np.uint8(3)}
    (gradient,) = grad((y * x).sum(), [x])
    rounded = np.array([-1.5, -0.5, 0, 0.5, 70, 126], np.float32)
    np.testing.assert_array_equal(evaluate(y, feeds), rounded)
    through = np.array([0, 1, 1, 1, 1, 0], np.float32) * feeds["x"]
    np.testing.assert_allclose(evaluate(gradient, feeds), through + rounded, rtol=1e-6)


def test_a_nan_is_not_hidden_while_training() -> None:
    x, scale, zero = leaf("x", f32["n"]), leaf("s", f32[()]), leaf("z", i8[()])
    feeds = {"x": np.array([np.nan, 1], np.float32), "s": np.float32(0.5), "z": np.int8(0)}
    assert np.isnan(evaluate(fake_quantize(x, scale, zero), feeds)).tolist() == [True, False]


@model(predict="logits")
def net(x=f32["batch", 6], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = x >> Dense(40, relu, name="stem") >> Dense(3, name="head")
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def batch(count: int = 64, seed: int = 0) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return {"x": x, "label": x[:, :3].argmax(1)}


def test_ranges_begin_with_the_first_batch_and_move_with_the_others() -> None:
    trainer = Trainer(training(quantization_aware(net, momentum=0.25), optimizer=adam(1e-2)))
    first, second = batch(seed=1), batch(seed=2)
    trainer.fit([first], verbose=0)
    low, high = (float(f(first["x"])) for f in (np.min, np.max))
    assert trainer.state["stem.input_low"] == pytest.approx(low)
    trainer.fit([second], verbose=0)
    moved = low + 0.25 * (second["x"].min() - low), high + 0.25 * (second["x"].max() - high)
    found = trainer.state["stem.input_low"], trainer.state["stem.input_high"]
    assert found == pytest.approx(moved)
    assert trainer.state["head.input_low"] == 0  # behind a ReLU


def reference(state: dict[str, Any], x: Any) -> Any:
    """The network in numpy, by integers."""

    def layer(name: str, x: Any) -> Any:
        low, high = min(state[f"{name}.input_low"], 0), max(state[f"{name}.input_high"], 0)
        step = (high - low) / 255
        zero = np.rint(-low / step)
        q = np.clip(np.rint(x / step) + zero, 0, 255) - zero
        w = state[f"{name}.weight"].astype(np.float64)
        scale = np.abs(w).max(0) / 127
        return (q @ np.rint(w / scale)) * (step * scale) + state[f"{name}.bias"]

    return layer("head", np.maximum(layer("stem", x), 0))


def check_near(found: Any, expected: Any) -> None:
    """Biases are integers in a file, which may round an activation the other way: by one step."""
    differences = np.abs(found - expected)
    assert differences.max() < 0.01 and (differences < 2e-5).mean() > 0.9


@pytest.fixture(scope="module")
def trained() -> Any:
    trainer = Trainer(training(quantization_aware(net), optimizer=adam(1e-2)))
    trainer.fit(batch(256), epochs=3, verbose=0)
    return trainer


def test_a_range_holds_zero(trained: Any) -> None:
    """It is exact then, as paddings need it."""
    trainer = Trainer(trained.recipe)
    x = 2 + np.random.default_rng(0).random((64, 6), np.float32)
    trainer.fit([{**batch(), "x": x}], verbose=0)
    assert trainer.state["stem.input_low"] > 2
    check_near(trainer.predict({"x": x})["logits"], reference(trainer.state, x))


def test_the_file_holds_integers_and_computes_what_was_trained(
    trained: Any, tmp_path: Path
) -> None:
    (path,) = trained.export(tmp_path / "net.onnx")
    x = batch()["x"]
    expected = reference(trained.state, x)
    check_near(trained.predict({"x": x})["logits"], expected)
    for optimization in ("none", "all"):
        check_near(Session(path, optimization=optimization).run({"x": x})["logits"], expected)
    file = onnx.load(path)
    types = {onnx.TensorProto.INT8: [], onnx.TensorProto.FLOAT: []}
    for tensor in file.graph.initializer:
        types.setdefault(tensor.data_type, []).append(tuple(tensor.dims))
    assert {(6, 40), (40, 3)} <= set(types[onnx.TensorProto.INT8])
    assert all(len(shape) < 2 for shape in types[onnx.TensorProto.FLOAT])  # scales alone
    operators = [n.op_type for n in file.graph.node]
    assert operators.count("QuantizeLinear") == 2 and operators.count("DequantizeLinear") == 6
    again = load_onnx(path)
    check_near(Trainer(training(again_trained(again))).predict({"x": x})["logits"], expected)


def again_trained(loaded: Any) -> Any:
    @model(predict="logits")
    def again(x=f32["batch", 6]):  # type: ignore[no-untyped-def]
        logits = loaded(x)["logits"]
        return {"logits": logits, "loss": (logits**2).mean()}

    return again


def kernels_of(path: Path) -> list[str]:
    """The operators that onnxruntime computes a file with."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    options.log_severity_level = 3
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]


def test_integer_kernels_compute_a_dense_network(trained: Any, tmp_path: Path) -> None:
    (path,) = trained.export(tmp_path / "net.onnx")
    assert kernels_of(path).count("QGemm") == 2


@model(predict="logits")
def normed(image=f32["batch", 1, 8, 8], label=i64["batch"]):  # type: ignore[no-untyped-def]
    x = image >> Conv2d(6, 3, bias=False) >> BatchNorm() >> relu
    logits = x >> Conv2d(8, 3) >> BatchNorm() >> relu >> flatten >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


@pytest.mark.parametrize("per_channel", [True, False])
def test_normalization_goes_into_the_scales_of_integers(per_channel: bool, tmp_path: Path) -> None:
    aware = quantization_aware(normed, per_channel=per_channel)
    trainer = Trainer(training(aware, optimizer=adam(1e-2)))
    factors = trainer.state["batch_norm.weight"] * np.array([1, -1, 1, -2, 0, 1], np.float32)
    trainer.set_params({"batch_norm.weight": factors})  # a scale is not negative
    data = squares(64)
    trainer.fit(data, epochs=2, verbose=0)
    (path,) = trainer.export(tmp_path / "net.onnx")
    expected = trainer.predict({"image": data["image"]})["logits"]
    found = Session(path, optimization="none").run({"image": data["image"]})["logits"]
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    kernels = kernels_of(path)
    assert kernels.count("QLinearConv") == 2 and kernels.count("QGemm") == 1
    assert not {"Conv", "FusedConv", "Gemm", "Mul"} & set(kernels)


def test_torchscript_computes_the_same(trained: Any, tmp_path: Path) -> None:
    import torch

    trained.export(tmp_path / "net.pt")
    x = batch()["x"]
    found = torch.jit.load(tmp_path / "net.pt")(torch.from_numpy(x))
    found = found["logits"] if isinstance(found, dict) else found
    found = found[0] if isinstance(found, tuple) else found
    check_near(found.detach().numpy(), reference(trained.state, x))


def test_it_learns_what_rounding_afterwards_loses() -> None:
    """As `python -m tests.quantization_table` shows it of more seeds."""
    data, held_out = spiky(768), spiky(600)
    start = in_floats(data)
    before, after = rounded(start, data, held_out)
    assert after < before - 0.1
    learning = with_rounding(start, data, epochs=4)
    learned = in_file(learning, held_out)
    assert learned > before - 0.02
    assert learned == pytest.approx(learning.evaluate(held_out)["accuracy"], abs=0.005)


def test_ranges_that_are_not_known_yet_are_told(tmp_path: Path) -> None:
    trainer = Trainer(training(quantization_aware(net)))
    for use in (trainer.evaluate, lambda data: trainer.export(tmp_path / "net.onnx")):
        with pytest.warns(UnknownRangeWarning, match="enters .*head are not known"):
            use(batch())
    trainer.fit([batch()], verbose=0)
    trainer.evaluate(batch())


def test_what_has_nothing_to_be_rounded_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"whose weight 'body\.\*' matches(?s:.*)head\.weight"):
        quantization_aware(net, "body.*")
    with pytest.raises(ModelError, match="plain has no matrix product"):
        quantization_aware(plain)
    with pytest.raises(ModelError, match="not rounded already"):
        quantization_aware(quantization_aware(net))
    with pytest.raises(ModelError, match="takes a model, got Recipe"):
        quantization_aware(training(net))  # type: ignore[type-var]
    with pytest.raises(ModelError, match=r"quantized already(?s:.*)leave precision out"):
        export(quantization_aware(net), tmp_path / "net.onnx", precision="int8", seed=0)


@pytest.mark.parametrize("scale", [1.0, np.nan, -0.0, 0.0])
@pytest.mark.parametrize("dtype", [i8, u8])
def test_what_is_no_number_is_the_lowest_integer(dtype: DType, scale: float) -> None:
    x, s, zero = leaf("x", f32["n"]), leaf("s", f32[()]), leaf("zero", dtype[()])
    op = Quantize(None)
    (composed,) = op.composed(x, s, zero)
    graph = Graph("test", {"y": apply(op, x, s, zero), "composed": composed}, (x, s, zero))
    numbers = np.array([np.nan, 0, -0.0, 2, np.inf, -np.inf], np.float32)
    feeds = {"x": numbers, "s": np.float32(scale), "zero": dtype.numpy.type(3)}
    expected = evaluate(graph, feeds)
    assert expected["y"][0] == np.iinfo(dtype.numpy).min
    found = session(to_model(graph))(feeds, {"y": (6,), "composed": (6,)})
    for result in (expected["composed"], found["y"], found["composed"]):
        np.testing.assert_array_equal(result, expected["y"])
