"""Directories for servers of models, and files in onnxruntime's own format."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dsl import Dense, bf16, f32, i64, model, softmax
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import BackendError, FileError, ModelError
from nncompile.program.model import Model

text_format = pytest.importorskip("google.protobuf.text_format")


@model
def priced(image=f32["batch", 2, "width"], weight=f32["batch"], kind=i64["batch", 3]):
    y = image.mean(-1) * weight.reshape(-1, 1)
    return {"y": y, "total": y.sum(-1), "first": kind[:, 0]}


@model
def ranked(x=f32["batch", 4], scale=f32[()]):
    return {"share": softmax(x * scale, 0)}


def configuration(directory: Path, made: Model) -> Any:
    """The configuration of a model, as the schema of Triton reads it."""
    spec = importlib.util.find_spec("tritonclient")
    if spec is None:
        pytest.skip("tritonclient is not installed")
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    export(made, directory, "triton", seed=0)
    text = (directory / made.name / "config.pbtxt").read_text("utf-8")
    return text_format.Parse(text, loaded(file).ModelConfig())


def loaded(file: Path) -> ModuleType:
    """The module, without its package, which needs gRPC."""
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_triton_batches_where_rows_are_apart(tmp_path: Path) -> None:
    found = configuration(tmp_path, priced)
    assert (found.name, found.backend, found.max_batch_size) == ("priced", "onnxruntime", 64)
    assert found.HasField("dynamic_batching")
    image, weight, kind = found.input
    assert ([*image.dims], image.data_type, image.HasField("reshape")) == ([2, -1], 11, False)
    assert ([*weight.dims], weight.HasField("reshape"), [*weight.reshape.shape]) == ([1], True, [])
    assert ([*kind.dims], kind.data_type) == ([3], 9)
    assert [([*x.dims], x.HasField("reshape")) for x in found.output] == [
        *(([2], False), ([1], True), ([1], True))
    ]
    (warm,) = found.model_warmup
    assert {name: [*x.dims] for name, x in warm.inputs.items()} == {
        **{"image": [2, 1], "weight": [1], "kind": [3]}
    }
    assert (tmp_path / "priced" / "1" / "model.onnx").is_file()


def test_triton_computes_request_by_request_where_they_are_not(tmp_path: Path) -> None:
    """There the batch is an axis like others, and a number needs no reshape."""
    found = configuration(tmp_path, ranked)
    assert (found.max_batch_size, found.HasField("dynamic_batching")) == (0, False)
    assert [([*x.dims], x.HasField("reshape")) for x in found.input] == [
        *(([-1, 4], False), ([1], False))
    ]
    assert [*found.output[0].dims] == [-1, 4]


def test_models_are_added_and_edited_files_are_kept(tmp_path: Path) -> None:
    for made in (priced, ranked):
        export(made, tmp_path, "triton", seed=0)
    config = tmp_path / "priced" / "config.pbtxt"
    export(priced, tmp_path, "triton", seed=0)  # nothing changed
    config.write_text(config.read_text() + "instance_group { count: 2 }\n")
    with pytest.raises(FileError, match=r"config\.pbtxt is not what this export would write"):
        export(priced, tmp_path, "triton", seed=0)
    assert "instance_group" in config.read_text()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["priced", "ranked"]


def test_weights_lie_beside_the_model(tmp_path: Path) -> None:
    @model
    def dense(x=f32["batch", 4]):
        return {"y": x >> Dense(3)}

    files = export(dense, tmp_path, "triton", external_data=True, seed=0)
    names = ["1/model.weights.safetensors", "1/model.onnx", "config.pbtxt"]
    assert [str(x.relative_to(tmp_path / "dense")) for x in files] == names
    session = onnxruntime.InferenceSession(files[1])
    assert session.run(None, {"x": np.zeros((2, 4), np.float32)})[0].shape == (2, 3)


def test_mlserver_has_its_settings_and_a_program(tmp_path: Path) -> None:
    files = export(priced, tmp_path, "mlserver", seed=0)
    names = ["model.onnx", "onnx_runtime.py", "model-settings.json"]
    assert [str(x.relative_to(tmp_path / "priced")) for x in files] == names
    settings = json.loads(files[2].read_text("utf-8"))
    assert settings["inputs"][1] == {"name": "weight", "datatype": "FP32", "shape": [-1]}
    module, _, name = settings["implementation"].partition(".")
    assert f"class {name}(" in (files[0].parent / f"{module}.py").read_text("utf-8")
    assert settings["parameters"]["uri"] == "./model.onnx"


def test_the_format_of_onnxruntime(tmp_path: Path) -> None:
    file = export(priced, tmp_path / "priced.onnx", seed=0)[0]
    (small,) = export(priced, tmp_path / "priced.ort", seed=0)
    assert small.read_bytes()[4:8] == b"ORTM"
    random = np.random.default_rng(0)
    feeds = {
        "image": random.normal(size=(3, 2, 5)).astype(np.float32),
        "weight": random.normal(size=3).astype(np.float32),
        "kind": np.arange(9).reshape(3, 3),
    }
    results = [onnxruntime.InferenceSession(x).run(None, feeds) for x in (file, small)]
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_mistakes(tmp_path: Path) -> None:
    @model
    def half(x=bf16["n"]):
        return {"y": x + 1}

    for server in ("triton", "mlserver"):
        with pytest.raises(BackendError, match="no bfloat16"):
            export(half, tmp_path / server, server, seed=0)
        assert not (tmp_path / server).exists()
    with pytest.raises(FileError, match="written to a directory"):
        export(priced, tmp_path / "models.onnx", "triton", seed=0)
    with pytest.raises(FileError, match=r"written to a \.ort file"):
        export(priced, tmp_path / "model.onnx", "ort", seed=0)
    with pytest.raises(ModelError, match="holds its weights"):
        export(priced, tmp_path / "model.ort", external_data=True, seed=0)
