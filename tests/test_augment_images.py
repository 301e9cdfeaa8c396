"""Augmentation of images, and noise: what each layer does."""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
import pytest

from dsl import (
    AlphaDropout,
    ColorJitter,
    Cutout,
    DropPath,
    GaussianDropout,
    GaussianNoise,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    SpatialDropout,
    f32,
    f64,
)
from dsl.augmentation import images
from dsl.augmentation.color import hue_turned
from dsl.augmentation.images import rotated
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import u32
from nncompile.ops import const, full
from tests.augmented import drawn, of_images, run
from tests.leaves import leaf


@pytest.mark.parametrize(
    ("layer", "axis"), [(RandomHorizontalFlip(), 3), (RandomVerticalFlip(), 2)]
)
def test_flips(layer: Any, axis: int) -> None:
    x = drawn(400, 3, 4)
    y = run(of_images(layer), image=x)["y0"]
    mirrored = np.flip(x, axis)
    is_flipped = [np.array_equal(a, b) for a, b in zip(y, mirrored, strict=True)]
    np.testing.assert_array_equal(y, np.where(np.reshape(is_flipped, (-1, 1, 1, 1)), mirrored, x))
    assert 150 < sum(is_flipped) < 250  # five standard deviations of Binomial(400, ½)


def test_crops() -> None:
    """Each is the part at one of all (2·2 + 1)² places of the image with zeros around."""
    x = drawn(300, 4, 5)
    y = run(of_images(RandomCrop(2)), image=x)["y0"]
    wide = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)])
    found = set()
    for i in range(len(x)):
        places = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.array_equal(y[i], wide[i, :, r : r + 4, c : c + 5])
        ]
        assert len(places) == 1
        found.update(places)
    assert len(found) == 25  # each is missed with a chance of 5·10⁻⁶


def test_crops_of_another_size() -> None:
    net = of_images(RandomCrop(0, (3, 2)))
    x = drawn(200, 5, 6)
    y = run(net, image=x)["y0"]
    assert y.shape == (200, 3, 3, 2)
    found = set()
    for i in range(len(x)):
        found.update(
            (r, c)
            for r in range(3)
            for c in range(5)
            if np.array_equal(y[i], x[i, :, r : r + 3, c : c + 2])
        )
    assert len(found) == 15
    used = evaluate(net.inference(), {"image": x})["y0"]
    np.testing.assert_array_equal(used, x[:, :, 1:4, 2:4])


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_rotation_by_right_angles_is_numpys(mode: str) -> None:
    x = drawn(4, 6, 6).astype(np.float64)
    angles = np.arange(4) * math.pi / 2
    y = evaluate(
        rotated(leaf("x", f64["n", 3, "h", "h"]), leaf("angle", f64["n"]), mode),
        {"x": x, "angle": angles},
    )
    for k in range(4):
        np.testing.assert_allclose(y[k], np.rot90(x[k], k, (1, 2)), atol=1e-12)


def test_rotation_of_a_ramp_is_exact() -> None:
    """Bilinear interpolation reproduces what is linear in the coordinates: rotated inside."""
    row, column = np.mgrid[0:9, 0:9].astype(np.float64) - 4
    angle = 0.2
    x = np.broadcast_to(3 * row - 2 * column, (1, 1, 9, 9))
    y = evaluate(rotated(const(x), const(np.array([angle]))), {})
    c, s = math.cos(angle), math.sin(angle)
    expected = 3 * (s * column + c * row) - 2 * (c * column - s * row)
    np.testing.assert_allclose(y[0, 0, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-12)


def test_cutout() -> None:
    """A rectangle of at most 3 × 2 about each pixel is filled, whole inside the image."""
    x = drawn(300, 7, 6)
    y = run(of_images(Cutout((3, 2), -1.0)), image=x)["y0"]
    middles = np.zeros((7, 6))
    for before, after in zip(x, y, strict=True):
        changed = (after == -1).all(0)
        np.testing.assert_array_equal(np.where(changed, -1, before), after)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == len(rows) * len(columns) <= 6
        assert len(rows) >= 2 and len(columns) >= 1
        middles += changed
    assert (middles > 0).all()
    assert middles[1:-1, 1:].mean() / 300 == pytest.approx(6 / 42, rel=0.1)


def test_color() -> None:
    x = drawn(500, 4, 4) + 2
    y = run(of_images(ColorJitter(0.3, 0)), image=x)["y0"]
    factors = (y / x).reshape(500, -1)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(48, 1), rtol=1e-5)
    assert 0.7 <= factors.min() < 0.72 and 1.28 < factors.max() <= 1.3 + 1e-5
    y = run(of_images(ColorJitter(0, 0.5)), image=x)["y0"]
    np.testing.assert_allclose(y.mean((1, 2, 3)), x.mean((1, 2, 3)), rtol=1e-5)
    factors = y.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.5 <= factors.min() < 0.52 and 1.48 < factors.max() <= 1.5 + 1e-5
    limited = run(of_images(ColorJitter(0.9, 0.9, limits=(0.0, 1.0))), image=x)["y0"]
    assert limited.min() == 0 and limited.max() == 1


