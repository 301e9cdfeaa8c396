"""Sums and products of integers are exact, however many there are."""

from __future__ import annotations

import numpy as np
import pytest

from nncompile import ops
from nncompile.ir.types import Array, DType, boolean, i32, i64, u32
from nncompile.ops.contraction.matmul import matmul
from tests.long_sum_checks import everywhere


def whole(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> Array:
    """Integers of all sizes that the type has."""
    if dtype.is_bool:
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype.numpy)
    return rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)


@pytest.mark.parametrize("dtype", [i64, i32, u32, boolean])
def test_sums_and_products_of_integers_are_exact(dtype: DType) -> None:
    rng = np.random.default_rng(7)
    shapes = [(3, n, 2) for n in (0, 1, 40, 3000)]
    feeds = [[whole(rng, dtype, shape)] for shape in shapes]
    for axis in (None, 0, 1, 2, (0, 1), (1, 2), (0, 2)):
        for keepdims in (False, True):
            found = everywhere(
                lambda x, a=axis, k=keepdims: ops.sum(x, a, k), [dtype[3, "n", 2]], *feeds
            )
            for (x,), results in zip(feeds, found, strict=True):
                exact = x.sum(axis, dtype=np.int64, keepdims=keepdims)
                for backend, result in results.items():
                    np.testing.assert_array_equal(result, exact, err_msg=backend)
    for axis in (0, 1, (0, 2), None):
        found = everywhere(lambda x, a=axis: ops.prod(x, a), [dtype[3, "n", 2]], *feeds)
        for (x,), results in zip(feeds, found, strict=True):
            exact = x.prod(axis, dtype=np.int64)
            for backend, result in results.items():
                np.testing.assert_array_equal(result, exact, err_msg=backend)
    found = everywhere(lambda x: ops.cumsum(x, 1), [dtype[3, "n", 2]], *feeds)
    for (x,), results in zip(feeds, found, strict=True):
        for backend, result in results.items():
            np.testing.assert_array_equal(result, x.cumsum(1, dtype=np.int64), err_msg=backend)


def test_four_million_integers_of_32_bits() -> None:
    x = np.full(4_200_001, 2**32 - 1, np.uint32)
    (results,) = everywhere(lambda x: ops.sum(x), [u32["n"]], [x])
    for backend, result in results.items():
        assert result == int(x[0]) * x.size, backend


def test_products_of_integer_matrices_are_exact() -> None:
    rng = np.random.default_rng(10)
    for dtype in (i64, i32, u32):
        shapes = [((2, n), (n, 3)) for n in (0, 1, 2000)]
        feeds = [[whole(rng, dtype, shape) for shape in pair] for pair in shapes]
        found = everywhere(matmul, [dtype[2, "n"], dtype["n", 3]], *feeds)
        for (a, b), results in zip(feeds, found, strict=True):
            for backend, result in results.items():
                np.testing.assert_array_equal(result, a @ b, err_msg=backend)
