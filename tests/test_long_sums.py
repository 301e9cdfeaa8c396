"""Sums of many numbers keep float32's digits in both backends: the bound is that of 64 numbers that
are alike in one accumulator, whatever the count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import vjp
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f32
from nncompile.ops.core.long_sums import ACROSS, DOWN, ROW
from tests.long_sum_checks import DATA, alike, bound_of, everywhere, near, thousand

COUNTS = (0, 1, 100, 1000, 5000, 300_007)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "shape,axes,keepdims",
    [
        (("n",), (0,), False),
        (("n",), (0,), True),
        (("n", 2), (0,), False),
        (("n", 2), (0,), True),
        (("n", 2), (0, 1), False),
        ((2, "n"), (1,), False),
        ((2, "n", 3), (1,), False),
        (("n", 2, 3), (0, 2), True),
        ((2, "n", 3), (0, 1), False),
    ],
)
def test_a_sum_is_right_however_many_there_are(
    data: Callable[..., Array], shape: tuple[Any, ...], axes: tuple[int, ...], keepdims: bool
) -> None:
    rng = np.random.default_rng(3)
    feeds = [[data(rng, tuple(count if d == "n" else d for d in shape))] for count in COUNTS]
    found = everywhere(lambda x: ops.sum(x, axes, keepdims), [f32[shape]], *feeds)
    for (x,), results in zip(feeds, found, strict=True):
        exact = x.sum(axes, dtype=np.float64, keepdims=keepdims)
        scale = np.abs(x).sum(axes, dtype=np.float64, keepdims=keepdims)
        for backend, result in results.items():
            near(result, exact, scale, f"{backend} of {x.shape}", bound_of(data))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "shape,axes",
    [
        ((1_000_003,), (0,)),
        ((2000, 1000), (0, 1)),
        ((300_007, 3), (0,)),
        ((2, 1009, 513), (1, 2)),
        ((7, 128, 64, 64), (0, 2, 3)),
        ((64, 40_000), (0, 1)),
        ((3, 257, 257, 2), (1, 2)),
    ],
)
def test_a_sum_of_a_known_size(
    data: Callable[..., Array], shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = data(np.random.default_rng(5), shape)
    (results,) = everywhere(lambda x: ops.sum(x, axes), [f32[shape]], [x])
    for backend, result in results.items():
        exact, scale = (a.sum(axes, dtype=np.float64) for a in (x, np.abs(x)))
        near(result, exact, scale, backend, bound_of(data))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    "shape,axes",
    [
        ((ROW,), (0,)),
        ((2, ROW), (1,)),
        ((DOWN, 2), (0,)),
        ((DOWN, 64), (0,)),
        ((2, ACROSS, 3), (1,)),
        ((ACROSS, 2, 2), (0,)),
        ((2 * ACROSS, 3, ROW), (0, 2)),
    ],
)
def test_a_sum_of_as_many_as_one_node_adds(
    data: Callable[..., Array], shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    test_a_sum_of_a_known_size(data, shape, axes)
    symbolic = [f"n{i}" if i in axes else d for i, d in enumerate(shape)]
    x = data(np.random.default_rng(5), shape)
    (results,) = everywhere(lambda x: ops.sum(x, axes), [f32[tuple(symbolic)]], [x])
    for backend, result in results.items():
        exact, scale = (a.sum(axes, dtype=np.float64) for a in (x, np.abs(x)))
        near(result, exact, scale, backend, bound_of(data))


@pytest.mark.parametrize("shape", [("64*n", 5), ("n", 128, 5), ("n", "m", 5), (2, "n", 64, 5)])
def test_a_sum_over_sizes_with_factors(shape: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(6)
    axes = tuple(range(len(shape) - 1))
    sizes = {"64*n": 64 * 5003, "n": 2003, "m": 151}
    feeds = [
        [alike(rng, tuple(sizes.get(d, d) for d in shape))],
        [alike(rng, tuple({"64*n": 128, "n": 2, "m": 3}.get(d, d) for d in shape))],
        [alike(rng, tuple(0 if isinstance(d, str) else d for d in shape))],
    ]
    found = everywhere(lambda x: ops.sum(x, axes), [f32[shape]], *feeds)
    for (x,), results in zip(feeds, found, strict=True):
        for backend, result in results.items():
            exact = x.sum(axes, dtype=np.float64)
            near(result, exact, exact, f"{backend} of {x.shape}")


def test_twenty_million() -> None:
    x = thousand(np.random.default_rng(1), (20_000_000,))
    functions: dict[str, Callable[[Value], Value]] = {
        "mean": lambda x: ops.mean(x),
        "last running sum": lambda x: ops.cumsum(x)[-1],
    }
    exact = float(x.sum(dtype=np.float64))
    expected = {"mean": exact / x.size, "last running sum": exact}
    for name, function in functions.items():
        (results,) = everywhere(function, [f32["n"]], [x])
        for backend, result in results.items():
            near(result, expected[name], expected[name], f"{name}, {backend}")


def test_running_sums() -> None:
    rng = np.random.default_rng(2)
    for exclusive, reverse in ((False, False), (True, False), (False, True), (True, True)):
        feeds = [[data(rng, (2, n, 2))] for data in DATA[:4] for n in (0, 1, 60, 100, 40_000)]
        found = everywhere(
            lambda x, e=exclusive, r=reverse: ops.cumsum(x, 1, e, r), [f32[2, "n", 2]], *feeds
        )
        for (x,), results in zip(feeds, found, strict=True):
            wide = np.flip(x, 1) if reverse else x
            sums = wide.cumsum(1, dtype=np.float64)
            sums = sums - wide if exclusive else sums
            sums = np.flip(sums, 1) if reverse else sums
            for backend, result in results.items():
                near(result, sums, np.abs(sums) + np.abs(x), f"{backend} of {x.shape}")


def test_sums_of_exponentials() -> None:
    rng = np.random.default_rng(4)
    for spread in (0.0, 3.0):
        x = (spread * rng.standard_normal((2, 1_000_003))).astype(np.float32) - np.float32(0.7)
        x[:, 0] = 2 + 5 * spread
        powers = np.exp(x.astype(np.float64) - x[:, :1])
        total = powers.sum(1, keepdims=True)
        logs = np.log(total) + x[:, :1]
        for backend, result in everywhere(lambda x: ops.logsumexp(x, 1, True), [f32[2, "n"]], [x])[
            0
        ].items():
            near(result, logs, np.abs(logs), f"logsumexp {backend}")
        for backend, result in everywhere(lambda x: ops.softmax(x, 1), [f32[2, "n"]], [x])[
            0
        ].items():
            near(result, powers / total, powers / total, f"softmax {backend}", 3e-6)
        for backend, result in everywhere(lambda x: ops.log_softmax(x, 1), [f32[2, "n"]], [x])[
            0
        ].items():
            near(result, x - logs, np.abs(x - logs), f"log_softmax {backend}", 2e-6)


def test_products_of_many_numbers() -> None:
    rng = np.random.default_rng(15)
    near_one = [(1 + 1e-6 * rng.standard_normal((2, n))).astype(np.float32) for n in (0, 3, 70_001)]
    for function, exact in (
        (lambda x: ops.prod(x, 1), lambda x: x.prod(1)),
        (lambda x: ops.cumprod(x, 1), lambda x: x.cumprod(1)),
        (lambda x: vjp([ops.prod(x, 1)], [x], [ops.prod(x, 1)])[0], None),
    ):
        found = everywhere(function, [f32[2, "n"]], *([x] for x in near_one))
        for x, results in zip(near_one, found, strict=True):
            wide = x.astype(np.float64)
            total = wide.prod(1, keepdims=True)
            expected = exact(wide) if exact else total * total / wide
            for backend, result in results.items():
                near(result, expected, np.abs(expected), f"{backend} of {x.shape}")
