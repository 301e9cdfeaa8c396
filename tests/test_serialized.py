"""Files of models that are written piece by piece."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dsl import BatchNorm, Dense, f32, mean, model
from nncompile import export
from nncompile.backends.onnx import write
from nncompile.ops.random.generator import Hash
from nncompile.program.initialization import initial_values

ARRAYS = {
    "matrix": np.arange(300, dtype=np.float32).reshape(20, 15),
    "turned": np.arange(300, dtype=np.float32).reshape(20, 15).T,
    "scalar": np.array(2.5),
    "nothing": np.zeros((0, 3), np.int64),
    "flags": np.array([True, False]),
    "half": np.array([1, 2, 3], ml_dtypes.bfloat16),
}


def _model(filled: bool) -> onnx.ModelProto:
    """A model of all these weights and another one, with or without their elements."""
    tensors = [numpy_helper.from_array(np.ascontiguousarray(x).reshape(x.shape), name)
               for name, x in ARRAYS.items()]  # fmt: skip
    if not filled:
        for tensor in tensors:
            tensor.ClearField("raw_data")
    tensors.insert(2, numpy_helper.from_array(np.ones(3, np.float32), "own"))
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [20, 15])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [20, 15])
    node = helper.make_node("Add", ["x", "matrix"], ["y"], doc_string="a sum")
    graph = helper.make_graph([node], "graph", [info], [out], tensors, doc_string="about it")
    made = helper.make_model(graph, producer_name="somebody", doc_string="more")
    helper.set_model_props(made, {"key": "text"})
    made.functions.append(
        helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])],
                             [helper.make_opsetid("", 21)]),
    )  # fmt: skip
    return made


def test_the_bytes_are_those_of_protobuf(tmp_path: Path) -> None:
    write(_model(filled=False), tmp_path / "pieces.onnx", ARRAYS)
    assert (tmp_path / "pieces.onnx").read_bytes() == _model(filled=True).SerializeToString()
    write(_model(filled=True), tmp_path / "whole.onnx")
    assert (tmp_path / "whole.onnx").read_bytes() == _model(filled=True).SerializeToString()


def test_fields_of_a_later_format_stay(tmp_path: Path) -> None:
    later = bytes([0xA0, 0x3F, 7])  # field 1012, the number 7
    filled, empty = (onnx.ModelProto.FromString(_model(f).SerializeToString() + later)
                     for f in (True, False))  # fmt: skip
    assert filled.SerializeToString().endswith(later)
    write(empty, tmp_path / "later.onnx", ARRAYS)
    assert (tmp_path / "later.onnx").read_bytes() == filled.SerializeToString()


@model
def wide(x: Any = f32["batch", 512], y: Any = f32["batch", 512]) -> Any:
    """Eight megabytes of weights, each of which becomes another one without its normalization."""
    for i in range(8):
        x = x >> Dense(512, name=f"dense{i}") >> BatchNorm(name=f"norm{i}")
    return {"out": x, "loss": mean((x - y) ** 2)}


WEIGHTS = 8 * 512 * 512 * 4


@pytest.mark.parametrize("external", [False, True])
def test_an_export_holds_no_copies_of_the_weights(tmp_path: Path, external: bool) -> None:
    """Beside those that it is given it has the folded ones, and a few of them in double."""
    given = initial_values(wide, 0)
    tracemalloc.start()
    try:
        export(wide, tmp_path / "net.onnx", params=given, external_data=external)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.7 * WEIGHTS


def test_weights_are_drawn_without_a_second_set() -> None:
    """What their drawing needs is given up after each."""
    tracemalloc.start()
    try:
        initial_values(wide, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.7 * WEIGHTS


@model
def one(x: Any = f32["batch", 1024]) -> Any:
    """All weights in one matrix of eight megabytes."""
    return x >> Dense(2048, bias=False)


def test_one_large_weight_is_drawn_in_twice_its_memory() -> None:
    """Its random bits are mixed in blocks, to the same bits as at once."""
    initial_values(one, 0)
    tracemalloc.start()
    try:
        drawn = initial_values(one, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.2 * 1024 * 2048 * 4
    counters, key = np.arange(2**14 + 2, dtype=np.uint32), np.array(7, np.uint32)
    at_once = Hash().numpy(counters, key)
    np.testing.assert_array_equal(at_once[-3:], Hash().numpy(counters[-3:], key))
    assert len(np.unique(at_once)) > 2**14
    assert drawn["dense.weight"].shape == (1024, 2048)
