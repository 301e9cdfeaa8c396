"""Interpolation in all its modes: torch's, Pillow's, and what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import Upsample, f32, f64
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.dims import substitute, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import adaptive_average_pool, resize
from tests import everywhere
from tests.backends import session
from tests.everywhere import check_against_torch, torch_function
from tests.layer_checks import model_of
from tests.leaves import leaf

# The modes of images that weigh elements, in all their ways.
WEIGHED: list[dict[str, Any]] = [
    {"mode": mode, "align_corners": align_corners, "antialias": antialias}
    for mode in ("bilinear", "bicubic")
    for align_corners in (False, True)
    for antialias in (False, True)
]
# Those in which a scale is no more than a size.
SCALED: list[dict[str, Any]] = [way for way in WEIGHED if not way["align_corners"]]
NEAREST: dict[str, Any] = {"mode": "nearest"}
EXACT: dict[str, Any] = {"mode": "nearest-exact"}


def check(*sizes: tuple[int, ...], **options: Any) -> None:
    """`resize` is torch's `interpolate` of inputs of those sizes."""
    shape = ("n", 2, *"dhw"[: len(sizes[0]) - 2])
    theirs = torch_function("interpolate", **options)
    check_against_torch(lambda x: resize(x, **options), theirs, shape, *sizes)


@pytest.mark.parametrize("way", [NEAREST, EXACT, *WEIGHED], ids=str)
@pytest.mark.parametrize("size", [8, (3, 5), (1, 12)])
def test_sizes_are_torchs(way: dict[str, Any], size: Any) -> None:
    check((2, 2, 4, 6), (1, 2, 5, 7), (1, 2, 9, 1), size=size, **way)


@pytest.mark.parametrize("way", [NEAREST, EXACT, *SCALED], ids=str)
@pytest.mark.parametrize("scale", [2, 3, 1.5, 0.5, (2, 1), (0.75, 2.0)])
def test_scales_are_torchs(way: dict[str, Any], scale: Any) -> None:
    check((2, 2, 4, 6), (1, 2, 5, 7), (1, 2, 2, 9), scale_factor=scale, **way)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_numbers_of_axes(rank: int) -> None:
    sizes = [(2, 2, *(3, 4, 2)[:rank]), (1, 2, *(5, 1, 3)[:rank])]
    mode = {1: "linear", 3: "trilinear"}[rank]
    for scale in (2, 1.5):
        check(*sizes, scale_factor=scale, mode="nearest")
        check(*sizes, scale_factor=scale, mode=mode)
    for size in (5, 1):
        check(*sizes, size=size, mode=mode, align_corners=True)
    x = leaf("x", f32[("n", 2, *"dhw"[:rank])])
    assert resize(x, 5, mode="linear") is resize(x, 5, mode=mode)


def test_area_is_adaptive_averages() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    assert resize(x, (3, 5), mode="area") is adaptive_average_pool(x, (3, 5))
    check((1, 2, 5, 6), scale_factor=0.5, mode="area")


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
    """Interpolation weights add up to one, at the edges too."""
    x = leaf("x", f64[1, 1, "h", "w"])
    for way in WEIGHED:
        for scale in (0.4, 1.3, 2, 7.5):
            y = evaluate(resize(x, scale_factor=scale, **way), {"x": np.full((1, 1, 5, 8), 2.5)})
            np.testing.assert_allclose(y, 2.5, rtol=1e-12)


def test_an_empty_batch_is_resized() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    y = resize(x, (3, 8), mode="cubic", antialias=True)
    empty = np.zeros((0, 2, 4, 5), np.float32)
    everywhere.check_values(y, [x], ({"x": empty}, np.zeros((0, 2, 3, 8), np.float32)))


def test_whole_factors_are_one_node() -> None:
    x = leaf("x", f32["n", 2, "h", 6])
    doubled = resize(x, scale_factor=2)
    assert doubled.shape == f32["n", 2, "2*h", 12].shape
    assert resize(x, ("2*h", 12)) is doubled
    assert resize(x, scale_factor="2") is doubled
    assert resize(x, scale_factor=1) is x
    assert resize(x, scale_factor=2, mode="bilinear") is resize(x, scale_factor=2, mode="linear")
    emitted = [n.op_type for n in to_model(Graph("y", {"y": doubled}, (x,))).graph.node]
    assert emitted == ["Resize"]
    gradient = Graph("dx", {"dx": grad((doubled * doubled).sum(), x)}, (x,))
    assert "AveragePool" in [n.op_type for n in to_model(gradient).graph.node]


def test_a_fraction_is_exact() -> None:
    """⌊100·0.29⌋ = 29, though 100·0.29 in floating point is less."""
    assert resize(leaf("x", f32[1, 1, 100]), scale_factor=0.29).shape == (1, 1, 29)
    symbolic = resize(leaf("x", f32[1, 1, "n"]), scale_factor=0.29).shape[2]
    assert substitute(symbolic, {symbol("n"): 100}) == 29


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: x >> Upsample(2, "cubik"),
            "Upsample: mode must be one of nearest, .* got 'cubik'",
        ),
        (
            lambda x: x >> Upsample(2, align_corners=True),
            "align_corners is an option of the modes",
        ),
        (lambda x: x >> Upsample(2, "area", antialias=True), "antialias .* not of 'area'"),
        (lambda x: x[:, :, :0] >> Upsample(2), "Upsample: a spatial axis has no elements"),
        (lambda x: x >> Upsample(), "Upsample takes either size or scale_factor"),
        (lambda x: x >> Upsample(2, size=4), "Upsample takes either size or scale_factor"),
        (lambda x: x >> Upsample((2, 2, 2)), "Upsample: expected one number or 2"),
        (lambda x: x >> Upsample(0), "Upsample: scale_factor must be positive"),
        (lambda x: x >> Upsample("two"), "Upsample: scale_factor must be a number, got 'two'"),
        (lambda x: x >> Upsample(0.1), "0.1 times 8 elements is less than one"),
        (lambda x: x >> Upsample(size=0), "Upsample: a size must be at least 1"),
        (lambda x: x[:, :, 0, 0] >> Upsample(2), r"Upsample needs \[batch, channels\] and"),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        model_of(make, x=f32["n", 3, 8, 8])
