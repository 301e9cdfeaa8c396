"""ONNX files of fewer nodes: each rule, and that numbers stay."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nncompile.frontends.onnx.simplify.facts import facts_of
from nncompile.frontends.onnx.simplify.simplifying import simplified
from nncompile.frontends.onnx.writing import write_model
from nncompile.runtime import Session
from nncompile.verify.onnx_files import Drawn, compare, difference_of
from tests.onnx_cases.running import cases_of
from tests.onnx_files import (
    FLOAT,
    INT64,
    convolutional,
    ints,
    nodes_of,
    tied_language_model,
    weight,
    written,
)
from tests.simplified_graphs import FEWER, KEPT, SPELLED, X, numbers_of

node = helper.make_node


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node)


def smaller(path: Path, is_exact: bool = False) -> onnx.ModelProto:
    """The simplified model, which computes the same at several sizes."""
    model = simplified(path, is_exact)
    (other,) = write_model(model, path.with_name("smaller.onnx"), str(path.parent))
    comparison = compare(path, other)
    assert comparison.agrees, comparison.problem
    assert len(comparison.cases) >= 3 or not comparison.cases
    return model


@pytest.mark.parametrize("kind", FEWER)
@pytest.mark.parametrize("opset", [13, 18])
def test_it_has_fewer_nodes_and_the_same_numbers(kind: str, opset: int, tmp_path: Path) -> None:
    nodes, weights, left = FEWER[kind]
    model = smaller(written(tmp_path / "m.onnx", nodes, X, ["y"], weights, opset))
    assert ops(model) == Counter(left)
    assert [o.name for o in model.graph.output] == ["y"]


@pytest.mark.parametrize("kind", SPELLED)
def test_what_a_file_spells_out_is_one_operator(kind: str, tmp_path: Path) -> None:
    nodes, weights = SPELLED[kind], numbers_of(kind)
    operator = "Gelu" if kind.startswith("gelu") else "LayerNormalization"
    path = written(tmp_path / "m.onnx", nodes, X, ["y"], weights, opset=20)
    assert ops(smaller(path)) == {operator: 1}
    weights |= {"half": np.float32(0.4), "one": np.float32(1.1), "two": np.float32(3)}
    other = written(tmp_path / "other.onnx", nodes, X, ["y"], weights, opset=20)
    assert ops(smaller(other))[operator] == 0


@pytest.mark.parametrize("kind", KEPT)
def test_what_would_be_other_numbers_stays(kind: str, tmp_path: Path) -> None:
    nodes, weights = KEPT[kind]
    model = smaller(written(tmp_path / "m.onnx", nodes, X, ["y"], weights))
    assert ops(model) == Counter(n.op_type for n in nodes_of(nodes))


def test_batch_normalization_is_part_of_the_convolution_before_it(tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    model = smaller(path)
    assert ops(model)["BatchNormalization"] == 0
    stored = {t.name for t in model.graph.initializer}
    assert stored == {"stem.weight", "bn.bias", "fc.weight", "fc.bias"}
    assert ops(simplified(path, is_exact=True))["BatchNormalization"] == 1


def test_a_padding_and_numbers_for_channels_are_part_of_a_convolution(tmp_path: Path) -> None:
    nodes = (
        "p = Pad(x, pads)  c = Conv <pads = [1, 0, 0, 0]> (p, w)  s = Mul(c, scale)  "
        "y = Add(shift, s)"
    )
    weights = {"pads": ints(0, 0, 0, 1, 0, 0, 2, 1), "w": weight(5, 3, 2, 2),
               "scale": weight(5, 1, 1), "shift": weight(1, 5, 1, 1)}  # fmt: skip
    images = {"x": (FLOAT, ["N", 3, "H", 7])}
    model = smaller(written(tmp_path / "m.onnx", nodes, images, ["y"], weights))
    assert ops(model) == {"Conv": 1}
    attributes = {a.name: helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
    assert attributes["pads"] == [1, 1, 2, 1]


def test_a_recurrent_layer_that_begins_with_zeros_is_told_no_state(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]), node("Slice", ["s", "one", "two"], ["n"]),
        node("Concat", ["one", "n", "units"], ["t"], axis=0), node("ConstantOfShape", ["t"], ["h"]),
        node("GRU", ["x", "w", "r", "b", "", "h"], ["", "y"], hidden_size=3),
    ]  # fmt: skip
    weights = {"one": ints(1), "two": ints(2), "units": ints(3), "w": weight(1, 9, 4),
               "r": weight(1, 9, 3, seed=1), "b": weight(1, 18, seed=2)}  # fmt: skip
    inputs = {"x": (FLOAT, ["time", "N", 4])}
    assert ops(smaller(written(tmp_path / "m.onnx", nodes, inputs, ["y"], weights))) == {"GRU": 1}


def test_a_recurrent_layer_that_begins_elsewhere_keeps_its_state(tmp_path: Path) -> None:
    nodes = [node("RNN", ["x", "w", "r", "", "", "h"], ["", "y"], hidden_size=3)]
    weights = {"w": weight(1, 3, 4), "r": weight(1, 3, 3, seed=1), "h": weight(1, 2, 3, seed=2)}
    inputs = {"x": (FLOAT, ["time", 2, 4])}
    model = smaller(written(tmp_path / "m.onnx", nodes, inputs, ["y"], weights))
    assert model.graph.node[0].input[5] == "h"


def test_the_branch_that_is_taken_stands_for_the_choice(tmp_path: Path) -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        inner = [node(op, ["x"], ["a"]), node("Mul", ["a", "two"], ["r"])]
        two = numpy_helper.from_array(np.float32(2), "two")
        return helper.make_graph(inner, name, [], [onnx.ValueInfoProto(name="r")], [two])

    nodes = [
        node("Shape", ["x"], ["s"]), node("Size", ["s"], ["rank"]),
        node("Equal", ["rank", "three"], ["is_batch"]),
        node("If", ["is_batch"], ["i"], then_branch=branch("yes", "Exp"),
             else_branch=branch("no", "Log")),
        node("If", ["is_batch"], ["j"], then_branch=branch("b", "Neg"),
             else_branch=branch("c", "Log")),
        node("Add", ["i", "j"], ["y"]),
    ]  # fmt: skip
    path = written(tmp_path / "m.onnx", nodes, X, ["y"], {"three": np.int64(3)})
    assert ops(smaller(path)) == {"Exp": 1, "Neg": 1, "Mul": 2, "Add": 1}


def test_a_language_model_keeps_its_names_and_loses_its_shapes(tmp_path: Path) -> None:
    path = tied_language_model(tmp_path / "m.onnx")
    before = onnx.load(path)
    model = smaller(path)
    assert len(before.graph.node) == 24
    left = ops(model)
    assert left["Shape"] == left["Concat"] == left["Unsqueeze"] == left["Sqrt"] == 0
    assert len(model.graph.node) == 13
    weights = {"tok.weight", "onnx::MatMul_9", "block.o.bias", "onnx::MatMul_12"}
    assert weights <= {t.name for t in model.graph.initializer}
    names = {n.name for n in model.graph.node} - {""}
    assert names == {n.name for n in before.graph.node} - {""}
    assert model.graph.input == before.graph.input
    assert model.opset_import == before.opset_import


def test_inputs_that_have_a_default_are_not_taken_for_constants(tmp_path: Path) -> None:
    nodes = "e = Exp(w)  y = Mul(x, e)"
    path = written(tmp_path / "m.onnx", nodes, X, ["y"], {"w": weight(6)})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [6]))
    onnx.save(model, path)
    assert ops(simplified(path)) == {"Exp": 1, "Mul": 1}
    model.ir_version = 3  # in which all weights are inputs
    onnx.save(model, path)
    assert ops(simplified(path)) == {"Mul": 1}


def test_what_cannot_be_imported_is_simplified_around(tmp_path: Path) -> None:
    nodes = "a = Identity(x)  b = NonZero(a)  c = Neg(b)  d = Neg(b)  y = Add(c, d)"
    assert ops(smaller(written(tmp_path / "m.onnx", nodes, X, ["y"]))) == {
        "NonZero": 1, "Neg": 1, "Add": 1,
    }  # fmt: skip


def test_a_size_that_the_file_was_written_for_is_that_number(tmp_path: Path) -> None:
    """As where heads were split with the length that a model was traced with."""
    nodes = (
        "p = MatMul(x, w)  s = Shape(p)  n = Gather(s, one)  heads = Mul(n, two)  "
        "h = Unsqueeze(heads, axis)  t = Concat <axis = 0> (seven, h, four)  y = Reshape(p, t)"
    )
    weights = {"w": weight(6, 8), "one": np.int64(1), "two": np.int64(2), "axis": ints(0),
               "seven": ints(7), "four": ints(4)}  # fmt: skip
    inputs = {"x": (FLOAT, ["T", "N", 6])}
    path = written(tmp_path / "m.onnx", nodes, inputs, ["y"], weights)
    assert ops(smaller(path)) == {"MatMul": 1, "Reshape": 1}
    assert facts_of(onnx.load(path), "m.onnx", "")["p"].type.shape[0] == 7


@pytest.mark.parametrize("size", [2**40, 10**7])
def test_constants_that_are_large_stay_as_they_are_made(size: int, tmp_path: Path) -> None:
    nodes = "a = ConstantOfShape(n)  y = Concat <axis = 0> (x, a)"
    path = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["N"])}, ["y"], {"n": ints(size)})
    assert ops(simplified(path)) == {"ConstantOfShape": 1, "Concat": 1}


def test_weights_that_nodes_make_are_stored_however_large(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.float32([0.5]))
    nodes = [node("ConstantOfShape", ["n"], ["w"], value=value), node("MatMul", ["x", "w"], ["y"])]
    inputs = {"x": (FLOAT, ["N", 3])}
    path = written(tmp_path / "m.onnx", nodes, inputs, ["y"], {"n": ints(3, 10**5)})
    assert path.stat().st_size < 1000
    model = smaller(path)
    assert ops(model) == {"MatMul": 1}
    assert model.graph.initializer[0].dims == [3, 10**5]


@pytest.mark.parametrize("second, left", [(1.0, 1), (2.0, 2)])
def test_nodes_that_take_equal_constants_compute_the_same(
    second: float, left: int, tmp_path: Path
) -> None:
    nodes = "a = MatMul(x, v)  b = MatMul(x, w)  c = Exp(a)  y = Mul(b, c)"
    other = weight(6, 5)
    other[-1, -1] *= second
    weights = {"v": weight(6, 5), "w": other}
    model = smaller(written(tmp_path / "m.onnx", nodes, X, ["y"], weights))
    assert ops(model) == {"MatMul": left, "Exp": 1, "Mul": 1}


def test_zeros_of_other_signs_are_not_equal(tmp_path: Path) -> None:
    nodes = "a = Div(x, v)  b = Div(x, w)  y = Concat <axis = 0> (a, b)"
    weights = {"v": np.zeros(6, np.float32), "w": -np.zeros(6, np.float32)}
    path = written(tmp_path / "m.onnx", nodes, X, ["y"], weights)
    assert ops(simplified(path)) == {"Div": 2, "Concat": 1}


def test_constants_of_other_element_types_are_passed_by(tmp_path: Path) -> None:
    texts = helper.make_tensor("texts", onnx.TensorProto.STRING, [2], [b"a", b"b"])
    nodes = [
        node("Constant", [], ["c"], value=texts), node("Identity", ["c"], ["d"]),
        node("Gather", ["d", "index"], ["e"]), node("Size", ["e"], ["n"]),
        node("Cast", ["n"], ["f"], to=FLOAT), node("Add", ["x", "f"], ["y"]),
    ]  # fmt: skip
    assert ops(smaller(written(tmp_path / "m.onnx", nodes, X, ["y"], {"index": ints(1)}))) == {
        "Add": 1
    }


def test_weights_beside_the_file_stay_beside_it(tmp_path: Path) -> None:
    nodes = "a = Identity(x)  y = MatMul(a, w)"
    path = written(tmp_path / "m.onnx", nodes, X, ["y"], {"w": weight(6, 300)})
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="m.bin",
                    size_threshold=0)  # fmt: skip
    files = write_model(simplified(path), tmp_path / "small.onnx", str(tmp_path))
    assert [file.name for file in files] == ["small.onnx", "small.onnx.data"]
    assert compare(path, files[0]).agrees


# Families of onnx's own cases with graphs of several nodes, or of what the rules look at.
FAMILIES = ("affinegrid", "expand", "gather", "layernormalization", "reshape", "slice",
            "softmax", "split", "squeeze", "transpose", "unsqueeze", "where")  # fmt: skip


@pytest.mark.parametrize("bound", [False, True], ids=["", "with constants for inputs"])
def test_the_node_cases_of_onnx_compute_the_same(bound: bool, tmp_path: Path) -> None:
    count = 0
    for case in cases_of(FAMILIES):
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        arrays = case.data_sets[0][0]
        feeds = dict(zip([i.name for i in model.graph.input], arrays, strict=True))
        if not all(isinstance(x, np.ndarray) and x.dtype != object for x in arrays):
            continue
        if bound:
            rest = model.graph.input[1:]
            stored = [numpy_helper.from_array(feeds.pop(i.name), i.name) for i in rest]
            model.graph.initializer.extend(stored)
            del model.graph.input[1:]
        path = tmp_path / "case.onnx"
        onnx.save(model, path)
        try:
            expected = Session(path, threads=1, optimization="none").run(feeds)
        except Exception:  # onnxruntime does not have all of them
            continue
        got = Session(simplified(path), threads=1, optimization="none").run(feeds)
        for name, x in expected.items():
            assert difference_of(x, got[name])[1] is None, case.name
        count += 1
    assert count > 100


def test_inputs_are_drawn_as_far_as_the_file_accepts_them(tmp_path: Path) -> None:
    nodes = "a = Gather(table, ids)  b = Gather(small, kinds)  y = Add(a, b)"
    inputs = {"ids": (INT64, ["N", "T"]), "kinds": (INT64, ["N", "T"])}
    tables = {"table": weight(40, 3), "small": weight(2, 3)}
    path = written(tmp_path / "m.onnx", nodes, inputs, ["y"], tables)
    drawn = Drawn(Session(path, threads=1, optimization="none"), 0)
    listed = list(drawn.cases())
    assert drawn.highest == {"ids": 30, "kinds": 1}
    assert {case for case, _, _ in listed} >= {"N=2, T=6", "N=1, T=6", "N=5, T=6", "N=2, T=13"}


def test_sizes_that_a_file_was_written_for_are_found(tmp_path: Path) -> None:
    nodes = "b = Reshape(a, six)  d = Reshape(c, four)  y = Concat <axis = 2> (b, d)"
    inputs = {"a": (FLOAT, ["N", "S"]), "c": (FLOAT, ["N", "T"])}
    shapes = {"six": ints(0, 2, 3), "four": ints(0, 2, 2)}
    path = written(tmp_path / "m.onnx", nodes, inputs, ["y"], shapes)
    drawn = Drawn(Session(path, threads=1, optimization="none"), 0)
    assert {case for case, _, _ in drawn.cases()} == {f"N={n}, S=6, T=4" for n in (1, 2, 4, 5)}


@pytest.mark.parametrize(
    "x, y, problem",
    [
        (np.ones(2, np.float32), np.ones(3, np.float32), "is float32"),
        (ints(1, 2), ints(1, 3), "has other values"),
        (np.float32([1, np.nan]), np.float32([1, 1]), "is not finite elsewhere"),
        (np.float32([1, np.inf]), np.float32([1, -np.inf]), "is not finite elsewhere"),
        (np.float32([100, 1]), np.float32([100, 1.01]), "differs by 1.0e-04"),
        (np.float32([100, 1]), np.float32([100, 1.0001]), None),
    ],
)
def test_a_difference_is_relative_to_the_largest_element(
    x: Any, y: Any, problem: str | None
) -> None:
    found = difference_of(x, y)[1]
    assert found is None if problem is None else problem in str(found)
