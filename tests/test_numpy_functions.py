"""The functions and operators of numpy: on values, arrays, numbers and within formulas."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import elementwise as e
from nncompile.diagnostics.errors import FormulaError
from nncompile.elementwise.formula import PRIMITIVES, formula
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array, i64
from tests.backends import in_onnxruntime
from tests.numpy_function_checks import POSITIVE, REALS, SPECIAL, leaf

INTEGERS = np.array([-7, -3, -2, -1, 0, 1, 2, 3, 15, 25])

# What numpy 2.5 warns of, under the name that it is to have.
CALLED = {"fix": "trunc"}
# Functions of one number, on all reals.
ON_REALS = [
    "deg2rad",
    "rad2deg",
    "degrees",
    "radians",
    "sinc",
    "signbit",
    "fabs",
    "nan_to_num",
    "fix",
    "trunc",
    "around",
    "isposinf",
    "isneginf",
    "atan",
    "asinh",
    "isnan",
    "isinf",
    "isfinite",
    "sign",
    "absolute",
    "floor",
    "ceil",
    "rint",
    "exp2",
    "cbrt",
]
ON_UNITS = ["acos", "asin", "atanh"]
# Functions of two.
ON_PAIRS = [
    "copysign",
    "fmax",
    "fmin",
    "fmod",
    "remainder",
    "atan2",
    "logaddexp",
    "logaddexp2",
    "isclose",
    "hypot",
]
ON_INTEGERS = [
    "sign",
    "abs",
    "fix",
    "trunc",
    "around",
    "nan_to_num",
    "signbit",
    "fabs",
    "deg2rad",
    "bitwise_not",
]
ON_INTEGER_PAIRS = [
    "remainder",
    "fmod",
    "fmax",
    "fmin",
    "bitwise_left_shift",
    "bitwise_right_shift",
]


def check(name: str, *arrays: Array) -> None:
    """On arrays and on values, in numpy and in onnxruntime, against numpy's own."""
    ours: Callable[..., Any] = PRIMITIVES[name]
    with np.errstate(all="ignore"):
        expected = getattr(np, CALLED.get(name, name))(*arrays)
    value = ours(*(leaf(a, f"x{i}") for i, a in enumerate(arrays)))
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    for result in (ours(*arrays), evaluate(value, feeds), in_onnxruntime({"y": value}, feeds)["y"]):
        assert result.dtype == expected.dtype or expected.dtype == np.float64
        tolerance = (1e-6, 1e-7) if result.dtype == np.float32 else (1e-13, 1e-15)
        np.testing.assert_allclose(result, expected, *tolerance)


def pairs(array: Array) -> tuple[Array, Array]:
    x, y = np.meshgrid(array, array)
    return x.ravel(), y.ravel()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ON_REALS)
