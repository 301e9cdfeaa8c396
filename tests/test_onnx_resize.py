"""Resizing as onnxruntime does it, at sizes that the file does not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from nncompile import export, load_onnx
from nncompile.frontends.onnx.refusals import ImportRefused
from nncompile.ir.interpreter import evaluate
from tests.onnx_files import FLOAT, run, weight, written

LATEST = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 32)


def resizing(path: Path, scale: float, **attributes: str) -> Path:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attributes)
    scales = np.array([1, 1, scale, scale], np.float32)
    return written(path, [node], {"x": (FLOAT, [1, 2, "h", "w"])}, ["y"], {"scales": scales})


@pytest.mark.parametrize("mode", ["half_pixel", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("scale", [0.5, 0.6, 0.7, 1.5, 2.0])
def test_scales_of_any_size(tmp_path: Path, scale: float, mode: str) -> None:
    kinds = [("linear", "floor")]
    kinds += [("nearest", n) for n in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")]
    for kind, nearest in kinds:
        path = resizing(
            tmp_path / "r.onnx", scale, mode=kind, nearest_mode=nearest,
            coordinate_transformation_mode=mode,
        )  # fmt: skip
        net = load_onnx(path)
        for h, w in ((10, 7), (5, 9)):
            x = weight(1, 2, h, w)
            found = evaluate(net.graph, {"x": x})["y"]
            np.testing.assert_allclose(found, run(path, {"x": x})[0], atol=1e-6, err_msg=nearest)


@pytest.mark.parametrize(
    "scale, nearest", [(1.3, "round_prefer_floor"), (0.3, "round_prefer_ceil"), (0.6, "floor")]
)
def test_a_place_that_is_almost_between_two_is_rounded_as_there(
    tmp_path: Path, scale: float, nearest: str
) -> None:
    """In an exported file too, where a division is a product."""
    path = resizing(
        tmp_path / "r.onnx", scale, mode="nearest", nearest_mode=nearest,
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    net = load_onnx(path)
    export(net, tmp_path / "again.onnx")
    x = weight(1, 2, 20, 58)
    found = evaluate(net.graph, {"x": x})["y"]
    np.testing.assert_array_equal(run(tmp_path / "again.onnx", {"x": x})[0], found)
    if LATEST or nearest == "floor":  # before, only what is exactly between two was
        np.testing.assert_array_equal(run(path, {"x": x})[0], found)


@pytest.mark.parametrize("kind", ["nearest", "linear"])
def test_a_scale_that_changes_no_size_changes_nothing(tmp_path: Path, kind: str) -> None:
    """onnxruntime copies 5 elements resized by 1.1, unless another axis changes."""
    path = resizing(tmp_path / "r.onnx", 1.1, mode=kind, nearest_mode="floor")
    net = load_onnx(path)
    for width in (5, 12):
        x = weight(1, 2, 5, width)
        found = evaluate(net.graph, {"x": x})["y"]
        np.testing.assert_allclose(found, run(path, {"x": x})[0], atol=1e-6)


def test_corners_of_a_size_that_is_rounded_are_refused(tmp_path: Path) -> None:
    """ONNX and onnxruntime have other numbers for them."""
    options = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    path = resizing(tmp_path / "r.onnx", 1.5, **options)
    with pytest.raises(ImportRefused, match="align_corners"):
        load_onnx(path)
    whole = load_onnx(resizing(tmp_path / "w.onnx", 2.0, **options))
    x = weight(1, 2, 5, 3)
    expected = run(tmp_path / "w.onnx", {"x": x})[0]
    np.testing.assert_allclose(evaluate(whole.graph, {"x": x})["y"], expected, atol=1e-6)
