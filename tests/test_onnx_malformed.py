"""Files that no exporter writes: each is imported or refused with a message, and none crashes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from nncompile import load_onnx
from nncompile.diagnostics.errors import CompileError
from nncompile.frontends.onnx.refusals import ImportRefused
from tests.onnx_files import FLOAT, convolutional, tied_language_model, written

node = helper.make_node


def mutated(model: onnx.ModelProto, rng: random.Random) -> None:
    """Changes one thing."""
    graph = model.graph
    chosen = rng.choice(graph.node)
    names = [x for n in graph.node for x in (*n.input, *n.output)]
    match rng.randrange(8):
        case 0:
            chosen.input[rng.randrange(len(chosen.input))] = rng.choice([*names, "", "nothing"])
        case 1:
            del chosen.input[rng.randrange(len(chosen.input))]
        case 2:
            chosen.input.append(rng.choice(names))
        case 3:
            chosen.op_type = rng.choice(["Loop", "If", "Resize", "TopK", "LSTM", "Einsum", "Nope"])
        case 4:
            stored = rng.choice(graph.initializer)
            if stored.dims:
                stored.dims[0] = rng.choice([0, -1, 3, 2**40])
        case 5:
            rng.choice(graph.initializer).data_type = rng.choice([0, 2, 7, 8, 9, 14, 17, 99])
        case 6:
            model.opset_import[0].version = rng.choice([1, 5, 9, 11, 13, 22, 99])
        case 7 if chosen.attribute:
            attribute = rng.choice(chosen.attribute)
            attribute.i, attribute.type = rng.choice([-1, 2**40]), rng.randrange(1, 9)


@pytest.mark.parametrize("make", [convolutional, tied_language_model])
def test_no_change_of_a_file_crashes(tmp_path: Path, make: object) -> None:
    assert callable(make)
    whole = onnx.load(make(tmp_path / "whole.onnx"))
    rng = random.Random(0)
    refused = 0
    for _ in range(60):
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        mutated(model, rng)
        onnx.save(model, tmp_path / "changed.onnx")
        try:
            load_onnx(tmp_path / "changed.onnx")
        except CompileError as error:
            assert str(error)
            refused += 1
    assert 30 < refused < 60


def test_bytes_of_a_file_are_changed(tmp_path: Path) -> None:
    content = convolutional(tmp_path / "whole.onnx").read_bytes()
    rng = random.Random(0)
    for _ in range(40):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 20])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        (tmp_path / "changed.onnx").write_bytes(changed[: rng.randrange(len(changed))])
        with pytest.raises(CompileError):
            load_onnx(tmp_path / "changed.onnx")


@pytest.mark.parametrize(
    "wrong, reason",
    [
        (node("Relu", [], ["y"]), "it has 0 inputs, not 1"),
        (node("Conv", ["x", ""], ["y"]), "its input W is missing"),
        (node("Concat", ["x", "x"], ["y"]), "its attribute axis is missing"),
        (node("Transpose", ["x"], ["y"], perm="abc"), "its attribute perm is not INTS"),
        (node("Add", ["x", "i"], ["y"]), "its inputs are of two types, f32 and i64"),
        (node("Relu", ["z"], ["y"]), "no node makes 'z'"),
    ],
)
def test_a_node_that_does_not_fit_its_operator_is_told(
    tmp_path: Path, wrong: onnx.NodeProto, reason: str
) -> None:
    weights = {"i": np.arange(4)}
    path = written(tmp_path / "x.onnx", [wrong], {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    with pytest.raises(ImportRefused) as error:
        load_onnx(path)
    assert [r.reason for r in error.value.refusals] == [reason]
