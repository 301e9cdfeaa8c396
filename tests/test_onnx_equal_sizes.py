"""Sizes that a file calls by two names, and that its nodes need to be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dsl import adam, model, mse, training
from nncompile import Trainer, export, load_onnx
from nncompile.diagnostics.errors import FeedError
from nncompile.frontends.onnx.refusals import ImportRefused
from nncompile.frontends.onnx.simplify.facts import facts_of
from nncompile.ir.types import f32
from nncompile.runtime import Session
from nncompile.runtime.session import OPTIMIZATIONS
from tests.onnx_files import FLOAT, run, weight, written

node = helper.make_node
NODES: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "sum": ([node("Add", ["a", "b"], ["y"])], "size m of b[0] is n of a[0]"),
    "product": (
        [node("Transpose", ["a"], ["t"]), node("MatMul", ["t", "b"], ["y"])],
        "size m of b[0] is n of a[0]",
    ),
    "einsum": (
        [node("Einsum", ["a", "b"], ["y"], equation="nk,nl->kl")],
        "size m of b[0] is n of a[0]",
    ),
    "concatenation": ([node("Concat", ["a", "b"], ["y"], axis=1)], "size m of b[0] is n of a[0]"),
}


def file(path: Path, kind: str) -> Path:
    inputs = {"a": (FLOAT, ["n", 3]), "b": (FLOAT, ["m", 3])}
    return written(path / f"{kind}.onnx", NODES[kind][0], inputs, ["y"])


def feeds(n: int, m: int) -> dict[str, Any]:
    return {"a": weight(n, 3), "b": weight(m, 3, seed=1)}


@pytest.mark.parametrize("kind", NODES)
def test_they_are_assumed_to_be_equal_and_it_is_said(kind: str, tmp_path: Path) -> None:
    path = file(tmp_path, kind)
    loaded = load_onnx(path)
    assert [*loaded.report.assumptions] == [NODES[kind][1]]
    assert f"assumed (1):\n  {NODES[kind][1]}" in str(loaded.report)
    (exported,) = export(loaded, tmp_path / "out.onnx", seed=0)
    given = feeds(4, 4)
    (expected,) = run(path, given)
    np.testing.assert_allclose(Session(exported).run(given)["y"], expected, rtol=1e-6)


@pytest.mark.parametrize("kind", NODES)
@pytest.mark.parametrize("sizes", [(4, 5), (1, 4), (4, 1)])
def test_data_of_other_sizes_are_refused_by_both(
    kind: str, sizes: tuple[int, int], tmp_path: Path
) -> None:
    (exported,) = export(load_onnx(file(tmp_path, kind)), tmp_path / "out.onnx", seed=0)
    with pytest.raises(FeedError, match=f"input 'b' has size {sizes[1]} on axis 0") as error:
        Session(exported).run(feeds(*sizes))
    assert ("n", f"{sizes[0]} by input 'a'") in error.value.rows
    # Other runtimes do not compare sizes of one name: the node that fails says what it is for.
    for optimization in OPTIMIZATIONS:
        session = Session(exported, optimization=optimization).onnxruntime
        with pytest.raises(Exception, match=r"size_m_of_b_0_is_n_of_a_0") as failed:
            session.run(None, feeds(*sizes))
        assert f"{{{sizes[1]},3}}" in str(failed.value)
        assert f"{{{sizes[0]},3}}" in str(failed.value)


def test_a_size_that_weights_need_to_be_a_number_is_that(tmp_path: Path) -> None:
    inputs = {"x": (FLOAT, ["n", "t"])}
    nodes = "y = Add(x, w)"
    path = written(tmp_path / "m.onnx", nodes, inputs, ["y"], {"w": weight(7)})
    loaded = load_onnx(path)
    assert [*loaded.report.assumptions] == ["size t of x[1] is 7"]
    assert loaded.inputs["x"].type == f32["n", 7]
    (exported,) = export(loaded, tmp_path / "out.onnx", seed=0)
    with pytest.raises(FeedError, match="has size 1 on axis 1, not 7"):
        Session(exported).run({"x": weight(2, 1)})
    # `optimize` keeps a file that is right for a size of 1.
    assert str(facts_of(onnx.load(path), "m.onnx", "")["x"].type) == "f32[n, t]"


def test_a_size_in_a_sum_is_a_number(tmp_path: Path) -> None:
    """As of rows with one more before them, reshaped to the length of an example."""
    nodes = "a = Pad(x, widths)  y = Reshape(a, rows)"
    weights = {"widths": np.array([0, 1, 0, 0, 0, 0]), "rows": np.array([0, 2, 6])}
    path = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", "time", 2])}, ["y"], weights)
    loaded = load_onnx(path)
    assert [*loaded.report.assumptions] == ["size time of x[1] is 5"]
    assert str(loaded.outputs["y"].type) == "f32[n, 2, 6]"


def test_images_that_are_made_smaller_and_larger_again_are_of_multiples(tmp_path: Path) -> None:
    """As in networks for segmentation and detection: of other sizes, parts do not fit."""
    pool = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
    nodes = [
        node("MaxPool", ["x"], ["half"], **pool),
        node("MaxPool", ["half"], ["quarter"], **pool),
        node("Resize", ["quarter", "", "scales"], ["up"], mode="nearest"),
        node("Concat", ["half", "up"], ["y"], axis=1),
    ]
    weights = {"scales": np.array([1, 1, 2, 2], np.float32)}
    inputs = {"x": (FLOAT, ["n", 1, "h", "w"])}
    path = written(tmp_path / "m.onnx", nodes, inputs, ["y"], weights)
    loaded = load_onnx(path)
    assert [*loaded.report.assumptions] == [
        "size h of x[2] is a multiple of 4", "size w of x[3] is a multiple of 4",
    ]  # fmt: skip
    (exported,) = export(loaded, tmp_path / "out.onnx", seed=0)
    given = {"x": weight(2, 1, 8, 12)}
    np.testing.assert_array_equal(Session(exported).run(given)["y"], run(path, given)[0])
    with pytest.raises(FeedError, match="h"):
        Session(exported).run({"x": weight(2, 1, 6, 12)})


def test_names_of_the_user_come_first(tmp_path: Path) -> None:
    path = file(tmp_path, "sum")
    loaded = load_onnx(path, sizes={"m": "rows", "n": "rows"})
    assert not loaded.report.assumptions
    assert loaded.inputs["b"].type == f32["rows", 3]


def test_what_follows_is_trained_and_checked(tmp_path: Path) -> None:
    nodes = "p = MatMul(a, w)  y = Add(p, b)"
    inputs = {"a": (FLOAT, ["n", 3]), "b": (FLOAT, ["m", 3])}
    inner = load_onnx(written(tmp_path / "m.onnx", nodes, inputs, ["y"], {"w": weight(3, 3)}))

    @model(predict="y")
    def net(a: Any = f32["rows", 3], b: Any = f32["rows", 3], goal: Any = f32["rows", 3]) -> Any:
        y = inner(a, b)["y"]
        return {"y": y, "loss": mse(y, goal)}

    trainer = Trainer(training(net, optimizer=adam(0.05), batch_size=4))
    data = {**feeds(12, 12), "goal": weight(12, 3, seed=3)}
    history = trainer.fit(data, epochs=20, verbose=0)
    assert history["loss"][-1] < history["loss"][0]


def test_sizes_that_cannot_be_equal_are_refused(tmp_path: Path) -> None:
    nodes = "t = Concat <axis = 0> (a, a)  y = MatMul(u, t)"
    inputs = {"a": (FLOAT, ["n", 3]), "u": (FLOAT, [2, "n"])}
    with pytest.raises(ImportRefused, match="inner sizes"):
        load_onnx(written(tmp_path / "m.onnx", nodes, inputs, ["y"]))
