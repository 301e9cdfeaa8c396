"""Files that no exporter writes: each is imported or refused with a message, and none crashes."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from nncompile import export, load_onnx
from nncompile.diagnostics.errors import CompileError
from nncompile.frontends.onnx import importing, stored, tensors
from nncompile.frontends.onnx.refusals import ImportRefused
from tests.onnx_files import FLOAT, convolutional, run, tied_language_model, written

node = helper.make_node
TO_IMAGES = node("Reshape", ["x", "shape"], ["i"])
IMAGES = {"shape": np.array([-1, 1, 2, 2]), "w": np.ones((1, 1, 1, 1), np.float32)}
EMPTY = helper.make_graph([], "empty", [], [])


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
        (node("Gelu", ["x"], ["y"]), "there is no such operator in opset 17"),
        (node("SequenceLength", ["x"], ["y"]), "its input input_sequence is a tensor"),
        (
            node(
                "Scan", ["x"], ["y"], body=helper.make_graph([], "g", [], []), num_scan_inputs=2**40
            ),
            "1099511627776 of its 1 inputs are scanned",
        ),
        (node("Gather", ["x", "i"], ["y"], axis=5), "axis 5 does not exist in a tensor of rank 2"),
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


@pytest.mark.parametrize("raised, is_fault", [(TypeError, True), (IndexError, False)])
def test_a_fault_of_ours_is_not_one_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[Exception], is_fault: bool
) -> None:
    def broken(*_: Any) -> Any:
        raise raised("something")

    entry = dataclasses.replace(importing.ENTRIES["", "Relu"], function=broken)
    monkeypatch.setitem(importing.ENTRIES, ("", "Relu"), entry)
    nodes = "y = Relu(x)"
    path = written(tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"])
    with pytest.raises(ImportRefused) as error:
        load_onnx(path)
    (refusal,) = error.value.refusals
    assert refusal.is_fault is is_fault
    assert ("a fault of nncompile, in test_onnx_malformed.py" in str(error.value)) is is_fault
    assert (error.value.hint or "").startswith("report the fault") is is_fault
    assert isinstance(error.value.__cause__, raised)  # with the traceback of it


def test_functions_that_call_others_twice_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2⁴⁰ calls of a few lines."""
    monkeypatch.setattr(importing, "_MOST_NODES", 500)
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    functions = []
    for i in range(40):
        calls = [node(f"f{i + 1}", ["x"], [name], domain="own") for name in ("a", "b")]
        body = [*calls, node("Add", ["a", "b"], ["y"])]
        functions.append(helper.make_function("own", f"f{i}", ["x"], ["y"], body, opsets))
    last = [node("Relu", ["x"], ["y"])]
    functions.append(helper.make_function("own", "f40", ["x"], ["y"], last, opsets))
    path = written(
        tmp_path / "f.onnx", [node("f0", ["x"], ["y"], domain="own")], {"x": (FLOAT, ["n"])},
        ["y"], opsets=opsets[:1], functions=functions,
    )  # fmt: skip
    with pytest.raises(ImportRefused, match="more than 500 nodes"):
        load_onnx(path)


def _refusals(path: Path) -> list[str]:
    with pytest.raises(ImportRefused) as error:
        load_onnx(path)
    assert not any(r.is_fault for r in error.value.refusals)
    return [r.reason for r in error.value.refusals]


