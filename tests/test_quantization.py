"""Files of 16, 8 and 4 bits for inference, and the report of what they lose."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dsl import (
    Conv2d,
    Dense,
    Embedding,
    LearnedPositions,
    MaxPool2d,
    TransformerEncoder,
    accuracy,
    adam,
    cross_entropy,
    f32,
    f64,
    flatten,
    i64,
    model,
    relu,
    softmax,
    training,
    where,
)
from nncompile import (
    BackendError,
    FeedError,
    ModelError,
    Trainer,
    export,
    load_onnx,
    precision_report,
)
from nncompile.program.initialization import initial_values
from nncompile.program.rows import METADATA_KEY
from nncompile.runtime import Session
from nncompile.runtime.quantization import apart, layers
from tests.command_line import GOOD, fails, succeeds, written

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


@model(predict=("logits", "probabilities"))
def images(image=f32["batch", 1, 8, 8], label=i64["batch"]):  # type: ignore[no-untyped-def]
    x = image >> Conv2d(8, 3, padding=1) >> relu >> MaxPool2d(2) >> Conv2d(16, 3) >> relu
    logits = x >> flatten >> Dense(4, name="head")
    return {
        "logits": logits,
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
        "weights": (x**2).mean(),
    }


@model(predict="logits")
def texts(text=i64["batch", "time"]):  # type: ignore[no-untyped-def]
    h = text >> Embedding(12, 16) >> LearnedPositions(9)
    logits = h >> TransformerEncoder(2, is_causal=True, norm_first=True) >> Dense(12, name="next")
    return {"logits": logits, "loss": cross_entropy(logits[:, :-1], text[:, 1:])}


def squares(count: int) -> dict[str, Any]:
    """Noise with a bright square in one of four corners."""
    random = np.random.default_rng(count)
    label = random.integers(0, 4, count)
    image = random.normal(size=(count, 1, 8, 8)).astype(np.float32)
    for x, k in zip(image, label, strict=True):
        x[0, 4 * (k // 2) :, 4 * (k % 2) :][:4, :4] += 0.8
    return {"image": image, "label": label}


@pytest.fixture(scope="module")
def seen() -> Any:
    trainer = Trainer(training(images, optimizer=adam(5e-3), batch_size=64))
    trainer.fit(squares(512), epochs=6, verbose=0)
    return trainer


@pytest.fixture(scope="module")
def read() -> Any:
    trainer = Trainer(training(texts, optimizer=adam(1e-2), batch_size=64))
    trainer.fit(sequences(512), epochs=6, verbose=0)
    return trainer


def sequences(count: int) -> dict[str, Any]:
    return {"text": np.cumsum(np.random.default_rng(count).integers(1, 3, (count, 9)), 1) % 12}


HELD_OUT = squares(400)
TEXT = sequences(200)


def test_a_file_of_16_bits_takes_and_gives_floats(seen: Any, tmp_path: Path) -> None:
    seen.export(tmp_path / "half.onnx", precision="f16")
    seen.export(tmp_path / "whole.onnx")
    half = onnx.load(tmp_path / "half.onnx")
    types = {t.name: t.data_type for t in half.graph.initializer}
    assert {types[n.input[1]] for n in half.graph.node if n.op_type == "MatMul"} == {FLOAT16}
    ends = (*half.graph.input, *half.graph.output)
    assert {x.type.tensor_type.elem_type for x in ends} == {FLOAT}
    one, other = (
        ort.InferenceSession(tmp_path / name).run(["logits"], {"image": HELD_OUT["image"]})[0]
        for name in ("half.onnx", "whole.onnx")
    )
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=2e-3 * np.abs(other).max())


def test_a_table_is_stored_in_16_bits(read: Any, tmp_path: Path) -> None:
    read.export(tmp_path / "half.onnx", precision="f16")
    half = onnx.load(tmp_path / "half.onnx")
    types = {t.name: t.data_type for t in half.graph.initializer}
    assert {types[n.input[0]] for n in half.graph.node if n.op_type == "Gather"} >= {FLOAT16}
    report = precision_report(read, tmp_path / "half.onnx", TEXT)
    before, after = report.metrics["loss"]
    assert after == pytest.approx(before, rel=1e-3)
    assert len(report.layers) == 7 and all(x.decibels > 50 for x in report.layers)


def test_layers_of_16_bits_are_compared_with_their_own(seen: Any, tmp_path: Path) -> None:
    seen.export(tmp_path / "half.onnx", precision="f16")
    report = precision_report(seen, tmp_path / "half.onnx", HELD_OUT)
    assert {x.path for x in report.layers} == {"conv2d", "conv2d_1", "head"}
    assert all(x.decibels > 50 for x in report.layers)


def test_convolutions_of_8_bits_classify_as_before(seen: Any, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    seen.export(path, precision="int8", calibration=squares(128))
    report = precision_report(seen, path, HELD_OUT)
    exact = seen.evaluate(HELD_OUT)
    for name, (before, after) in report.metrics.items():
        assert before == pytest.approx(exact[name], rel=1e-5)
        assert after != before or name == "accuracy"
    assert report.metrics.keys() == {"loss", "accuracy"}  # not what no prediction tells
    before, after = report.metrics["accuracy"]
    assert before > 0.8 and abs(after - before) <= 0.005
    assert report.agreement is not None and report.agreement > 0.99
    assert [x.decibels for x in report.layers] == sorted(x.decibels for x in report.layers)
    assert {x.path for x in report.layers} == {"conv2d", "conv2d_1", "head"}
    assert all(25 < x.decibels < 60 for x in report.layers)
    assert "the layers furthest from float32" in str(report)
    loaded = onnx.load(path)
    scales = {t.name: t.dims for t in loaded.graph.initializer if "weight_scale" in t.name}
    assert sorted(map(tuple, scales.values())) == [(4,), (8,), (16,)]  # one for each channel
    onnx.checker.check_model(loaded)


def test_products_of_8_bits_need_no_data(read: Any, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    read.export(path, precision="int8")
    report = precision_report(read, path, TEXT)
    before, after = report.metrics["loss"]
    assert after != before and abs(after - before) < 0.005 * before
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded)  # that no node comes before what its branches need
    operators = [n.op_type for n in loaded.graph.node]
    assert operators.count("MatMulInteger") == len(report.layers) == 7


@model(predict="y")
def dense(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
    return {"y": x >> Dense(8)}


def test_rows_that_share_a_range_are_not_apart(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    beside = [x, x * np.float32([[1], [999]])]
    for precision, is_apart in (("f32", True), ("int4", True), ("int8", False)):
        export(dense, tmp_path / "y.onnx", precision=precision, seed=0)
        session = Session(tmp_path / "y.onnx")
        one, same = (session.run({"x": batch})["y"][0] for batch in beside)
        assert np.array_equal(one, same) == is_apart == (METADATA_KEY in session.metadata)


def test_what_4_bits_need_is_named(read: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delitem(
        sys.modules, "onnxruntime.quantization.matmul_nbits_quantizer", raising=False
    )
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(BackendError, match=r"(?s)needs onnx_ir.*nncompile\[quantization\]"):
        read.export(tmp_path / "int4.onnx", precision="int4")


def test_weights_of_4_bits(read: Any, seen: Any, tmp_path: Path) -> None:
    path = tmp_path / "int4.onnx"
    read.export(path, precision="int4")
    report = precision_report(read, path, TEXT)
    before, after = report.metrics["loss"]
    assert after != before and abs(after - before) < 0.1 * before
    assert "MatMulNBits" in {n.op_type for n in onnx.load(path).graph.node}
    seen.export(path, precision="int4")  # a Gemm becomes one
    assert [x.path for x in precision_report(seen, path, HELD_OUT).layers] == ["head"]


def test_a_layer_that_is_skipped_stays_as_it_is(seen: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "int8", "calibration": squares(64)}
    seen.export(tmp_path / "int8.onnx", skip=["conv*"], **options)
    model = onnx.load(tmp_path / "int8.onnx")
    weights = {layer.path: layer for layer in layers(model)}
    assert weights.keys() == {"conv2d", "conv2d_1"}
    with pytest.raises(BackendError, match=r"'body' matches no layer(?s:.*)layer  head"):
        seen.export(tmp_path / "int8.onnx", skip=["body"], **options)


def test_what_cannot_be_stored_in_fewer_bits_is_said(seen: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(FeedError, match=r"convolutions of images(?s:.*)calibration=data"):
        seen.export(path, precision="int8")
    nan = {"image": np.full((4, 1, 8, 8), np.nan, np.float32)}
    with pytest.raises(FeedError, match="hold NaN or infinities in 'image'"):
        seen.export(path, precision="int8", calibration=nan)
    with pytest.raises(FeedError, match="image"):
        seen.export(path, precision="int8", calibration={"image": np.zeros((4, 3), np.float32)})
    with pytest.raises(ModelError, match=r"got 'int7'"):
        seen.export(path, precision="int7")
    with pytest.raises(ModelError, match="calibration is for precision int8"):
        seen.export(path, precision="f16", calibration=HELD_OUT)
    with pytest.raises(ModelError, match="precision f16 is of the target onnx"):
        seen.export(path, "step", precision="f16")
    with pytest.raises(ModelError, match=r"head.weight\S* has numbers beyond 65504"):
        params = {"head.weight": 1e6 + 0 * seen.state["head.weight"]}
        seen.export(path, precision="f16", params=params)
    with pytest.raises(ModelError, match="weights of images, which are not given"):
        precision_report(images, path, HELD_OUT)
    assert not path.exists()


@model(predict="y")
def plain(x=f32["n"]):  # type: ignore[no-untyped-def]
    return {"y": x + 1}


def test_a_model_without_products_has_nothing_to_quantize(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="plain has no matrix product or convolution"):
        export(plain, tmp_path / "model.onnx", precision="int8")


@model(predict="y")
def double(x=f64["batch", 4]):  # type: ignore[no-untyped-def]
    return {"y": x >> Dense(8)}


@pytest.mark.parametrize("precision", ["f16", "int8", "int4"])
def test_only_float32_is_stored_in_fewer_bits(precision: str, tmp_path: Path) -> None:
    for net in (double, plain):
        with pytest.raises((BackendError, ModelError), match=f"{net.name} has no .*matrix product"):
            export(net, tmp_path / "y.onnx", precision=precision, seed=0)


@pytest.mark.parametrize("precision", ["f16", "int8", "int4"])
def test_a_weight_that_is_not_finite_is_named(precision: str, seen: Any, tmp_path: Path) -> None:
    params = {**seen.state, "head.weight": np.nan * seen.state["head.weight"]}
    options = {"calibration": squares(8)} if precision == "int8" else {}
    with pytest.raises((BackendError, ModelError), match=r"the weight head.weight\S* holds NaN"):
        seen.export(tmp_path / "y.onnx", precision=precision, params=params, **options)


def test_a_quantized_file_is_not_quantized_again(seen: Any, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    writers = (
        lambda: seen.export(path, precision="int8", calibration=squares(8)),
        lambda: export(dense, path, precision="int8", seed=0),
    )
    for write in writers:
        write()
        for precision in ("f16", "int8", "int4"):
            with pytest.raises(ModelError, match="int8 is quantized already"):
                export(load_onnx(path), tmp_path / "y.onnx", precision=precision)


@model(predict="y")
def masked(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
    y = x >> Dense(6)
    return {"y": where(x[:, :1] > 0, y, -np.inf)}


def test_infinities_of_both_files_are_no_difference(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    values, file = initial_values(masked, 0), tmp_path / "int8.onnx"
    export(masked, file, precision="int8", params=values)
    report = precision_report(masked, file, {"x": x}, values)
    assert 0 < report.differences["y"] < 0.05
    assert "nan" not in str(report)
    lost = dataclasses.replace(report, differences={"y": np.inf})
    assert "y is NaN or infinite where it is not in float32" in str(lost)
    numbers = np.array([1, np.inf, -np.inf, np.nan, 1, np.nan, 2, np.inf])
    other = np.array([1, np.inf, -np.inf, np.nan, np.nan, 3, np.inf, -np.inf])
    np.testing.assert_array_equal(apart(numbers, other), [0] * 4 + [np.inf] * 4)


@model(predict="y")
def weighted(image=f32["batch", 1, 8, 8], weights=f32[100], factor=f32[()]):  # type: ignore[no-untyped-def]
    y = image >> Conv2d(4, 3) >> flatten >> Dense(100)
    return {"y": y * weights * factor}


@pytest.mark.parametrize("count", [10, 100])
def test_only_what_has_the_size_of_the_examples_is_cut(count: int, tmp_path: Path) -> None:
    data = {"image": squares(count)["image"], "weights": np.ones(100, np.float32), "factor": 2.0}
    file = tmp_path / "int8.onnx"
    export(weighted, file, precision="int8", calibration=data, seed=0)
    report = precision_report(weighted, file, data, initial_values(weighted, 0))
    assert report.differences["y"] < 0.05


def test_what_is_no_data_and_the_file_of_another_model_are_told(seen: Any, tmp_path: Path) -> None:
    image = HELD_OUT["image"]
    with pytest.raises(FeedError, match=r"arrays by the names of the inputs, got ndarray"):
        seen.export(tmp_path / "int8.onnx", precision="int8", calibration=image)
    with pytest.raises(FeedError, match="arrays by the names of the inputs, got ndarray"):
        precision_report(seen, tmp_path / "int8.onnx", image)
    export(dense, tmp_path / "dense.onnx", seed=0)
    with pytest.raises(FeedError, match="no data for input 'x'"):
        precision_report(seen, tmp_path / "dense.onnx", HELD_OUT)

    @model(predict="logits")
    def other(image=f32["batch", 1, 8, 8]):  # type: ignore[no-untyped-def]
        return {"logits": image >> flatten >> Dense(3)}

    export(other, tmp_path / "other.onnx", seed=0)
    with pytest.raises(ModelError, match=r"another model: (?s:.*)output  logits  f32\[64, 3\]"):
        precision_report(seen, tmp_path / "other.onnx", HELD_OUT)


def test_the_command_says_what_a_file_has_lost(tmp_path: Path) -> None:
    net = written(tmp_path, GOOD)
    succeeds("train", net, "-o", tmp_path / "run", "-q", "--epochs", 1)
    options = ("--params", tmp_path / "run", "--precision", "int8", "-o", tmp_path / "int8.onnx")
    text = succeeds("compile", net, *options)
    assert "accuracy" in text and "largest score" in text and "dB" in text
    assert "'hed' matches no layer" in fails("compile", net, *options, "--skip", "hed")
    step = ("--precision", "bf16", "--emulate", "--to", "step", "-o", tmp_path / "step.onnx")
    succeeds("compile", net, *step)


def test_the_file_of_another_framework_is_quantized(seen: Any, tmp_path: Path) -> None:
    (path,) = seen.export(tmp_path / "net.onnx")
    np.savez(tmp_path / "seen.npz", image=squares(64)["image"])
    options = ("--precision", "int8", "-o", tmp_path / "int8.onnx")
    text = succeeds("compile", path, *options, "--calibrate", tmp_path / "seen.npz")
    assert "dB" in text and "largest score" in text and "loss" not in text  # without labels
    assert "--calibrate DATA" in fails("compile", path, *options)
