"""What is fed, read and saved in each element type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, bf16, cross_entropy, f16, f32, flatten, i64, model, relu, u8
from nncompile import Graph, Trainer, Value, compile_model, training
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import FeedError
from nncompile.ir.types import DTYPES
from nncompile.runtime.checkpoint import load_state, save_state
from nncompile.runtime.session import Session
from tests.leaves import leaf


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


def test_every_type_is_saved(tmp_path: Path) -> None:
    tensors = {d.name: np.arange(6).reshape(2, 3).astype(d.numpy) for d in DTYPES}
    tensors |= {f"{d.name} number": np.ones((), d.numpy) for d in DTYPES}
    loaded, _ = load_state(save_state(tmp_path / "all.safetensors", tensors))
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape
        np.testing.assert_array_equal(loaded[name], array)


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
