"""Samples of images at places: torch's values and gradients, and gradients of those."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import f32, f64
from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import affine_grid, grid_sample
from tests import everywhere
from tests.everywhere import torch_function
from tests.leaves import leaf

MODES = ("bilinear", "nearest", "bicubic")
BEYOND = ("zeros", "border", "reflection")


def wide(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Places within and beyond the ends; other numbers as well. A 1024th is apart from any step."""
    return rng.integers(-2500, 2500, shape) / 1024


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_mode", BEYOND)
@pytest.mark.parametrize("align_corners", [False, True])
def test_samples_are_torchs(mode: str, padding_mode: str, align_corners: bool) -> None:
    options = (mode, padding_mode, align_corners)
    everywhere.check(
        lambda x, grid: grid_sample(x, grid, *options),
        torch_function("grid_sample", *options),
        [("n", 3, "h", "w"), ("n", "p", 5, 2)],
        [(2, 3, 4, 5), (2, 3, 5, 2)],
        [(1, 3, 1, 3), (1, 2, 5, 2)],
        [(1, 3, 6, 2), (1, 1, 5, 2)],
        draw=wide,
        order=1,
    )


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding_mode", BEYOND)
def test_volumes_are_torchs(mode: str, padding_mode: str) -> None:
    for align_corners in (False, True):
        options = (mode, padding_mode, align_corners)
        everywhere.check(
            lambda x, grid, options=options: grid_sample(x, grid, *options),
            torch_function("grid_sample", *options),
            [("n", 2, "d", "h", "w"), ("n", 2, 2, "p", 3)],
            [(2, 2, 3, 4, 2), (2, 2, 2, 3, 3)],
            draw=wide,
            order=1,
            dtypes=(f32,),
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_mode", BEYOND)
def test_second_gradients_are_differences_of_first_ones(mode: str, padding_mode: str) -> None:
    """torch has none."""
    rng = np.random.default_rng(3)
    x, grid = leaf("x", f64["n", 2, "h", "w"]), leaf("grid", f64["n", "p", 2])
    y = grid_sample(x, grid, mode, padding_mode)
    g, u, v = leaf("g", y.type), leaf("u", x.type), leaf("v", grid.type)
    first = vjp([y], [x, grid], [g])
    second = vjp(first, [x, grid, g], [u, v])
    feeds = {
        "x": rng.normal(size=(2, 2, 4, 5)),
        "grid": rng.uniform(-1.7, 1.7, (2, 6, 2)),
        "g": rng.normal(size=(2, 2, 6)),
        "u": rng.normal(size=(2, 2, 4, 5)),
        "v": rng.normal(size=(2, 6, 2)),
    }
    d = {name: rng.normal(size=feeds[name].shape) for name in ("x", "grid", "g")}
    step = 1e-6

    def total(by: float) -> float:
        moved = feeds | {name: feeds[name] + by * a for name, a in d.items()}
        at_x, at_grid = evaluate(first, moved)
        return float((at_x * feeds["u"]).sum() + (at_grid * feeds["v"]).sum())

    exact = sum((s * a).sum() for s, a in zip(evaluate(second, feeds), d.values(), strict=True))
    numeric = (total(step) - total(-step)) / (2 * step)
    assert np.isclose(exact, numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("padding_mode", BEYOND)
def test_along_one_axis(padding_mode: str) -> None:
    """torch has none for sequences: an image of one row."""
    x, grid = leaf("x", f32["n", 2, "m"]), leaf("grid", f32["n", "p", 1])
    rng = np.random.default_rng(0)
    for mode in MODES:
        y = grid_sample(x, grid, mode, padding_mode)
        data = {
            "x": rng.normal(size=(2, 2, 5)).astype(np.float32),
            "grid": wide(rng, (2, 7, 1)).astype(np.float32),
        }
        rows = data["x"][:, :, None]
        points = np.stack([data["grid"][..., 0], 0 * data["grid"][..., 0]], -1)
        flat = grid_sample(rows, points, mode, padding_mode)
        np.testing.assert_allclose(evaluate(y, data), evaluate(flat, {}), rtol=1e-5, atol=1e-6)


def test_places_that_are_none() -> None:
    """A sample at NaN is NaN; infinity lies beyond the ends, and has no mirror image."""
    x, grid = leaf("x", f32[1, 1, "n"]), leaf("grid", f32[1, "p", 1])
    data = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4)
    places = np.array([np.nan, np.inf, -np.inf, 3e38, 0], np.float32).reshape(1, 5, 1)
    nan = np.nan
    expected = {
        ("bilinear", "zeros"): [nan, 0, 0, 0, 2.5],
        ("bilinear", "border"): [nan, 4, 1, 4, 2.5],
        ("nearest", "zeros"): [nan, 0, 0, 0, 3],
        ("nearest", "border"): [nan, 4, 1, 4, 3],
        ("bicubic", "zeros"): [nan, 0, 0, 0, 2.5],
        ("bicubic", "border"): [nan, 4, 1, 4, 2.5],
    }
    for (mode, padding_mode), values in expected.items():
        y = grid_sample(x, grid, mode, padding_mode)
        wanted = np.array(values, np.float32).reshape(1, 1, 5)
        everywhere.check_values(y, [x, grid], ({"x": data, "grid": places}, wanted))
    for mode in MODES:
        y = grid_sample(x, grid, mode, "reflection")
        for result in everywhere.results(y, [x, grid], {"x": data, "grid": places}):
            assert np.isnan(result[0, 0, :3]).all() and np.isfinite(result[0, 0, 4])


def test_empty_batches_and_no_places() -> None:
    x, grid = leaf("x", f32["n", 2, "h", "w"]), leaf("grid", f32["n", "p", 2])
    y = grid_sample(x, grid)
    for n, p in ((0, 3), (2, 0)):
        feeds = {"x": np.zeros((n, 2, 3, 4), np.float32), "grid": np.zeros((n, p, 2), np.float32)}
        everywhere.check_values(y, [x, grid], (feeds, np.zeros((n, 2, p), np.float32)))


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid behavior has changed")
@pytest.mark.parametrize("align_corners", [False, True])
def test_affine_grids_are_torchs(align_corners: bool) -> None:
    for space in ((3, 4), (1, 5), (2, 3, 4)):
        rank = len(space)
        everywhere.check(
            lambda t, space=space: affine_grid(t, ("n", 1, *space), align_corners),
            torch_function("affine_grid", (2, 1, *space), align_corners),
            [("n", rank, rank + 1)],
            [(2, rank, rank + 1)],
        )


def test_the_identity_samples_the_image() -> None:
    x = leaf("x", f64["n", 2, "h", "w"])
    data = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    theta = np.broadcast_to(np.eye(2, 3), (3, 2, 3))
    for align_corners in (False, True):
        grid = affine_grid(leaf("theta", f64["n", 2, 3]), x.shape, align_corners)
        y = grid_sample(x, grid, align_corners=align_corners)
        assert y.type == x.type
        feeds = {"x": data, "theta": theta}
        np.testing.assert_allclose(evaluate(y, feeds), data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x, g: grid_sample(x, g, "linearly"),
            "mode must be one of linear, bilinear, .* 'linea",
        ),
        (lambda x, g: grid_sample(x, g, padding_mode="reflect"), "mean 'reflection'"),
        (lambda x, g: grid_sample(x, g[..., :1]), r"(.|\n)*2 numbers per position"),
        (lambda x, g: grid_sample(x, g.astype(f64)), "element types differ, f32 ≠ f64"),
        (lambda x, g: grid_sample(x[:1], g), "not known to have the same batch size"),
        (lambda x, g: grid_sample(x[:, :, :0], g), "a spatial axis without elements"),
        (lambda x, g: affine_grid(g[:, :2], ("n", 1, 3, 4)), r"theta is \[n, 2, 3\] for the size"),
        (lambda x, g: affine_grid(g, (3, 4)), r"needs theta \[batch, axes, axes \+ 1\]"),
    ],
)
def test_mistakes(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        make(leaf("x", f32["n", 3, 4, 5]), leaf("grid", f32["n", 6, 2]))


def test_the_graph_is_standard() -> None:
    """No kernel of the runtime that is known to be wrong, in float64 neither."""
    from nncompile.backends.onnx import to_model

    x, grid = leaf("x", f64["n", 3, "h", "w"]), leaf("grid", f64["n", "p", 2])
    graph = Graph("y", {"y": grid_sample(x, grid, "bicubic", "reflection")}, (x, grid))
    assert "GridSample" not in [node.op_type for node in to_model(graph).graph.node]