def test_saturation() -> None:
    """What lies about the grey of each pixel is multiplied by one factor an image."""
    x = drawn(300, 4, 4)
    y = run(of_images(ColorJitter(0, 0, 0.6)), image=x)["y0"]
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey, before = np.einsum("c,ncyx->nyx", weights, y), np.einsum("c,ncyx->nyx", weights, x)
    np.testing.assert_allclose(grey, before, rtol=1e-4, atol=1e-5)
    factors = ((y - grey[:, None]) / (x - before[:, None])).reshape(300, -1)
    middle = np.median(factors, 1)
    np.testing.assert_allclose(factors, np.broadcast_to(middle[:, None], factors.shape), atol=0.02)
    assert 0.4 <= middle.min() < 0.43 and 1.57 < middle.max() <= 1.6 + 1e-4


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.0, 0.1, 0.5])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_hue_is_that_of_colorsys(turn: float, scale: float) -> None:
    """Greys and equal colours among them; of another scale and zero it is the same."""
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(1, 3, 6, 6))
    x[0, :, 0] = x[0, :1, 0]  # grey
    x[0, 1, 1], x[0, 2, 2], x[0, 2, 3] = x[0, 0, 1], x[0, 1, 2], x[0, 0, 3]
    expected = np.empty_like(x)
    for row, column in np.ndindex(6, 6):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[0, :, row, column])
        expected[0, :, row, column] = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    y = evaluate(hue_turned(const(x * scale - 3), turn), {})
    np.testing.assert_allclose(y, expected * scale - 3, rtol=1e-12, atol=1e-12 * scale)


def test_hue_of_images_is_drawn() -> None:
    x = drawn(300, 4, 4)
    y = run(of_images(ColorJitter(0, 0, 0, 0.5)), image=x)["y0"]
    np.testing.assert_allclose(y.max(1), x.max(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y.min(1), x.min(1), rtol=1e-5, atol=1e-6)
    assert len(np.unique(y.argmax(1)[:, 0, 0])) == 3


def test_colours_are_three() -> None:
    for layer in (ColorJitter(0, 0, 0.1), ColorJitter(0, 0, 0, 0.1)):
        with pytest.raises(ShapeError, match="ColorJitter: saturation and hue need three ch"):
            of_images(layer, type_=f32["n", 1, 4, 4])
    of_images(ColorJitter(0.1, 0.1), type_=f32["n", 1, 4, 4])
    with pytest.raises(ModelError, match=r"hue of ColorJitter must be at most 0\.5, got 0\.6"):
        ColorJitter(hue=0.6)
    with pytest.raises(ModelError, match="saturation of ColorJitter must be at least 0"):
        ColorJitter(saturation=-0.1)


def test_noise() -> None:
    x = drawn(100)
    noise = run(of_images(GaussianNoise(0.5)), image=x)["y0"] - x
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(
        0.5, rel=0.02
    )
    ones = np.ones_like(x)
    factor = run(of_images(GaussianDropout(0.2)), image=ones)["y0"]
    assert factor.mean() == pytest.approx(1, abs=0.02)
    assert factor.std() == pytest.approx(math.sqrt(0.2 / 0.8), rel=0.02)


def test_spatial_dropout_and_drop_path() -> None:
    """All of a channel, or of an example, together; what is kept is divided by the rate kept."""
    x = np.ones((400, 3, 4, 5), np.float32)
    by_channel = run(of_images(SpatialDropout(0.25)), image=x)["y0"]
    by_example = run(of_images(DropPath(0.25)), image=x)["y0"]
    for y, rows, count in ((by_channel, 1200, 20), (by_example, 400, 60)):
        flat = y.reshape(rows, count)
        assert (flat == flat[:, :1]).all()
        np.testing.assert_allclose(np.unique(flat), [0, 4 / 3], rtol=1e-6)
        kept = (flat[:, 0] > 0).mean()
        assert abs(kept - 0.75) < 5 * math.sqrt(0.75 * 0.25 / rows)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = np.random.default_rng(0).normal(size=(200, 1000)).astype(np.float32)
    y = run(of_images(AlphaDropout(0.2), type_=f32["n", 1000]), image=x)["y0"]
    assert y.mean() == pytest.approx(0, abs=0.02) and y.std() == pytest.approx(1, rel=0.02)
    values, counts = np.unique(y, return_counts=True)
    assert counts.max() / y.size == pytest.approx(0.2, rel=0.03)
    assert values[counts.argmax()] < 0


def test_a_random_place_is_within_the_bound_whatever_rounding_makes_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A share just below 1, times a count, may be rounded up to the count."""
    for share, place in ((1.0, 4), (1 - 2**-24, 4), (0.5, 2), (0.0, 0)):
        monkeypatch.setattr(images, "uniform", lambda key, shape, x=share: full(shape, x, f32))
        places = images.below(const(0, u32), 3, 5)
        np.testing.assert_array_equal(evaluate([places], {})[0], [place] * 3)
