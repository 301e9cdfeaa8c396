"""Resizing images, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import Upsample, f32, f64, model
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.dims import substitute, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import resize
from tests.against_torch import check_against_torch, leaf, torch_function
from tests.layer_checks import model_of

TORCH = {"linear": ("linear", "bilinear", "trilinear")}
LETTERS = "dhw"


def named(mode: str, rank: int) -> str:
    """torch's name of the mode along that many axes."""
    return TORCH[mode][rank - 1] if mode in TORCH else mode


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("scale", [2, 3, 1.5, 0.5, (2, 1), (0.75, 2.0)])
def test_scales_are_torchs(mode: str, dtype: Any, scale: Any) -> None:
    torchs = tuple(map(float, scale)) if isinstance(scale, tuple) else float(scale)
    check_against_torch(
        lambda x: resize(x, scale_factor=scale, mode=mode),
        torch_function("interpolate", scale_factor=torchs, mode=named(mode, 2)),
        dtype["n", 2, "h", "w"],
        (2, 2, 4, 6),
        (1, 2, 5, 7),
        (1, 2, 2, 9),
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("size", [8, (3, 5), (12, 1)])
def test_sizes_are_torchs(mode: str, dtype: Any, size: Any) -> None:
    check_against_torch(
        lambda x: resize(x, size, mode=mode),
        torch_function("interpolate", size=size, mode=named(mode, 2)),
        dtype["n", 2, "h", "w"],
        (2, 2, 4, 6),
        (1, 2, 5, 7),
        (1, 2, 1, 9),
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("rank", [1, 3])
def test_other_numbers_of_axes(mode: str, rank: int) -> None:
    shapes = [(2, 2, *(3, 4, 2)[:rank]), (1, 2, *(5, 1, 3)[:rank])]
    for scale in (2, 1.5):
        check_against_torch(
            lambda x, scale=scale: resize(x, scale_factor=scale, mode=mode),
            torch_function("interpolate", scale_factor=float(scale), mode=named(mode, rank)),
            f32[("n", 2, *LETTERS[:rank])],
            *shapes,
        )


def test_whole_factors_are_one_node() -> None:
    x = leaf(f32["n", 2, "h", 6])
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
    assert resize(leaf(f32[1, 1, 100]), scale_factor=0.29).shape == (1, 1, 29)
    symbolic = resize(leaf(f32[1, 1, "n"]), scale_factor=0.29).shape[2]
    assert substitute(symbolic, {symbol("n"): 100}) == 29


def test_upsample_is_resize() -> None:
    @model
    def net(image=f32["n", 3, "h", "w"]):  # type: ignore[no-untyped-def]
        return {"a": image >> Upsample(2), "b": image >> Upsample(size=4, mode="bilinear")}

    x = leaf(f32["n", 3, "h", "w"], "image")
    assert net.graph.outputs["a"] is resize(x, scale_factor=2)
    assert net.graph.outputs["b"] is resize(x, 4, mode="linear")


def test_a_constant_image_stays_constant() -> None:
    """Interpolation weights add up to one, at the edges too."""
    x = leaf(f64[1, 1, "h", "w"])
    for scale in (0.4, 1.3, 2, 7.5):
        y = evaluate(resize(x, scale_factor=scale, mode="linear"), {"x": np.ones((1, 1, 5, 8))})
        np.testing.assert_allclose(y, 1, rtol=1e-14)


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
