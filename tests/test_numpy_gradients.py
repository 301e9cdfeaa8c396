"""Gradients of numpy's functions, and both in double precision where onnxruntime has no kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile import elementwise as e
from nncompile.autodiff.grad import grad
from nncompile.elementwise.formula import PRIMITIVES, formula
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import DType, f32, f64
from tests.backends import in_onnxruntime
from tests.numpy_function_checks import POSITIVE, REALS, SPECIAL, at, leaf


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


def test_declared_gradients_beside_literals() -> None:
    scaled = formula(lambda x, by: x * by, derivative=lambda x, by: (10 * by, x))
    x = leaf(POSITIVE)
    np.testing.assert_array_equal(at(grad(scaled(x, 3).sum(), x), POSITIVE), [30.0] * 5)


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
