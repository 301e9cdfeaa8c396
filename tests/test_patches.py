"""Patches to columns and back, pixels to channels and back, against torch and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, i64
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.dims import symbol
from nncompile.ir.interpreter import evaluate
from nncompile.ops import fold, pixel_shuffle, pixel_unshuffle, unfold
from tests import everywhere
from tests.everywhere import torch_function
from tests.layer_checks import model_of
from tests.leaves import leaf

WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": (3, 2), "stride": (1, 3), "padding": (2, 0)},
    {"kernel_size": (2, 3), "dilation": (3, 1), "padding": 1, "stride": (2, 3)},
    {"kernel_size": 1, "stride": 2},
]


@pytest.mark.parametrize("options", WINDOWS)
def test_unfold_is_torchs(options: dict[str, Any]) -> None:
    everywhere.check(
        lambda x: unfold(x, **options),
        torch_function("unfold", **options),
        [("n", 2, "h", "w")],
        [(2, 2, 5, 6)],
        [(1, 2, 7, 4)],
    )


@pytest.mark.parametrize("options", WINDOWS)
def test_fold_is_torchs(options: dict[str, Any]) -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    columns = unfold(x, **options)
    taps = int(columns.shape[1])
    for sizes in ((5, 6), (7, 4)):
        count = evaluate(columns, {"x": np.zeros((1, 2, *sizes), np.float32)}).shape[2]
        everywhere.check(
            lambda x, sizes=sizes: fold(x, sizes, **options),
            torch_function("fold", sizes, **options),
            [("n", taps, count)],
            [(2, taps, count)],
        )


@pytest.mark.parametrize("options", WINDOWS)
def test_fold_of_sizes_that_only_the_data_tell(options: dict[str, Any]) -> None:
    """The gradient of `unfold` at symbolic sizes, and the number of patches of each element."""
    functional = pytest.importorskip("torch").nn.functional
    h, w = symbol("h"), symbol("w")
    everywhere.check(
        lambda x: fold(unfold(x, **options), (h, w), **options),
        lambda x: functional.fold(functional.unfold(x, **options), x.shape[2:], **options),
        [("n", 2, "h", "w")],
        [(2, 2, 5, 6)],
        [(1, 2, 7, 4)],
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_along_other_axes(rank: int) -> None:
    """⟨unfold(x), y⟩ = ⟨x, fold(y)⟩, and the columns are what a window sees, in its order."""
    rng = np.random.default_rng(0)
    sizes = (7, 5, 6)[:rank]
    options: dict[str, Any] = {"kernel_size": 2, "stride": 2, "padding": 1, "dilation": 2}
    x = rng.normal(size=(2, 3, *sizes))
    padded = np.pad(x, [(0, 0)] * 2 + [(1, 1)] * rank)
    view = np.lib.stride_tricks.sliding_window_view(padded, (3,) * rank, tuple(range(2, rank + 2)))
    steps = (slice(None),) * 2 + (slice(None, None, 2),) * (2 * rank)
    seen = np.moveaxis(view[steps], tuple(range(-rank, 0)), tuple(range(2, 2 + rank)))
    columns = evaluate(unfold(x, **options), {})
    np.testing.assert_array_equal(columns, seen.reshape(columns.shape))
    y = rng.normal(size=columns.shape)
    back = evaluate(fold(y, sizes, **options), {})
    assert np.isclose((columns * y).sum(), (x * back).sum())


def test_uneven_and_negative_padding() -> None:
    x = np.arange(1.0, 6.0).reshape(1, 1, 5)
    y = unfold(x, 2, 1, ((1, -1),))
    np.testing.assert_array_equal(evaluate(y, {})[0], [[0, 1, 2, 3], [1, 2, 3, 4]])
    back = evaluate(fold(y, (5,), 2, 1, ((1, -1),)), {})
    np.testing.assert_array_equal(back[0, 0], [2, 4, 6, 4, 0])


def test_patches_of_an_empty_batch() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    h, w = symbol("h"), symbol("w")
    columns = unfold(x, 3, padding=1)
    empty = {"x": np.zeros((0, 2, 4, 5), np.float32)}
    everywhere.check_values(columns, [x], (empty, np.zeros((0, 18, 20), np.float32)))
    back = fold(columns, (h, w), 3, padding=1)
    everywhere.check_values(back, [x], (empty, empty["x"]))


def test_patches_of_integers() -> None:
    x = leaf("x", i64["n", 1, "m"])
    data = np.array([[[2**62, 5, -7, 1]]])
    columns = unfold(x, 3)
    expected = np.array([[[2**62, 5], [5, -7], [-7, 1]]])
    everywhere.check_values(columns, [x], ({"x": data}, expected))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle_is_torchs(factor: int) -> None:
    channels = 2 * factor**2
    everywhere.check(
        lambda x: pixel_shuffle(x, factor),
        torch_function("pixel_shuffle", factor),
        [("n", channels, "h", "w")],
        [(2, channels, 3, 2)],
        [(1, channels, 1, 4)],
    )
    everywhere.check(
        lambda x: pixel_unshuffle(x, factor),
        torch_function("pixel_unshuffle", factor),
        [("n", 2, f"{factor}*h", 6)],
        [(2, 2, factor, 6)],
        [(1, 2, 2 * factor, 6)],
    )


def test_pixel_shuffle_of_any_axes_is_inverted() -> None:
    for shape, factor in ((("n", "6*c", "m"), 3), (("n", 12, "d", "h", "w"), (2, 3, 1))):
        x = leaf("x", f32[shape])
        assert pixel_unshuffle(pixel_shuffle(x, factor), factor).type == x.type
    x = np.arange(2 * 12 * 2 * 3 * 4.0).reshape(2, 12, 2, 3, 4)
    there = pixel_shuffle(x, (2, 3, 1))
    assert there.shape == (2, 2, 4, 9, 4)
    np.testing.assert_array_equal(evaluate(pixel_unshuffle(there, (2, 3, 1)), {}), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x >> dsl.PixelShuffle(2), "PixelShuffle: axis 1 .* multiple of the size of a b"),
        (lambda x: x >> dsl.PixelUnshuffle(2), r'axis 2 of (.|\n)*such as "2\*n"'),
        (lambda x: x >> dsl.PixelShuffle(0), "the factor must be one number or 2, at least 1"),
        (lambda x: x[0, 0] >> dsl.PixelShuffle(2), r"PixelShuffle needs \[batch, channels, "),
        (lambda x: x >> dsl.Unfold((2, 9)), "a kernel that spans 9 is larger than the width"),
        (
            lambda x: x >> dsl.Unfold((2, 2, 2)),
            "kernel_size of Unfold .* is not a number for each of 2",
        ),
        (
            lambda x: x[:, :, 0] >> dsl.Fold((4, 4), 2),
            "Fold: axis 1 .* multiple of the size of",
        ),
        (lambda x: x >> dsl.Fold((4, 4), 2), r"Fold needs \[batch, channels·∏kernel, patches\]"),
        (lambda x: x[:, :, 0] >> dsl.Fold(4, 3), r"a number for each axis(.|\n)*\(4, 4\) for two"),
        (lambda x: x[:, :, 0] >> dsl.Fold((4,), 3), "Fold: space of 4 has 2 patches, x is"),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        model_of(make, x=f32["n", 3, "h", 8])
