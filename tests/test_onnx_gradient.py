"""A node of a file that is the gradient of another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from nncompile import load_onnx
from nncompile.frontends.onnx.refusals import ImportRefused
from nncompile.ir.interpreter import evaluate
from tests.onnx_files import FLOAT, written

TRAINING = "ai.onnx.preview.training"
X, W = np.array([1.0, 2, -3]), np.array([0.5, -1, 2])
SHAPES = {"x": (FLOAT, [3]), "w": (FLOAT, [3]), "at": (FLOAT, [3])}
node = helper.make_node
PRODUCT = (node("Mul", ["x", "w"], ["p"]), node("Mul", ["p", "x"], ["y"]))  # x²·w


def computed(
    directory: Path,
    inputs: list[str],
    outputs: list[str],
    *more: onnx.NodeProto,
    **attributes: object,
) -> list[np.ndarray]:
    gradient = node("Gradient", inputs, outputs, domain=TRAINING, **attributes)
    path = written(
        directory / "gradient.onnx",
        [*PRODUCT, gradient, *more],
        SHAPES,
        [o for o in (*outputs, *(o for n in more for o in n.output)) if o],
        opsets=[helper.make_opsetid(TRAINING, 1)],
    )
    loaded = load_onnx(path)
    feeds = {"x": X.astype("f4"), "w": W.astype("f4"), "at": np.full(3, 7, "f4")}
    feeds = {n: a for n, a in feeds.items() if n in loaded.graph.leaves}
    return [*evaluate(loaded.graph, feeds).values()]


def test_at_inputs(tmp_path: Path) -> None:
    dx, dw = computed(tmp_path, ["x", "w"], ["dx", "dw"], xs=["x", "w"], y="y")
    np.testing.assert_allclose(dx, 2 * X * W)
    np.testing.assert_allclose(dw, X**2)


def test_of_one_output_and_what_is_held(tmp_path: Path) -> None:
    (dx,) = computed(tmp_path, ["x", "w"], ["dx"], xs=["x"], zs=["w"], y="y")
    np.testing.assert_allclose(dx, 2 * X * W)


def test_at_an_intermediate_tensor(tmp_path: Path) -> None:
    (dp,) = computed(tmp_path, ["p", "x"], ["dp"], xs=["p"], zs=["x"], y="y")
    np.testing.assert_allclose(dp, X)


def test_at_another_place(tmp_path: Path) -> None:
    """The node gets `at` for x."""
    (dx,) = computed(tmp_path, ["at", "w"], ["dx"], xs=["x"], zs=["w"], y="y")
    np.testing.assert_allclose(dx, 2 * 7 * W)


def test_of_a_gradient(tmp_path: Path) -> None:
    second = node("Gradient", ["x", "w"], ["", "ddw"], domain=TRAINING, xs=["x", "w"], y="dx")
    dx, ddw = computed(tmp_path, ["x", "w"], ["dx"], second, xs=["x"], zs=["w"], y="y")
    np.testing.assert_allclose(dx, 2 * X * W)
    np.testing.assert_allclose(ddw, 2 * X)


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="1 inputs for the 2 tensors x, w"):
        computed(tmp_path, ["x"], ["dx"], xs=["x", "w"], y="y")
    with pytest.raises(ImportRefused, match="no node makes 'z'"):
        computed(tmp_path, ["x"], ["dx"], xs=["x"], y="z")
