"""Interpolation in all its modes: torch's, Pillow's, and what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, model
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import adaptive_average_pool, resize
from tests import everywhere
from tests.backends import session
from tests.leaves import leaf

SIZES = [(8, 3), (1, 12)]
IMAGES = [[(2, 2, 4, 6)], [(1, 2, 5, 1)], [(1, 2, 2, 9)]]


def functional() -> Any:
    return pytest.importorskip("torch").nn.functional


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("antialias", [False, True])
def test_sizes_are_torchs(mode: str, size: Any, align_corners: bool, antialias: bool) -> None:
    options = {"align_corners": align_corners, "antialias": antialias}
    everywhere.check(
        lambda x: resize(x, size, mode=mode, **options),
        lambda x: functional().interpolate(x, size, mode=mode, **options),
        [("n", 2, "h", "w")],
        *IMAGES,
    )


@pytest.mark.parametrize("scale", [2, (0.5, 1.5)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_scales_are_torchs(mode: str, scale: Any, antialias: bool) -> None:
    torchs = tuple(map(float, scale)) if isinstance(scale, tuple) else float(scale)
    everywhere.check(
        lambda x: resize(x, scale_factor=scale, mode=mode, antialias=antialias),
        lambda x: functional().interpolate(x, None, torchs, mode, antialias=antialias),
        [("n", 2, "h", "w")],
        [(2, 2, 4, 6)],
        [(1, 2, 7, 5)],
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_corners_along_other_axes(rank: int) -> None:
    mode = {1: "linear", 3: "trilinear"}[rank]
    for size in (5, 1):
        everywhere.check(
            lambda x, size=size: resize(x, size, mode=mode, align_corners=True),
            lambda x, size=size: functional().interpolate(x, size, None, mode, True),
            [("n", 2, *"dhw"[:rank])],
            [(2, 2, *(3, 4, 2)[:rank])],
        )


@pytest.mark.parametrize(
    "how", [{"size": 7}, {"size": (3, 13)}, {"scale_factor": 1.5}, {"scale_factor": 3}]
)
def test_nearest_exact_is_torchs(how: dict[str, Any]) -> None:
    everywhere.check(
        lambda x: resize(x, mode="nearest-exact", **how),
        lambda x: functional().interpolate(x, mode="nearest-exact", **how),
        [("n", 2, "h", "w")],
        [(2, 2, 4, 6)],
        [(1, 2, 5, 9)],
    )


def test_area_is_adaptive_averages() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    assert resize(x, (3, 5), mode="area") is adaptive_average_pool(x, (3, 5))
    everywhere.check(
        lambda x: resize(x, scale_factor=0.5, mode="area"),
        lambda x: functional().interpolate(x, scale_factor=0.5, mode="area"),
        [("n", 2, "h", "w")],
        [(1, 2, 5, 6)],
    )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiasing_is_pillows(mode: str) -> None:
    image_module = pytest.importorskip("PIL.Image")
    x = np.random.default_rng(0).uniform(0, 255, (13, 17)).astype(np.float32)
    image = image_module.fromarray(x)
    for size in ((5, 4), (13, 6), (20, 30)):
        y = evaluate(resize(x[None, None], size, mode=mode, antialias=True), {})
        expected = np.asarray(image.resize(size[::-1], getattr(image_module, mode.upper())))
        np.testing.assert_allclose(y[0, 0], expected, rtol=1e-5, atol=1e-3)


def test_enlarging_by_whole_factors_needs_no_antialiasing() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    assert resize(x, scale_factor=2, mode="linear", antialias=True) is resize(
        x, scale_factor=2, mode="linear"
    )


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_ramps_stay_ramps(mode: str, antialias: bool) -> None:
    """Of thousands of elements, too, where float32 would not tell places from one another: the
    middle of a ramp is a ramp, and its ends stay with `align_corners`."""
    x = leaf("x", f32[1, 1, "n"])
    size, count = 1201, 1607
    # Zeros but for a small part: values near zero show the error of the weights.
    data = np.zeros((1, 1, size), np.float32)
    data[..., 1180:1190] = np.arange(10)
    y = resize(x, count, mode=mode, antialias=antialias)
    graph = Graph("y", {"y": y}, (x,))
    found = session(to_model(graph))({"x": data}, {"y": (1, 1, count)})["y"]
    expected = evaluate(graph, {"x": data}, precision=np.float64)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)
    if mode == "linear" and not antialias:
        places = (np.arange(count) + 0.5) * size / count - 0.5
        exact = np.interp(places, np.arange(size), data[0, 0].astype(float))
        np.testing.assert_allclose(found[0, 0], exact, rtol=1e-6, atol=2e-6)
    corners = resize(np.arange(5.0).reshape(1, 1, 5), 9, mode=mode, align_corners=True)
    ends = evaluate(corners, {})[0, 0]
    np.testing.assert_allclose(ends[[0, 4, 8]], [0, 2, 4], atol=1e-12)


def test_constants_stay_constant() -> None:
    for mode, size in (("cubic", 3), ("cubic", 11), ("linear", 3)):
        for options in ({}, {"align_corners": True}, {"antialias": True}):
            y = evaluate(resize(np.full((1, 1, 7), 2.5), size, mode=mode, **options), {})
            np.testing.assert_allclose(y, 2.5, rtol=1e-12)


def test_an_empty_batch_is_resized() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    y = resize(x, (3, 8), mode="cubic", antialias=True)
    empty = np.zeros((0, 2, 4, 5), np.float32)
    everywhere.check_values(y, [x], ({"x": empty}, np.zeros((0, 2, 3, 8), np.float32)))


def test_upsample_has_the_options() -> None:
    @model
    def net(image=f32["n", 3, "h", "w"]):  # type: ignore[no-untyped-def]
        return {
            "a": image >> dsl.Upsample(2, "bicubic", align_corners=True),
            "b": image >> dsl.Upsample(size=(4, 5), mode="bilinear", antialias=True),
        }

    x = leaf("image", f32["n", 3, "h", "w"])
    assert net.graph.outputs["a"] is resize(x, scale_factor=2, mode="cubic", align_corners=True)
    assert net.graph.outputs["b"] is resize(x, (4, 5), mode="linear", antialias=True)
