"""Norms of windows, of space and of channels, against torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError
from nncompile.ops import local_response_norm, lp_pool, max_pool
from tests import everywhere
from tests.everywhere import torch_function
from tests.layer_checks import model_of
from tests.leaves import leaf


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(64, 256, shape) / 128


@pytest.mark.parametrize("options", [(2,), (3, 2), ((2, 3), (1, 2)), (3, 2, True)])
@pytest.mark.parametrize("p", [1, 2, 3, 2.5])
def test_lp_pooling_is_torchs(p: float, options: tuple[Any, ...]) -> None:
    everywhere.check(
        lambda x: lp_pool(x, p, *options),
        torch_function("lp_pool2d", p, *options),
        [("n", 2, "h", "w")],
        [(2, 2, 5, 6)],
        [(1, 2, 6, 4)],
        draw=positive,
    )


@pytest.mark.parametrize("p", [1, 2])
def test_negative_elements(p: float) -> None:
    for rank in (1, 3):
        everywhere.check(
            lambda x: lp_pool(x, p, 2),
            torch_function(f"lp_pool{rank}d", p, 2),
            [("n", 2, *"dhw"[:rank])],
            [(2, 2, *(4, 5, 2)[:rank])],
        )


def test_infinity_is_the_greatest() -> None:
    x = leaf("x", f32["n", 2, "h", "w"])
    assert lp_pool(x, math.inf, 3, 2, True) is max_pool(x, 3, 2, ceil_mode=True)


@pytest.mark.parametrize("p", [2, 3])
def test_the_gradient_at_zero_is_zero(p: float) -> None:
    x = leaf("x", f64[1, 1, "n"])
    feeds = {"x": np.array([[[0.0, 0, 3, 4]]])}
    y = lp_pool(x, p, 2)
    gradient = grad(y.sum(), x)
    expected = {2: [0, 0, 0.6, 0.8], 3: [0, 0, 9 / 91 ** (2 / 3), 16 / 91 ** (2 / 3)]}
    for result in everywhere.results(gradient, [x], feeds):
        np.testing.assert_allclose(result[0, 0], expected[p], rtol=1e-12)
    second = grad((gradient * gradient).sum(), x)
    assert all(np.isfinite(r).all() for r in everywhere.results(second, [x], feeds))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_local_response_is_torchs(size: int) -> None:
    options = (size, 0.5, 0.75, 2.0)
    for shape, sizes in (
        (("n", 3, "h", "w"), [(2, 3, 2, 3)]),
        (("n", "c", "m"), [(2, 6, 3)]),
        (("n", 4, "d", 2, "w"), [(1, 4, 2, 2, 3)]),
    ):
        everywhere.check(
            lambda x: local_response_norm(x, *options),
            torch_function("local_response_norm", *options),
            [shape],
            sizes,
        )


def test_an_empty_batch() -> None:
    x = leaf("x", f32["n", 3, "h", "w"])
    empty = np.zeros((0, 3, 4, 5), np.float32)
    everywhere.check_values(local_response_norm(x, 3), [x], ({"x": empty}, empty))
    everywhere.check_values(lp_pool(x, 2, 2), [x], ({"x": empty}, empty[:, :, :2, :2]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: dsl.LPPool2d(0, 2), "LPPool2d: norm_type must be a positive number, got 0"),
        (lambda x: x >> dsl.LPPool2d(2, 9), "LPPool2d: a window of 9 does not fit the height"),
        (lambda x: x >> dsl.LPPool1d(2, 2), r"LPPool1d needs \[batch, channels, length\]"),
        (lambda x: dsl.LocalResponseNorm(0), "LocalResponseNorm: size must be at least 1, got 0"),
        (lambda x: x[0, 0, 0] >> dsl.LocalResponseNorm(2), "LocalResponseNorm needs "),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        model_of(make, x=f32["n", 3, 4, 4])
