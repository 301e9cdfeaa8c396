"""Cumulative products, extremes and logarithms of sums, against numpy and torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.op import Value
from nncompile.ir.types import DTYPES, DType, bf16, boolean, dtype_of, f32, f64, i64
from nncompile.ops.reduction.operands import accumulator
from tests.array_checks import Everywhere, check_numpy, normal_or_integers
from tests.everywhere import check_against_torch
from tests.gradient_checks import check_gradient, gradient_at
from tests.leaves import leaf

SIZES = (0, 1, 2, 31, 32, 33, 64, 65, 1023, 1024, 1025, 2100)  # about blocks, and blocks of them
NAN, INF = np.nan, np.inf
SPECIAL = np.array([1, -INF, NAN, 3, INF, -0.0, 0.0, NAN, 5])


drawn = partial(normal_or_integers, high=4)


def near_one(n: int) -> np.ndarray:
    return 1 + drawn((n,)) / 50


def products(x: np.ndarray, axis: int | None = None) -> np.ndarray:
    return np.cumprod(x, axis, dtype=accumulator(dtype_of(x)).numpy)


def greatest(x: Value, axis: int | None = None) -> Value:
    return ops.cummax(x, axis)[0]


def log_sums(x: np.ndarray) -> np.ndarray:
    return np.logaddexp.accumulate(x)


def test_any_size_known_late() -> None:
    check_numpy(ops.cumprod, products, (f64["n"],), *[(near_one(n),) for n in SIZES])
    check_numpy(ops.logcumsumexp, log_sums, (f64["n"],), *[(50 * drawn((n,)),) for n in SIZES])
    values = [(np.round(drawn((n,)), 1),) for n in SIZES]
    check_numpy(greatest, np.maximum.accumulate, (f64["n"],), *values)
    check_numpy(lambda x: ops.cummin(x)[0], np.minimum.accumulate, (f64["n"],), *values)


@pytest.mark.parametrize("n", SIZES)
def test_any_size_known_early(n: int) -> None:
    check_numpy(ops.cumprod, products, (f64[n],), (near_one(n),))
    check_numpy(ops.logcumsumexp, log_sums, (f64[n],), (50 * drawn((n,)),))
    check_numpy(greatest, np.maximum.accumulate, (f64[n],), (drawn((n,)),))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_axis_of_any_type(dtype: DType) -> None:
    x = drawn((2, 5, 3), dtype)
    axes = (0, 1, -1)
    check_numpy(
        lambda x: (*(f(x, a) for f in (ops.cumprod, greatest) for a in axes), x.cumprod()),
        lambda x: (
            *(f(x, a) for f in (products, np.maximum.accumulate) for a in axes),
            products(x),
        ),
        (dtype["a", "b", "c"],),
        (x,),
        (x[:, :0],),
        (x[:1, :1],),
    )


@pytest.mark.parametrize("name", ["cummax", "cummin"])
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.is_signed and d is not bf16], ids=str)
def test_places_are_those_of_torch(name: str, dtype: DType, torchscript: Any) -> None:
    torch = torchscript.torch
    everywhere = Everywhere(lambda x: getattr(ops, name)(x, 0), dtype["n", "m"])
    cases = [drawn((n, 2), dtype) for n in (1, 6, 70)]
    if dtype.is_float:
        cases.append(SPECIAL[:, None].astype(dtype.numpy))
    for x in cases:
        values, places = everywhere(x)
        expected = getattr(torch, name)(torch.tensor(x), 0)
        np.testing.assert_array_equal(values, expected.values.numpy())
        np.testing.assert_array_equal(places, expected.indices.numpy())


def test_special_numbers_are_those_of_numpy() -> None:
    x = (SPECIAL, np.array([-INF, -INF, 2, INF, -INF]), np.array([INF, NAN, 1]))
    cases = [(a,) for a in x]
    check_numpy(greatest, np.maximum.accumulate, (f64["n"],), *cases)
    check_numpy(lambda x: ops.cummin(x)[0], np.minimum.accumulate, (f64["n"],), *cases)
    check_numpy(ops.cumprod, np.cumprod, (f64["n"],), *cases)
    check_numpy(ops.logcumsumexp, log_sums, (f64["n"],), *cases)


def test_products_of_integers_are_exact_beyond_the_digits_of_a_double() -> None:
    x = np.full(40, 3)
    check_numpy(ops.cumprod, np.cumprod, (i64["n"],), (x,), (-x,))
    check_numpy(ops.cumprod, np.cumprod, (boolean["n"],), (np.array([True, True, False, True]),))


def test_a_product_may_leave_its_element_out_and_run_from_the_end() -> None:
    x = drawn((5, 3))
    after = Everywhere(lambda x: ops.cumprod(x, 0, exclusive=True), f64["n", 3])
    np.testing.assert_allclose(after(x)[1:], np.cumprod(x, 0)[:-1])
    np.testing.assert_array_equal(after(x)[0], 1)
    assert after(x[:0]).shape == (0, 3)
    backward = Everywhere(lambda x: ops.cumprod(x, 0, reverse=True), f64["n", 3])
    np.testing.assert_allclose(backward(x), np.cumprod(x[::-1], 0)[::-1])


@pytest.mark.parametrize("zeros", [(), (2,), (0, 3), (1, 2, 5)])
def test_gradients_of_products_are_right_at_zeros(zeros: tuple[int, ...]) -> None:
    x = 1 + drawn((6,)) / 3
    x[list(zeros)] = 0
    check_gradient(ops.cumprod, x)
    check_gradient(lambda x: ops.cumprod(x, exclusive=True, reverse=True), x)
    long = np.concatenate([near_one(40), x, near_one(30)])
    check_gradient(lambda x: ops.cumprod(x)[36:], long)


def test_gradients_of_logarithms_of_sums() -> None:
    check_gradient(ops.logcumsumexp, 3 * drawn((40,)))
    check_gradient(lambda x: ops.logcumsumexp(x, 1), drawn((2, 5)))
    # Of nothing but nothing, none; the sums before the infinite element do not depend on it.
    gradients = gradient_at(lambda x: ops.logcumsumexp(x)[:2], [1.0, -INF, 2.0, INF])
    np.testing.assert_array_equal(gradients, [2, 0, 0, 0])
    gradients = gradient_at(ops.logcumsumexp, [-500.0, 0.0, 500.0])
    np.testing.assert_allclose(gradients, [1, 1, 1])


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "cumprod": lambda x, torch: torch.cumprod(x, 1) if torch else ops.cumprod(x, 1),
    "logcumsumexp": lambda x, torch: torch.logcumsumexp(x, 1) if torch else ops.logcumsumexp(x, 1),
    "cummax": lambda x, torch: (torch.cummax(x, 1) if torch else ops.cummax(x, 1))[0],
    "cummin": lambda x, torch: (torch.cummin(x, 1) if torch else ops.cummin(x, 1))[0],
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients_of_both_orders_are_those_of_torch_with_ties_and_zeros(name: str) -> None:
    torch = pytest.importorskip("torch")
    call = CALLS[name]
    check_against_torch(
        lambda x: call(x, None),
        lambda x: call(x, torch),
        ("n", "m"),
        (3, 5),
        (2, 1),
        (1, 40),
        dtypes=[f64],
    )


def test_float32_loses_nothing_of_small_terms_before_large_ones() -> None:
    x = np.array([-300.0, 0.0, 300.0, 80.0], np.float32)
    everywhere = Everywhere(ops.logcumsumexp, f32["n"])
    np.testing.assert_allclose(everywhere(x), [-300, 0, 300, 300], atol=1e-30)


def test_mistakes() -> None:
    x: Value = leaf("x", f32["n", 4])
    with pytest.raises(CompileError, match="cumprod: axis 2 does not exist"):
        ops.cumprod(x, 2)
    with pytest.raises(CompileError, match="unexpected keyword argument 'dim'") as error:
        ops.cummax(x, dim=0)  # type: ignore[call-arg]
    assert "axis=" in str(error.value)