@pytest.mark.parametrize(
    ("nodes", "weights", "reason"),
    [
        ([node("Expand", ["x", "s"], ["y"])], {"s": np.array([2**50, 1, 4])}, "larger than any"),
        ([node("Tile", ["x", "s"], ["y"])], {"s": np.array([1, 2**62])}, "beyond 64 bits"),
        (
            [node("Resize", ["x", "", "s"], ["y"])],
            {"s": np.array([1, np.nan], np.float32)},
            "the scales [1.0, nan]",
        ),
        (
            [node("ReduceSum", ["x"], ["y"], keepdims=7)],
            {},
            "its attribute keepdims is 7, neither 0 nor 1",
        ),
        ([node("Sum", ["x", ""], ["y"])], {}, "its input data_0 is missing"),
        ([node("Loop", ["x"], ["y"])], {}, "it has 1 inputs, not 2 or more"),
        (
            [node("LSTM", ["x", "w", "w"], ["y"])],
            {"w": np.zeros((1, 4, 1), np.float32)},
            "its input X is of rank 2, not 3",
        ),
        (
            [node("Unsqueeze", ["x", "axis"], ["z"]), node("RNN", ["z", "w", "w"], ["y"])],
            {"axis": np.array([0]), "w": np.zeros((2, 4, 4), np.float32)},
            "its input W has 2 directions, not 1",
        ),
        (
            [node("Constant", [], ["y"], value_int=1, value_float=2.0)],
            {},
            "it has several values: value_float, value_int",
        ),
        (
            [node("Softmax", ["x"], ["y"], axis=2)],
            {},
            "axis 2 does not exist in a tensor of rank 2",
        ),
        ([node("Relu", ["x"], ["y"], axis=1)], {}, "the operator has no attribute 'axis'"),
        (
            [node("Add", ["x", "z"], ["y"]), node("Exp", ["x"], ["z"])],
            {},
            "'z' is made by a later node, or by a circle of nodes",
        ),
        (
            [node("If", ["t"], ["y"], then_branch=EMPTY, else_branch=EMPTY)],
            {"t": np.asarray(True)},
            "its graph 'empty' has 0 results, not 1",
        ),
        (
            [node("Loop", ["t", "", "x"], ["y"], body=EMPTY)],
            {"t": np.asarray(2)},
            "its graph 'empty' has 0 inputs, and gets 3",
        ),
        ([node("Cast", ["x"], ["y"], to=8)], {}, "texts, which no graph is trained on"),
        (
            [node("Slice", ["x", "one", "two"], ["y"])],
            {"one": np.array([0]), "two": np.array([1, 2])},
            "it has 1 starts, 2 ends, 1 axes, 1 steps",
        ),
        (
            [node("Resize", ["x", "", "s"], ["y"])],
            {"s": np.array([1, 2, 2], np.float32)},
            "it has 3 scales for 2 axes",
        ),
        *(
            ([TO_IMAGES, node("Conv", ["i", "w"], ["y"], **attributes)], IMAGES, reason)
            for attributes, reason in (
                ({"strides": [1]}, "its attribute strides has 1 numbers, not 2"),
                ({"pads": [1, 1]}, "its attribute pads has 2 numbers, not 4"),
                ({"dilations": [1] * 3}, "its attribute dilations has 3 numbers, not 2"),
                ({"kernel_shape": [5, 5]}, "kernel_shape is [5, 5], its kernel has [1, 1]"),
            )
        ),
        (
            [TO_IMAGES, node("MaxPool", ["i"], ["y"], kernel_shape=[2])],
            IMAGES,
            "its attribute kernel_shape has 1 numbers, not 2",
        ),
    ],
)
def test_what_a_node_cannot_be_asked_for(
    tmp_path: Path, nodes: Any, weights: Any, reason: str
) -> None:
    path = written(tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    (refusal,) = _refusals(path)
    assert reason in refusal


def test_trees_are_no_network(tmp_path: Path) -> None:
    tree = node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml")
    opsets = [helper.make_opsetid("ai.onnx.ml", 3)]
    path = written(
        tmp_path / "x.onnx", [tree], {"x": (FLOAT, ["n", 4])}, ["y"], opsets=opsets
    )  # fmt: skip
    assert _refusals(path) == ["a model of trees is not trained by gradients"]


def test_all_that_is_wrong_is_in_one_message(tmp_path: Path) -> None:
    nodes = "a = Add(x, w)  b = Nope(x)  y = Exp(v)"
    weights = {"w": np.zeros(4, np.float32), "v": np.zeros(4, np.float32)}
    path = written(
        tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["a", "y", "missing"], weights
    )
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = b"short"
    model.graph.initializer[1].data_type = onnx.TensorProto.STRING
    onnx.save(model, path)
    with pytest.raises(ImportRefused) as error:
        load_onnx(path)
    rows = [" ".join(row) for row in error.value.rows]
    assert rows == [
        "initializer  w the tensor 'w' has 5 bytes, not 16",
        "initializer  v texts, which no graph is trained on",
        "Nope-17 f32[n, 4] b there is no such operator in opset 17",
        "output  missing it is made by no node",
    ]


def test_sizes_that_double_with_every_node_end(tmp_path: Path) -> None:
    """Sixty products of a size with itself and one more than it."""
    nodes = [node("Shape", ["x"], ["s0"])]
    for i in range(60):
        nodes += [node("Add", [f"s{i}", "one"], [f"a{i}"])]
        nodes += [node("Mul", [f"s{i}", f"a{i}"], [f"s{i + 1}"])]
    nodes += [node("Expand", ["x", "s60"], ["y"])]
    weights = {"one": np.array([1, 1])}
    path = written(tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    assert _refusals(path) == ["shape depends on data"]


def test_a_graph_within_a_function_has_its_attributes(tmp_path: Path) -> None:
    slope = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=1)
    inner = node("LeakyRelu", ["x"], ["z"])
    inner.attribute.append(slope)
    branch = helper.make_graph([inner], "g", [], [onnx.ValueInfoProto(name="z")])
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    body = [node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    function = helper.make_function("own", "f", ["x", "c"], ["y"], body, opsets, ["slope"])
    call = node("f", ["x", "c"], ["y"], domain="own", slope=0.5)
    path = written(
        tmp_path / "x.onnx", [call], {"x": (FLOAT, [2]), "c": (onnx.TensorProto.BOOL, [])}, ["y"],
        opsets=opsets[:1], functions=[function],
    )  # fmt: skip
    export(load_onnx(path), tmp_path / "y.onnx")
    x = np.array([-2, 3], np.float32)
    (y,) = run(tmp_path / "y.onnx", {"x": x})  # both branches are equal
    np.testing.assert_array_equal(y, [-1, 3])
    outside = written(tmp_path / "o.onnx", [inner], {"x": (FLOAT, [2])}, ["z"])
    assert _refusals(outside) == ["its attribute alpha is that of a function, and it is in none"]


def test_all_files_that_are_missing_are_named(tmp_path: Path) -> None:
    weights = {name: np.zeros(4, np.float32) for name in "vw"}
    nodes = "y = Add(v, w)"
    path = written(tmp_path / "x.onnx", nodes, {}, ["y"], weights)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{tensor.name}.bin")
    onnx.save(model, path)
    with pytest.raises(CompileError, match=r"'v' in 'v\.bin': there is no such file") as error:
        load_onnx(path)
    assert error.value.rows == (("and", "'w'", "in 'w.bin': there is no such file"),)


def test_more_weights_than_memory_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name: np.zeros(4, np.float32) for name in "vw"}
    path = written(tmp_path / "x.onnx", "y = Add(v, w)", {}, ["y"], weights)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    monkeypatch.setattr(tensors, "memory", lambda: 2**40)
    monkeypatch.setattr(stored, "memory", lambda: 31)
    assert _refusals(path) == ["this machine does not have the memory for 'w' and what is before"]
    monkeypatch.setattr(tensors, "memory", lambda: 15)
    message = "the tensor 'v' needs 16 bytes, and this machine has 15"
    assert _refusals(path)[0] == message


def test_a_text_is_no_name(tmp_path: Path) -> None:
    """`const____…` and `/Cast_1/Cast_1…`, in which patterns are looked for."""
    name = "const" + "_" * 3000 + "/Cast_1" * 100
    nodes = [node("Add", ["x", name], ["y"])]
    weights = {name: np.zeros(4, np.float32)}
    path = written(tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    load_onnx(path)
    nodes = [node("Add", ["x", name * 2], ["y"])]
    path = written(tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], {name * 2: [0.0]})
    with pytest.raises(CompileError, match="a name has 7,410 characters"):
        load_onnx(path)
