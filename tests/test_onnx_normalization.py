"""Normalizations of ONNX files: which op they are, and what of them is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dsl import LayerNorm, adam, f32, model
from nncompile import Trainer, export, load_onnx, training
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.program.initialization import initial_values
from tests.onnx_files import FLOAT, weight, written

node = helper.make_node


def outputs_of(net: Any, feeds: Any) -> Any:
    return evaluate(net.inference(), {**initial_values(net, 0), **feeds})


@pytest.mark.parametrize("by_identity", [False, True])
def test_statistics_that_were_merged_with_weights_are_states(
    tmp_path: Path, by_identity: bool
) -> None:
    """Those of a new batch normalization are zeros and ones, as its shift and scale are."""
    nodes, x = [], "x"
    for layer in ("first", "second"):
        names = [f"{layer}.{slot}" for slot in ("weight", "bias", "running_mean", "running_var")]
        merged = ["ones", "zeros", "zeros", "ones"]
        if by_identity:
            nodes += [node("Identity", [a], [b]) for a, b in zip(merged, names, strict=True)]
        inputs = [x, *(names if by_identity else merged)]
        nodes.append(node("BatchNormalization", inputs, [layer], name=f"/{layer}/BatchNorm"))
        x = layer
    weights = {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
    path = written(tmp_path / "n.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["second"], weights)
    net = load_onnx(path)
    assert net.report is not None
    assert len(net.report.trained) == 4 and len(net.report.states) == 4
    assert set(net.updates) == set(net.report.states)
    x = 3 + weight(6, 4, seed=1)

    @model
    def training_of_it(x: Any = f32["n", 4]) -> Any:
        return {"loss": (net(x)["second"] ** 2).sum()}

    trainer = Trainer(training(training_of_it, optimizer=adam(1e-3)), threads=1)
    trainer.fit({"x": x}, steps=1, batch_size=6, verbose=0)
    moved = {n: v for n, v in trainer.state.items() if n in net.report.states}
    mean = next(v for n, v in moved.items() if np.abs(v).max() > 0.1 and v.max() < 0.9)
    np.testing.assert_allclose(mean, 0.1 * x.mean(0), rtol=1e-5)


def test_a_layer_normalization_is_that_operator_again(tmp_path: Path) -> None:
    """Also where it gives statistics that nobody takes, of a row that is counted from its first
    element."""

    @model
    def net(x: Any = f32["batch", 8]) -> Any:
        return {"y": x >> LayerNorm(name="norm")}

    export(net, tmp_path / "net.onnx", seed=0)
    again = load_onnx(tmp_path / "net.onnx")
    found = [v.op for v in again.inference().nodes]
    assert [type(op).__name__ for op in found if not isinstance(op, Input)] == ["LayerNorm", "Item"]
    nodes = "y, mean, inverse = LayerNormalization <axis = -1> (x, w)"
    ends = {"x": (FLOAT, ["n", 4])}
    path = written(tmp_path / "n.onnx", nodes, ends, ["y", "mean", "inverse"], {"w": weight(4)})
    feeds = {"x": 5 + weight(3, 4, seed=2)}
    wide = feeds["x"].astype(np.float64)
    mean, inverse = wide.mean(1, keepdims=True), 1 / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    # onnxruntime 1.23 is less exact.
    exact = {"y": (wide - mean) * inverse * weight(4), "mean": mean, "inverse": inverse}
    for name, x in outputs_of(load_onnx(path), feeds).items():
        np.testing.assert_allclose(x, exact[name], 1e-5, 1e-5)


def test_a_normalized_sum_with_rows_of_a_table_has_any_length(tmp_path: Path) -> None:
    """As embeddings with the first of their positions."""
    nodes = (
        "length = Shape <end = 2, start = 1> (x)  rows = Slice(table, zero, length, zero)  "
        "sum = Add(x, rows)  y = LayerNormalization <axis = -1> (sum, w)"
    )
    weights = {"table": weight(9, 4), "w": weight(4), "zero": np.zeros(1, np.int64)}
    ends = {"x": (FLOAT, ["batch", "length", 4])}
    path = written(tmp_path / "n.onnx", nodes, ends, ["y"], weights)
    net = load_onnx(path)
    assert [str(d) for d in net.inputs["x"].shape] == ["batch", "length", "4"]
    for length in (3, 9):
        feeds = {"x": weight(2, length, 4, seed=2)}
        rows = feeds["x"] + weights["table"][:length]
        distance = rows - rows.mean(-1, keepdims=True)
        expected = distance / np.sqrt((distance**2).mean(-1, keepdims=True) + 1e-5) * weights["w"]
        np.testing.assert_allclose(outputs_of(net, feeds)["y"], expected, 1e-4, 1e-5)


def test_a_file_in_training_mode_by_its_statistics(tmp_path: Path) -> None:
    """As torch exports one that is to be trained: with `training=False`, by the statistics, and
    nothing is dropped."""
    last = {"scale": 1 + weight(4), "bias": weight(4), "mean": weight(4), "var": 1 + weight(4) ** 2}
    drop = {"ratio": np.float32(0.5), "drops": np.asarray(True)}
    nodes = [
        node("BatchNormalization", ["x", *last], ["a", "a.mean", "a.var"], training_mode=1),
        node("Dropout", ["a", *drop], ["y", "mask"]),
    ]
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], {**last, **drop})
    net, x = load_onnx(file, training=False), weight(6, 4, seed=1)
    expected = (x - last["mean"]) / np.sqrt(last["var"] + 1e-5) * last["scale"] + last["bias"]
    np.testing.assert_allclose(outputs_of(net, {"x": x})["y"], expected, 1e-5, 1e-6)
    trained = evaluate(net.graph, {**initial_values(net, 0), "x": x})
    np.testing.assert_allclose(trained["y"], expected, 1e-5, 1e-6)
