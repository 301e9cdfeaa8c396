"""Searching in sorted arrays and sets, counts and histograms, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.types import DTYPES, DType, f32, f64, i32, i64
from tests.array_checks import Everywhere, check_numpy, integers
from tests.gradient_checks import check_gradient
from tests.leaves import leaf

NAN, INF = np.nan, np.inf
SPECIAL = np.array([-INF, -1, -0.0, 0.0, 0, 2, INF, INF, NAN, NAN])
SIZES = (0, 1, 2, 3, 4, 7, 8, 9, 40)


drawn = partial(integers, high=12)


def sides(library: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    return lambda a, v: (library.searchsorted(a, v), library.searchsorted(a, v, side="right"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_places_in_order(dtype: DType) -> None:
    x = drawn((3, 5), dtype, 1)
    rows = [np.sort(drawn((n,), dtype)) for n in SIZES]
    cases = [(a, x) for a in rows]
    check_numpy(sides(ops), sides(np), (dtype["n"], dtype["m", "k"]), *cases, (rows[-1], x[:0]))
    for a in rows[:: 1 if dtype is f32 else 4]:
        check_numpy(sides(ops), sides(np), (dtype[len(a)], dtype["m", "k"]), (a, x))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_places_of_special_numbers(dtype: DType, side: Any) -> None:
    a = SPECIAL.astype(dtype.numpy)
    for rows in (a, a[:8], a[8:], a[:0]):
        for size in ("n", len(rows)):
            check_numpy(
                lambda a, v: ops.searchsorted(a, v, side),
                lambda a, v: np.searchsorted(a, v, side),
                (dtype[size], dtype["m"]),
                (rows, np.flip(a)),
            )


def test_a_number_is_searched_and_types_are_joined() -> None:
    assert ops.searchsorted(leaf("a", f32["n"]), 3).type == i64[()]
    a, v = np.array([1, 2, 3]), np.array([1.5, 3.0, 9.0])
    check_numpy(ops.searchsorted, np.searchsorted, (i64["n"], f64["m"]), (a, v))
    check_numpy(
        lambda v: ops.searchsorted([0.1, 0.2, 0.7], v),
        lambda v: np.searchsorted(np.array([0.1, 0.2, 0.7]), v),
        (f64["m"],),
        (np.array([0.1, 0.7, 0.3]),),
    )


def members(library: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    return lambda x, t: (library.isin(x, t), library.isin(x, t, invert=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_members_of_a_set(dtype: DType) -> None:
    x = drawn((3, 4), dtype, 1)
    tests = [(1 if dtype.is_bool else 3) * drawn((n,), dtype) for n in (0, 1, 3, 20)]
    tests = [t.astype(dtype.numpy) for t in tests]
    cases = [(x, t) for t in tests]
    check_numpy(members(ops), members(np), (dtype["a", "b"], dtype["n"]), *cases)
    for t in tests:
        check_numpy(members(ops), members(np), (dtype["a", "b"], dtype[len(t)]), (x, t))


def test_nan_is_a_member_of_no_set() -> None:
    for size in ("n", len(SPECIAL)):
        check_numpy(ops.isin, np.isin, (f64["m"], f64[size]), (SPECIAL, SPECIAL))
    check_numpy(lambda x: ops.isin(x, [3, 5]), lambda x: np.isin(x, [3, 5]), (i32["n", 2],),
                (np.array([[3, 4], [5, 5]]),))  # fmt: skip


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.is_integer], ids=str)
def test_counts(dtype: DType) -> None:
    x = drawn((40,), dtype)
    check_numpy(
        lambda x: ops.bincount(x, length=12),
        lambda x: np.bincount(x.astype(np.int64), minlength=12),
        (dtype["n"],),
        (x,),
        (x[:0],),
        (x[:1],),
    )
    weights = np.linspace(0, 1, 40)
    check_numpy(
        lambda x, w: ops.bincount(x, w, length=12),
        lambda x, w: np.bincount(x.astype(np.int64), w, minlength=12),
        (dtype["n"], f64["n"]),
        (x, weights),
    )


def test_counts_up_to_the_greatest() -> None:
    cases = [([3, 1, 1],), ([0],), (np.zeros(0, np.int64),), ([2, 7, 7],)]
    check_numpy(ops.bincount, np.bincount, (i64["n"],), *cases)
    check_numpy(
        lambda x: ops.bincount(x, minlength=5),
        lambda x: np.bincount(x, minlength=5),
        (i64["n"],),
        *cases,
    )
    weighted = Everywhere(lambda x, w: ops.bincount(x, w), i64["n"], f64["n"])
    np.testing.assert_allclose(weighted([3, 1, 1], [0.5, 1, 2]), [0, 3, 0, 0.5])
    total = Everywhere(lambda x: ops.sum(ops.bincount(x) ** 2), i64["n"])
    assert total([3, 1, 1]) == 5


def test_what_is_beyond_the_length_is_not_counted() -> None:
    counted = Everywhere(lambda x: ops.bincount(x, length=3), i64["n"])
    np.testing.assert_array_equal(counted([-1, 0, 5, 2, 3, 2, -9]), [1, 0, 2])
    nothing = Everywhere(lambda x: ops.bincount(x, length=0), i64["n"])
    assert nothing([1, 2]).shape == (0,)
    by_size = Everywhere(lambda x: ops.bincount(x, length=x.shape[0]), i64["n"])
    np.testing.assert_array_equal(by_size([1, 1, 0]), [1, 2, 0])


HISTOGRAMS: dict[str, dict[str, Any]] = {
    "ten bins": {},
    "bins": {"bins": 7},
    "range": {"bins": 4, "range": (-1.0, 1.5)},
    "point": {"bins": 4, "range": (0.5, 0.5)},
    "edges": {"bins": [-1.0, -0.25, 0.0, 0.0, 2.0]},
    "density": {"bins": 5, "density": True},
}


@pytest.mark.parametrize("dtype", [f32, f64, i64], ids=str)
@pytest.mark.parametrize("name", HISTOGRAMS)
def test_histograms(name: str, dtype: DType) -> None:
    options = HISTOGRAMS[name]
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(20, 30)) * (1 if dtype.is_float else 9)).astype(dtype.numpy)
    x[0, :10] = [-1, -0.25, 0, 2, 0.5, 1.5, 2, 1, 0, -1]
    cases = [(x,), (x[:1, :1],)]
    if "range" in options:
        cases.append((x[:0],))
    if dtype is f64 and "density" not in options and ("range" in options or name == "edges"):
        cases.append((np.array([[NAN, INF, -INF, 0.5, -1, 2]]),))
    check_numpy(
        lambda x: ops.histogram(x, **options),
        lambda x: np.histogram(x, **options),
        (dtype["n", "m"],),
        *cases,
    )


@pytest.mark.parametrize("size", ["n", 0])
def test_a_histogram_of_nothing(size: Any) -> None:
    def histograms(library: Any) -> Callable[[Any], tuple[Any, ...]]:
        return lambda x: (
            *library.histogram(x, 4),
            library.histogram(x, 4, range=(-1, 1))[0],
            library.histogram(x, 4, weights=x)[0],
            library.histogram(x, 4, density=True)[0],
            library.histogram(x, [0.0, 1.0, 3.0])[0],
        )

    sizes = (0, 1, 5) if size == "n" else (0,)
    cases = [(np.random.default_rng(n).normal(size=(2, n)),) for n in sizes]
    check_numpy(histograms(ops), histograms(np), (f64[2, size],), *cases)
    integers = [(np.arange(2 * n).reshape(2, n),) for n in sizes]
    check_numpy(
        lambda x: ops.histogram(x, 3), lambda x: np.histogram(x, 3), (i64[2, size],), *integers
    )


def test_weights_of_a_histogram_have_a_gradient() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    check_numpy(
        lambda x, w: ops.histogram(x, 6, weights=w),
        lambda x, w: np.histogram(x, 6, weights=w),
        (f64["n", "m"], f64["n", "m"]),
        (x, w),
    )
    check_gradient(lambda w: ops.histogram(x, 6, weights=w)[0] ** 2, w)
    check_gradient(lambda w: ops.bincount(np.arange(5) // 2, w[0], length=4) ** 2, w)


X = leaf("x", f32["n", 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.searchsorted(X, 1.0), "needs a sorted vector"),
        (lambda: ops.searchsorted(X[0], 1.0, "middle"), '"left" or "right"'),
        (lambda: ops.bincount(X[0], length=3), "needs integers"),
        (lambda: ops.bincount(X.astype(i64), length=3), "needs a vector"),
        (lambda: ops.histogram(X, 0), "at least one bin"),
        (lambda: ops.histogram(X, range=(1, 0)), "the range must not decrease"),
        (lambda: ops.histogram(X, range=(0, INF)), "the range must not decrease"),
        (lambda: ops.histogram(X, [1.0]), "at least two bin edges"),
        (lambda: ops.histogram(X, [2.0, 1.0, 3.0]), "edges must increase"),
    ],
)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        call()
