"""The functions and operators of numpy: on values, arrays, numbers and within formulas."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import elementwise as e
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import FormulaError
from nncompile.elementwise.formula import PRIMITIVES, formula
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Array, DType, dtype_of, f32, f64, i64
from tests.backends import in_onnxruntime

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0]
WIDE = [-7.5, -3.0, -2.5, -1.5, -0.5, -1e-3, 1e-3, 0.25, 1.0, 2.5, 3.0, 40.0, 720.0]
REALS = np.array(SPECIAL + WIDE)
POSITIVE = np.array([1e-3, 0.25, 1.0, 2.5, 3.0])
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
ON_LARGE = ("acosh",)
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


def leaf(array: Array, name: str = "x") -> Value:
    return apply(Input(name, dtype_of(array)["n"]))


def at(value: Value, points: Array) -> Array:
    """What numpy computes where the leaf `x` is these points."""
    graph = Graph("function", {"result": value}, (leaf(points),))
    return evaluate(graph, {"x": points})["result"]  # type: ignore[no-any-return]


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


# Gradients.


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (e.sinc, -3.0, 3.0),
        (e.deg2rad, -3.0, 3.0),
        (e.rad2deg, -3.0, 3.0),
        (lambda x: e.logaddexp2(x, 2 * x), -5.0, 5.0),
        (lambda x: e.logaddexp(3 * x, x), -5.0, 5.0),
        (lambda x: e.copysign(x, x - 1), 0.1, 0.9),
        (lambda x: e.fmod(x, 0.75) + e.fmod(2.0, x), -0.7, -0.6),
        (lambda x: e.remainder(x, 0.75) + e.remainder(2.0, x), -0.7, -0.6),
        (lambda x: e.fmax(x * x, x) + e.fmin(x, 0.5), 0.55, 0.95),
        (lambda x: e.nan_to_num(x) + e.fabs(x), -2.0, -1.0),
        (lambda x: e.float_power(x, 2.5) + e.pow(2.5, x), 0.5, 2.0),
        (lambda x: e.modf(x)[0] * x, 1.1, 1.9),
        (lambda x: e.divmod(x, 2)[1] * x, 2.1, 3.9),
        (e.atan, -3.0, 3.0),
    ],
)
def test_gradients_are_those_of_finite_differences(function: Any, low: float, high: float) -> None:
    points, step = np.linspace(low, high, 9), 1e-5
    x = leaf(points)
    y = function(x)
    first = grad(y.sum(), x)
    second = grad(first.sum(), x)
    for value, gradient in ((y, first), (first, second)):
        ends = [at(value, points + s) for s in (step, -step)]
        difference = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(at(gradient, points), difference, 1e-6, 1e-6)


def test_gradient_of_sinc_at_zero() -> None:
    x = leaf(REALS)
    first = grad(e.sinc(x).sum(), x)
    second = grad(first.sum(), x)
    found = evaluate([first, second], {"x": np.zeros(1)})
    np.testing.assert_allclose(np.ravel(found), [0, -(math.pi**2) / 3], 1e-12)


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


def test_declared_gradients_beside_literals() -> None:
    scaled = formula(lambda x, by: x * by, derivative=lambda x, by: (10 * by, x))
    x = leaf(POSITIVE)
    np.testing.assert_array_equal(at(grad(scaled(x, 3).sum(), x), POSITIVE), [30.0] * 5)


def test_no_number_at_all() -> None:
    with pytest.raises(FormulaError, match="exp needs a value, an array or a number, got nothing"):
        e.exp()


# Functions that onnxruntime has no float64 kernel for.

DOUBLE: dict[str, tuple[float, float, float]] = {
    "tan": (-1.5, 1.5, 1e-14),
    "sinh": (-711, 711, 1e-14),
    "cosh": (-711, 711, 1e-14),
    "arcsinh": (-9, 9, 1e-14),
    "arccosh": (1, 9, 1e-14),
    "arctanh": (-1, 1, 1e-14),
    "arcsin": (-1, 1, 1e-14),
    "arccos": (-1, 1, 1e-14),
    "arctan": (-9, 9, 1e-14),
    "erf": (-7, 7, 1e-14),
}


@pytest.mark.parametrize("name", DOUBLE)
def test_functions_in_double_precision(name: str) -> None:
    low, high, tolerance = DOUBLE[name]
    powers = 10.0 ** np.linspace(-300, math.log10(high), 200)
    ends = [0.0, low, high, *SPECIAL]
    points = np.concatenate([np.linspace(low, high, 2001), powers, -powers, np.array(ends)])
    reference = np.vectorize(math.erf) if name == "erf" else getattr(np, name)
    with np.errstate(all="ignore"):
        expected = reference(points)
    found = in_onnxruntime({"y": PRIMITIVES[name](leaf(points))}, {"x": points})["y"]
    np.testing.assert_allclose(found, expected, tolerance, 0)


def test_gradients_in_double_precision() -> None:
    points = np.linspace(-0.9, 0.9, 19)
    x = leaf(points)
    for name in sorted(DOUBLE.keys() - {"arccosh"}):
        gradient = grad(PRIMITIVES[name](x).sum(), x)
        np.testing.assert_allclose(
            in_onnxruntime({"y": gradient}, {"x": points})["y"],
            evaluate(gradient, {"x": points}),
            1e-13,
        )


@pytest.mark.parametrize("dtype", [f32, f64])
def test_logarithm_at_the_end_of_its_domain(dtype: DType) -> None:
    points = np.array([-1, -1.5, np.inf, -np.inf, np.nan, -0.999], dtype.numpy)
    with np.errstate(all="ignore"):
        expected = np.log1p(points)
    found = in_onnxruntime({"y": e.log1p(leaf(points))}, {"x": points})["y"]
    np.testing.assert_allclose(found, expected, 1e-6)


def test_bits_have_two_names() -> None:
    assert e.bitwise_not is e.invert is e.bitwise_invert
    assert leaf(INTEGERS).dtype is i64
