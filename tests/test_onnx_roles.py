"""What of a file is trained: by what its exporter says, by operators, names and numbers; and which
tensors are those of one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nncompile import load_onnx
from nncompile.frontends.onnx.tables import table_of
from tests.onnx_files import FLOAT, weight, written

node = helper.make_node
FX = "pkg.torch.onnx.fx_node"


def loaded(path: Path, nodes: Any, weights: Any, output: str = "y") -> Any:
    return load_onnx(written(path, nodes, {"x": (FLOAT, ["n", 4])}, [output], weights))


def said(made: onnx.NodeProto, text: str, scope: str = "") -> onnx.NodeProto:
    """A node with what torch's exporter says of it."""
    made.metadata_props.add(key=FX, value=text)
    if scope:
        made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}', 'op']")
    return made


POSITIONS = np.arange(12)[:, None] / 10000 ** (np.arange(4) / 4)
TABLES = {
    "a mask: not all of it is finite": np.triu(np.full((5, 5), -np.inf), 1),
    "a mask of 0 and -10000": np.triu(np.full((5, 5), -1e4), 1),
    "a mask of 0 and 1": np.tril(np.ones((1, 1, 4, 4))),
    "whole numbers": np.arange(8),
    "evenly spaced numbers": np.linspace(-1, 1, 9)[None],
    "a geometric sequence, as of frequencies": 1 / 10000 ** (np.arange(4) / 4)[:, None],
    "sines and cosines of positions": np.hstack([np.sin(POSITIONS), np.cos(POSITIONS)])[None],
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_no_weights(tmp_path: Path, kind: str) -> None:
    table = TABLES[kind].astype(np.float32)
    assert table_of(table) == kind
    if table.shape[-1] == 4 and table.ndim < 4:
        net = loaded(tmp_path / "m.onnx", [node("Mul", ["x", "t"], ["y"])], {"t": table})
        assert net.report.constants == {"t": kind} and not net.parameters


@pytest.mark.parametrize(
    "array",
    [weight(5), weight(4, 6), np.ones(8), np.zeros((3, 4)), np.full(9, 0.1), weight(2), weight(1),
     np.sort(weight(12)), np.array([0.0, 1.0]), np.abs(weight(3, 5)), np.zeros((0, 4))],
)  # fmt: skip
def test_weights_are_no_tables(array: Any) -> None:
    assert not table_of(np.asarray(array, np.float32))


def test_what_the_exporter_says_comes_first(tmp_path: Path) -> None:
    table = np.arange(4, dtype=np.float32)
    nodes = [
        said(node("Add", ["x", "steps"], ["a"]), "%add = add(%x, %p_steps)"),
        said(node("Mul", ["a", "scale"], ["b"]), "%mul = mul(%add, %b_scale)"),
        said(node("Mul", ["b", "val_3"], ["c"]), "%mul_1 = mul(%mul, %val_3)"),
        said(node("MatMul", ["c", "val_7"], ["y"]), "%linear = linear(%mul_1, %p_w)"),
    ]
    weights = {"steps": table, "scale": weight(4), "val_3": weight(4), "val_7": weight(4, 2)}
    net = loaded(tmp_path / "m.onnx", nodes, weights)
    assert set(net.report.trained) == {"steps", "matmul.weight"}
    assert list(net.report.constants.values()) == [
        "a buffer", "a parameter would be named by its exporter",
    ]  # fmt: skip


@pytest.mark.parametrize("exporter", ["older", "newer"])
def test_group_normalization_has_weights_of_the_channels(tmp_path: Path, exporter: str) -> None:
    """Both exporters of torch spell it with ones and zeros of the groups, which nobody trains; the
    newer one folds the weights with their reshape, and their names are gone."""
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)
    weights = {"val_7": np.array([0, 2, -1]), "val_8": np.array([0, 4]), "w": weight(4, 2)}
    weights |= {"val_24": 1 + weight(4), "val_26": weight(4, seed=1)}
    nodes = [
        node("Reshape", ["x", "val_7"], ["a"]),
        node("InstanceNormalization", ["a", "val_11", "val_14"], ["b"]),
        node("Reshape", ["b", "val_8"], ["c"]),
        node("Mul", ["c", "val_24"], ["d"]),
        node("Add", ["d", "val_26"], ["e"]),
        node("MatMul", ["e", "w"], ["y"]),
    ]
    if exporter == "newer":
        text = "%group_norm = call_function[target=torch.ops.aten.group_norm.default](args = (%x,))"
        nodes = [said(n, text, "norm") for n in nodes[:5]] + nodes[5:]
        weights |= {"val_11": ones, "val_14": zeros}
    else:
        for name, array in (("val_11", ones), ("val_14", zeros)):
            value = numpy_helper.from_array(array, name)
            nodes.insert(0, node("Constant", [], [name], value=value))
    report = loaded(tmp_path / "m.onnx", nodes, weights).report
    assert sorted(map(str, report.trained.values())) == ["f32[4, 2]", "f32[4]", "f32[4]"]
    assert len(report.constants) == 2
    if exporter == "newer":
        assert report.renames == {"norm.weight": "val_24", "norm.bias": "val_26"}