def test_functions_of_reals(name: str, dtype: Any) -> None:
    check(name, REALS[:-2].astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_functions_of_two_reals(name: str, dtype: Any) -> None:
    x, y = pairs(REALS.astype(dtype))
    if name in ("fmod", "remainder"):  # not by zero: what is left then is a NaN of some kind
        x, y = x[y != 0], y[y != 0]
    if name == "remainder":  # nor by infinities, by which onnxruntime's has no sign
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if name == "atan2":  # onnxruntime has no signs of zeros
        x, y = (a[(x != 0) & (y != 0) & np.isfinite(x) & np.isfinite(y)] for a in (x, y))
    check(name, x, y)


@pytest.mark.parametrize("name", ON_UNITS)
def test_functions_of_the_interval(name: str) -> None:
    check(name, np.linspace(-0.99, 0.99, 21))
    check(name, np.linspace(-0.99, 0.99, 21, dtype=np.float32))


def test_functions_of_large_and_positive_numbers() -> None:
    check("acosh", np.array([1.0, 1.5, 1e5, 1e30]))
    check("float_power", *pairs(POSITIVE.astype(np.float32)))
    check("pow", *pairs(POSITIVE))
    check("true_divide", *pairs(POSITIVE))
    assert PRIMITIVES["float_power"](np.float32([2]), 0.5).dtype == np.float64


@pytest.mark.parametrize("name", ON_INTEGERS)
def test_functions_of_integers(name: str) -> None:
    check(name, INTEGERS)


@pytest.mark.parametrize("name", ON_INTEGER_PAIRS)
def test_functions_of_two_integers(name: str) -> None:
    x, y = pairs(INTEGERS)
    keep = (y >= 0) & (y < 9) if "shift" in name else y != 0
    check(name, x[keep], y[keep])


def test_options() -> None:
    x, y = np.array(SPECIAL), np.array([1.0, np.inf, 0.0, 1e-9, 3.0])
    for options in ({"rtol": 0.1}, {"atol": 1e-10}, {"equal_nan": True}):
        np.testing.assert_array_equal(e.isclose(x, x, **options), np.isclose(x, x, **options))
        np.testing.assert_array_equal(e.isclose(x, y, **options), np.isclose(x, y, **options))
    filled = {"nan": 1.5, "posinf": 2.5, "neginf": -3.5}
    np.testing.assert_array_equal(e.nan_to_num(x, **filled), np.nan_to_num(x, **filled))
    for decimals in (-2, -1, 0, 1, 3):
        points = np.array([3.14159, -1234.5678, 15.0, 25.0, 0.0])
        np.testing.assert_allclose(e.round(points, decimals), np.round(points, decimals), 1e-15)
        np.testing.assert_array_equal(e.round(INTEGERS, decimals), np.round(INTEGERS, decimals))


# Python's operators.


def test_pythons_functions_of_values() -> None:
    points = np.array([-2.75, -0.5, 0.4, 3.14159])
    x = leaf(points)
    for function in (
        math.floor,
        math.ceil,
        math.trunc,
        builtins.round,
        lambda u: builtins.round(u, 2),
        lambda u: u // 2,
        lambda u: 2 // u,
        lambda u: u % 2,
        lambda u: builtins.divmod(u, 2)[0],
        lambda u: builtins.divmod(2, u)[1],
    ):
        expected = [function(float(u)) for u in points]
        for made in (function(x), formula(function)(x)):
            np.testing.assert_allclose(evaluate(made, {"x": points}), expected, 1e-12)


def test_functions_with_two_results() -> None:
    points = np.array([-2.75, -0.5, 0.4, 3.0, np.inf, -np.inf])
    for ours, theirs in zip(e.modf(leaf(points)), np.modf(points), strict=True):
        np.testing.assert_array_equal(evaluate(ours, {"x": points}), theirs)
    with np.errstate(invalid="ignore"):
        expected = np.divmod(points[:4], 1.5)
    for ours, theirs in zip(e.divmod(leaf(points), 1.5), expected, strict=True):
        np.testing.assert_allclose(evaluate(ours, {"x": points[:4]}), theirs)


# Plain numbers.


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (lambda: e.round(3.14159, 2), 3.14),
        (lambda: e.round(1234.5, decimals=-2), 1200.0),
        (lambda: e.round(7, 2), 7),
        (lambda: e.exp(2), math.exp(2)),
        (lambda: e.divide(1, 3), 1 / 3),
        (lambda: e.add(2, 3), 5),
        (lambda: e.add(True, 2), 3),
        (lambda: e.power(2, 10), 1024),
        (lambda: e.power(2, 0.5), math.sqrt(2)),
        (lambda: e.maximum(x=2, y=3.5), 3.5),
        (lambda: e.where(True, 0.1, 0.2), 0.1),
        (lambda: e.multiply(True, 0.1), 0.1),
        (lambda: e.less(2**60, 2.5), False),
        (lambda: e.clip(5, 0, 3), 3),
        (lambda: e.clip(0.1, max=0.05), 0.05),
        (lambda: e.nan_to_num(math.nan, nan=0.3), 0.3),
        (lambda: e.isclose(1.0, 1.1, rtol=0.2), True),
        (lambda: e.divmod(-7, 2), (-4, 1)),
        (lambda: e.hypot(3, 4), 5.0),
        (lambda: e.heaviside(0.0, 0.3), 0.3),
        (lambda: formula(lambda x, n=2: x**n + 0.1)(3.0, 3), 27.1),
        (lambda: formula(lambda x, steps: sum(x for _ in range(steps)))(0.1, steps=3), 0.3),
        (lambda: formula(lambda x, y: x * y, derivative=lambda x, y: (1, 1))(2.0, 4.0), 8.0),
    ],
)
def test_plain_numbers(ours: Callable[[], Any], expected: Any) -> None:
    found = ours()
    assert type(found) is type(expected)
    assert found == pytest.approx(expected, rel=1e-15)


def test_no_number_at_all() -> None:
    with pytest.raises(FormulaError, match="exp needs a value, an array or a number, got nothing"):
        e.exp()


def test_bits_have_two_names() -> None:
    assert e.bitwise_not is e.invert is e.bitwise_invert
    assert leaf(INTEGERS).dtype is i64
