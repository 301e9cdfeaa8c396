"""Naive spellings are found and made stable; native functions are recognized."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile.elementwise.derivative import differentiate
from nncompile.elementwise.idioms import native, recognise
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.printing import text
from nncompile.elementwise.sympy_functions import HEADS
from nncompile.elementwise.trace_formula import trace
from nncompile.ir.types import f32, f64
from tests.bodies import (
    X,
    Y,
    abs_,
    body,
    cosh,
    erf,
    exp,
    log,
    log1p,
    maximum,
    run,
    sigmoid,
    sin,
    sinh,
    sqrt,
    tanh,
    where,
)

NAIVE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "softplus": (lambda x: log(1 + exp(x)), "softplus(x)"),
    "softplus of a negative": (lambda x: log(exp(-x) + 1), "softplus(-x)"),
    "softplus by parts": (lambda x: maximum(x, 0) + log(1 + exp(-abs_(x))), "softplus(x)"),
    "logistic": (lambda x: 1 / (1 + exp(-x)), "sigmoid(x)"),
    "logistic by a quotient": (lambda x: exp(x) / (1 + exp(x)), "sigmoid(x)"),
    "logistic in two parts": (
        lambda x: where(x >= 0, 1 / (1 + exp(-x)), exp(x) / (1 + exp(x))),
        "sigmoid(x)",
    ),
    "logistic with a shift": (lambda x: 1 / (1 + 3 * exp(-x)), "sigmoid(x - 1.09861)"),
    "logistic by tanh": (lambda x: (1 + tanh(x / 2)) / 2, "sigmoid(x)"),
    "silu": (lambda x: x / (1 + exp(-x)), "x*sigmoid(x)"),
    "log of the logistic": (lambda x: log(1 / (1 + exp(-x))), "-softplus(-x)"),
    "log of its complement": (lambda x: log(1 - 1 / (1 + exp(-x))), "-softplus(x)"),
    "log of 1 - σ": (lambda x: log(1 - sigmoid(x)), "-softplus(x)"),
    "gradient of the logistic": (lambda x: exp(-x) / (1 + exp(-x)) ** 2, "sigmoid(x)*sigmoid(-x)"),
    "tanh": (lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)), "tanh(x)"),
    "tanh by squares": (lambda x: (exp(2 * x) - 1) / (exp(2 * x) + 1), "tanh(x)"),
    "tanh by a square": (lambda x: (exp(x) ** 2 - 1) / (exp(x) ** 2 + 1), "tanh(x)"),
    "tanh by e^-2x": (lambda x: (1 - exp(-2 * x)) / (1 + exp(-2 * x)), "tanh(x)"),
    "tanh by the logistic": (lambda x: 2 / (1 + exp(-2 * x)) - 1, "tanh(x)"),
    "tanh by its complement": (lambda x: 1 - 2 / (exp(2 * x) + 1), "tanh(x)"),
    "tanh by sinh": (lambda x: sinh(x) / cosh(x), "tanh(x)"),
    "tanh of a half": (lambda x: (exp(x) - 1) / (exp(x) + 1), "tanh(x/2)"),
    "sech": (lambda x: 2 / (exp(x) + exp(-x)), "sech(x)"),
    "mish": (lambda x: x * tanh(log(1 + exp(x))), "x*tanh(softplus(x))"),
    "mish by a quotient": (
        lambda x: x * (exp(x) ** 2 + 2 * exp(x)) / (exp(x) ** 2 + 2 * exp(x) + 2),
        "x*tanh(softplus(x))",
    ),
    "gelu": (lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))), "x*normal_cdf(x)"),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + tanh(0.7978845608 * (x + 0.044715 * x**3))),
        "x*sigmoid(1.59577*x + 0.0713548*x**3)",
    ),
    "elu": (lambda x: where(x > 0, x, exp(x) - 1), "where(x > 0, x, expm1(x))"),
    "inverses": (lambda x: log(exp(x)), "x"),
    "a root of a square": (lambda x: sqrt(x**2), "abs(x)"),
    "cancelling exponentials": (lambda x: exp(x) * exp(-x) * x, "x"),
}


@pytest.mark.parametrize("name", NAIVE)
def test_naive_spellings_are_stable_at_hundred(name: str) -> None:
    function, expected = NAIVE[name]
    whole = body(function)
    assert text(whole, ["x"]) == expected
    first = differentiate(whole, X)
    wide = np.array([-100, -88.8, -1e-4, 0, 1e-4, 88.8, 100], np.float32)
    for expression in (whole, first, differentiate(first, X)):
        values = evaluate(expression, {X: wide}, f32)
        assert values.dtype == np.float32
        assert np.isfinite(values).all(), text(expression, ["x"])
        np.testing.assert_allclose(
            values, evaluate(expression, {X: wide.astype(np.float64)}, f64), 1e-5, 1e-6
        )


@pytest.mark.parametrize("name", NAIVE)
def test_stable_forms_are_the_same_function(name: str) -> None:
    function, _ = NAIVE[name]
    points = np.linspace(-4, 4, 21)
    spelled = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh}
    spelled |= {"sqrt": np.sqrt, "abs_": np.abs, "maximum": np.maximum, "where": np.where}
    spelled |= {"erf": np.vectorize(math.erf), "sigmoid": lambda x: 1 / (1 + np.exp(-x))}
    scope = dict(function.__globals__) | spelled
    plain = type(function)(function.__code__, scope)
    np.testing.assert_allclose(run(trace(function, [f64]), points), plain(points), 1e-9, 1e-9)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: log(exp(x) + exp(y)), ("x + softplus(y - x)", "y + softplus(x - y)")),
        (lambda x, y: exp(x) / (exp(x) + exp(y)), ("sigmoid(x - y)",)),
        (lambda x, y: maximum(x, 0) - x * y + log1p(exp(-abs_(x))), ("softplus(x) - x*y",)),
        (lambda x, y: log(1 + x * y), ("log1p(x*y)",)),
        (lambda x, y: exp(x * y + y) - 1 - y, ("expm1(y + x*y) - y",)),
    ],
)
def test_stable_forms_of_two(function: Callable[..., Any], expected: tuple[str, ...]) -> None:
    assert text(body(function, f32, f32), ["x", "y"]) in expected


def test_naive_spellings_of_long_arguments_are_found() -> None:
    def function(x: Any) -> Any:
        u = x + sin(3 * x) * 2 - x**2 / 7 + sin(x + 1) - abs_(x) / 2 + x * sin(x) * 9
        return (exp(u) - exp(-u)) / (exp(u) + exp(-u))

    wide = np.linspace(-100, 100, 401, dtype=np.float32)
    assert np.isfinite(run(trace(function, [f32]), wide)).all()


@pytest.mark.parametrize("name", native())
def test_native_functions_are_recognised(name: str) -> None:
    assert recognise(native()[name]) == name
    assert recognise(native()[name].xreplace({X: Y})) == name
    assert recognise(native()[name] + X**2 / 1000) is None


def test_gelu_shares_its_distribution_function() -> None:
    gradient = differentiate(body(lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))), X)
    assert HEADS["normal_cdf"](X) in gradient.args