@pytest.mark.parametrize("is_apart", [True, False])
def test_constants_written_in_nodes(tmp_path: Path, is_apart: bool) -> None:
    """They are weights where the file writes all of its weights so."""
    nodes = [
        node("Constant", [], ["offset"], value=numpy_helper.from_array(weight(4), "offset")),
        node("Add", ["x", "offset"], ["a"]),
        node("MatMul", ["a", "w"], ["y"]),
    ]
    weights = {"w": weight(4, 2)}
    if not is_apart:
        value = numpy_helper.from_array(weights.pop("w"), "w")
        nodes.insert(0, node("Constant", [], ["w"], value=value))
    net = loaded(tmp_path / "m.onnx", nodes, weights)
    assert set(net.parameters) == ({"w"} if is_apart else {"w", "offset"})


def test_means_and_deviations_of_images_are_buffers(tmp_path: Path) -> None:
    nodes = [
        node("Sub", ["x", "normalize.mean"], ["a"]),
        node("Div", ["a", "normalize.std"], ["b"]),
        node("MatMul", ["b", "mean.weight"], ["y"]),
    ]
    weights = {
        "normalize.mean": weight(4),
        "normalize.std": 1 + weight(4) ** 2,
        "mean.weight": weight(4, 2),
    }
    assert set(loaded(tmp_path / "m.onnx", nodes, weights).parameters) == {"mean.weight"}


@pytest.mark.parametrize("exporter", ["older", "newer"])
def test_a_layer_that_is_called_twice_has_one_scale(tmp_path: Path, exporter: str) -> None:
    names = ("/norm/LayerNorm", "/norm_1/LayerNorm", "/last/LayerNorm", "/ln_1/LayerNorm")
    scopes = ("norm", "norm", "last", "ln_1")
    nodes = []
    for i, (name, scope) in enumerate(zip(names, scopes, strict=True)):
        made = node("LayerNormalization", [f"a{i}", "norm.weight"], [f"a{i + 1}"], name=name)
        if exporter == "newer":
            made.name = f"node_{i}"
            said(made, f"%norm = norm(%p_{scope}_weight)", scope)
        nodes.append(made)
    nodes.insert(0, node("Relu", ["x"], ["a0"]))
    net = loaded(tmp_path / "m.onnx", nodes, {"norm.weight": np.ones(4, np.float32)}, "a4")
    assert set(net.parameters) == {"norm.weight", "last.weight", "ln_1.weight"}
    kept = {k.path: len(k.users) for k in net.original.tensors}
    assert kept == {"norm.weight": 0, "last.weight": 1, "ln_1.weight": 1}


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_dropout_may_name_a_mask_that_none_takes(tmp_path: Path, is_taken: bool) -> None:
    nodes = [node("Dropout", ["x", "rate", "yes"], ["y", "mask"], name="/drop/Dropout")]
    if is_taken:
        nodes.append(node("Cast", ["mask"], ["z"], to=TensorProto.FLOAT))
    weights = {"rate": np.float32(0.5), "yes": np.array(True)}
    if is_taken:
        with pytest.raises(Exception, match="whose mask is a result"):
            loaded(tmp_path / "m.onnx", nodes, weights)
    else:
        assert loaded(tmp_path / "m.onnx", nodes, weights).layers == {"drop.Dropout": "Dropout"}


def test_an_infinite_number_is_spread_over_sizes(tmp_path: Path) -> None:
    """As masks begin."""
    nodes = [node("Shape", ["x"], ["s"]), node("Expand", ["low", "s"], ["y"])]
    net = loaded(tmp_path / "m.onnx", nodes, {"low": np.float32(-np.inf)})
    assert str(net.outputs["y"].type) == "f32[n, 4]"
