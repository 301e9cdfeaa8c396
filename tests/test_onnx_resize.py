"""Resizing as onnxruntime does it, at sizes that the file does not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from nncompile import load_onnx
from nncompile.frontends.onnx.refusals import ImportRefused
from nncompile.ir.interpreter import evaluate
from tests.onnx_files import FLOAT, run, weight, written


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
