"""`nncompile optimize` and `nncompile diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nncompile.cli import optimize as command
from tests import command_line
from tests.command_line import fails, succeeds
from tests.onnx_files import FLOAT, convolutional, parsed, tied_language_model, weight, written

node = helper.make_node


@pytest.fixture
def language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tied_language_model(tmp_path / "language.onnx")
    return tmp_path


def diff(*arguments: object) -> tuple[int, Any]:
    result = command_line.run("diff", *arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_it_prints_what_became_fewer_and_that_the_numbers_are_the_same(language: Path) -> None:
    text = succeeds("optimize", "language.onnx")
    for line in (
        "nodes  24 → 13",
        "  Concat     2  →  0",
        "largest relative difference 0.0e+00, on 8 sets of inputs",
        "wrote language.optimized.onnx",
    ):
        assert line in text, text
    result = command_line.run("optimize", "language.onnx", "-o", "small.onnx", "--json")
    found = json.loads(result.stdout)
    assert found["nodes"] == {"before": 24, "after": 13}
    assert found["comparison"]["largest"] == 0
    assert found["files"][0]["path"] == "small.onnx"
    assert Path("small.onnx").read_bytes() == Path("language.optimized.onnx").read_bytes()


def test_where_numbers_differ_nothing_is_written(
    language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path, is_exact: bool = False) -> onnx.ModelProto:
        model = onnx.load(path)
        (table,) = (t for t in model.graph.initializer if t.name == "block.o.bias")
        table.CopyFrom(numpy_helper.from_array(weight(8, seed=9), table.name))
        return model

    monkeypatch.setattr(command, "simplified", wrong)
    message = fails("optimize", "language.onnx", "-o", "out.onnx")
    assert "computes other numbers: output logits differs by" in message
    assert "nothing was written" in message
    assert sorted(p.name for p in language.iterdir()) == ["language.onnx"]
    assert "not compared" in succeeds("optimize", "language.onnx", "-o", "out.onnx", "--no-verify")


def test_what_rounds_in_another_way_is_left_where_it_rounds_too_far(language: Path) -> None:
    # What the convolution adds, and the normalization takes away, costs digits unless it is folded.
    nodes = "i = Identity(x)  a = Conv(i, w, mean)  y = BatchNormalization(a, one, zero, mean, one)"
    weights = {"w": weight(2, 3, 1, 1), "one": np.ones(2, np.float32),
               "zero": np.zeros(2, np.float32), "mean": np.float32([1e4, 1e4])}  # fmt: skip
    written(language / "m.onnx", nodes, {"x": (FLOAT, ["N", 3, 4, 4])}, ["y"], weights)
    text = succeeds("optimize", "m.onnx")
    assert "nodes  3 → 2" in text
    assert "nothing is joined that rounds in another way" in text


def test_it_does_not_replace_the_original(language: Path) -> None:
    assert "is the original" in fails("optimize", "language.onnx", "-o", "language.onnx")
    assert "not an ONNX model" in fails("optimize", written_text(language / "t.onnx"))
    assert "gone.onnx" in fails("optimize", "gone.onnx")


def written_text(path: Path) -> Path:
    path.write_text("text")
    return path


def test_a_file_that_runs_on_nothing_that_is_drawn_is_not_written(language: Path) -> None:
    nodes = "y = Reshape(x, shape)"
    inputs = {"x": (FLOAT, ["N", 7]), "shape": (onnx.TensorProto.INT64, [3])}
    written(language / "m.onnx", nodes, inputs, ["y"])
    message = fails("optimize", "m.onnx")
    assert "runs m.onnx on no inputs that are drawn" in message
    assert "--no-verify" in message


def test_a_file_that_onnxruntime_does_not_load_is_written_without_a_comparison(
    language: Path,
) -> None:
    model = onnx.load("language.onnx")
    model.graph.node.append(node("Own", ["logits"], ["more"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    output = helper.make_tensor_value_info("logits", FLOAT, ["batch", "seq", 20])
    model.graph.output[0].CopyFrom(output)
    onnx.save(model, "own.onnx")
    message = fails("optimize", "own.onnx", "-o", "out.onnx")
    assert "own.onnx cannot be compared" in message
    assert "--no-verify" in message
    assert "nodes  25 → 13" in succeeds("optimize", "own.onnx", "-o", "out.onnx", "--no-verify")


def test_a_file_of_random_numbers_is_written_without_a_comparison(language: Path) -> None:
    nodes = "a = Identity(x)  y = Dropout(a, rate, yes)"
    weights = {"rate": np.float32(0.5), "yes": np.bool_(True)}
    written(language / "m.onnx", nodes, {"x": (FLOAT, ["N", 40])}, ["y"], weights)
    message = fails("optimize", "m.onnx")
    assert "m.onnx cannot be compared: output y is random" in message
    assert "--no-verify" in message
    assert "nodes  2 → 1" in succeeds("optimize", "m.onnx", "--no-verify")


def test_files_whose_weights_alone_differ_are_of_one_graph(language: Path) -> None:
    model = onnx.load("language.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "block.o.bias":
            array = numpy_helper.to_array(tensor).copy()
            array[3] += 0.5 * np.abs(array).max()
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    model.producer_name = "another"
    model.graph.node[0].name = "renamed"
    onnx.save(model, "tuned.onnx")
    text = succeeds("diff", "language.onnx", "tuned.onnx")
    for line in (
        "graph: the same, 24 nodes",
        "numbers: 1 of 12 weights differ, by at most 0.5 of the largest element",
        "  block.o.bias  float[8]  0.5",
        "  metadata producer: only in the second, another",
        "  names of nodes: 1 differ",
    ):
        assert line in text, text
    code, found = diff("language.onnx", "tuned.onnx")
    assert (code, found["same_graph"]) == (0, True)
    assert [c["name"] for c in found["changed"]] == ["block.o.bias"]
    assert diff("language.onnx", "language.onnx")[1]["about"] == []


def changed_graph(path: Path, kind: str) -> str:
    """Changes the file, and returns the line that says so."""
    model = onnx.load(path)
    graph = model.graph
    nodes = {n.output[0]: n for n in graph.node}
    if kind == "attribute":
        nodes["q"].attribute[0].ints[:] = [0, 2, 1, 3][::-1]
        expected = "node Transpose q: other perm"
    elif kind == "operator":
        nodes["root"].op_type = "Exp"
        expected = "node Sqrt root: is a Exp"
    elif kind == "inputs":
        nodes["mixed"].input[1] = "split"
        expected = "node MatMul mixed: takes (weights, q) → (weights, split)"
    elif kind == "node":
        graph.node.append(node("Relu", ["logits"], ["more"]))
        expected = "node Relu more: only in the second"
    elif kind == "weight":
        graph.initializer.append(numpy_helper.from_array(weight(2), "new"))
        expected = "weight new: only in the second, float[2]"
    elif kind == "type":
        (bias,) = (t for t in graph.initializer if t.name == "block.o.bias")
        bias.CopyFrom(numpy_helper.from_array(weight(1, 8), bias.name))
        expected = "weight block.o.bias: float[8] → float[1, 8]"
    elif kind == "input":
        graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
        expected = "input ids: int64[batch, seq] → int64[batch, 7]"
    else:
        model.opset_import[0].version = 18
        expected = "opset ai.onnx: 17 → 18"
    onnx.save(model, path.with_name("other.onnx"))
    return expected


@pytest.mark.parametrize(
    "kind", ["attribute", "operator", "inputs", "node", "weight", "type", "input", "opset"]
)
def test_what_differs_of_the_graph_is_named(language: Path, kind: str) -> None:
    expected = changed_graph(language / "language.onnx", kind)
    code, found = diff("language.onnx", "other.onnx")
    assert code == 1
    assert found["graph"] == [expected]
    assert expected in command_line.run("diff", "language.onnx", "other.onnx").stdout


def test_a_long_difference_is_cut_short_without_verbose(language: Path) -> None:
    for name, count in (("a", 1), ("b", 40)):
        nodes = [node("Exp", ["x"], [f"y{i}"]) for i in range(count)]
        written(language / f"{name}.onnx", nodes, {"x": (FLOAT, ["N"])}, ["y0"])
    assert "... 19 more: --verbose" in command_line.run("diff", "a.onnx", "b.onnx").stdout
    assert "more" not in command_line.run("diff", "a.onnx", "b.onnx", "--verbose").stdout
    assert "gone.onnx" in fails("diff", "a.onnx", "gone.onnx")


def test_constants_that_nodes_hold_are_weights(language: Path) -> None:
    for name, number in (("a", 1.0), ("b", 1.5)):
        held = numpy_helper.from_array(np.float32([number, 2]))
        nodes = [node("Constant", [], ["c"], value=held), node("Add", ["x", "c"], ["y"])]
        written(language / f"{name}.onnx", nodes, {"x": (FLOAT, [2])}, ["y"])
    code, found = diff("a.onnx", "b.onnx")
    assert code == 0
    assert found["changed"] == [{"name": "c", "type": "float[2]", "relative": 0.25}]


def test_a_convolution_and_its_normalization_are_one_node(language: Path) -> None:
    convolutional(language / "images.onnx")
    assert "BatchNormalization  1  →  0" in succeeds("optimize", "images.onnx")
    assert command_line.run("diff", "images.onnx", "images.optimized.onnx").exit_code == 1


def test_a_file_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bits = """
        bits (int64[n] x) => (int64[n] y, int64[n] z) {
            [turned] y = BitwiseNot (x)
            [both] z = BitwiseAnd (x, y)
        }"""
    onnx.save(parsed(bits, opset=21), "bits.onnx")
    text = succeeds("optimize", "bits.onnx", "--device", "cuda")
    assert "on the CPU: BitwiseAnd(i64, i64)" in text
    assert [x.op_type for x in onnx.load("bits.optimized.onnx").graph.node] == ["Sub", "BitwiseAnd"]
    result = command_line.run("optimize", "bits.onnx", "--json")
    assert json.loads(result.stdout)["on_cpu"] is None
