"""Expressions of scalars: what they mean, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp

from nncompile.elementwise.derivative import differentiate, times
from nncompile.elementwise.lowering import dtype_of_expression
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.printing import text
from nncompile.elementwise.samples import examples
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import HEADS, placeholder
from nncompile.elementwise.trace_formula import trace
from nncompile.ir.types import DTYPES, f32, f64
from tests.bodies import (
    X,
    Y,
    abs_,
    body,
    clip,
    log,
    maximum,
    minimum,
    mod,
    power,
    relu,
    round_,
    run,
    sqrt,
    stop_gradient,
    where,
)
from tests.tolerances import GRADIENT, STEP


def derivative_at(function: Callable[..., Any], *points: float, by: int = 0) -> float:
    """The derivative of a function of float64 scalars at a point."""
    expression = body(function, *[f64] * len(points))
    values = {placeholder(i): np.float64(x) for i, x in enumerate(points)}
    return float(evaluate(differentiate(expression, placeholder(by)), values, f64))


def real_bodies() -> list[Any]:
    """Every real function with a derivative, as a body of float64, and where it is tested."""
    found = {}
    for example in examples():
        types = {placeholder(i): d for i, d in enumerate(example.dtypes)}
        is_real = set(example.dtypes) == {f32} and dtype_of_expression(example.body, types) is f32
        if is_real and example.order == 2 and not example.body.has(*CONVERSIONS):
            found[text(example.body)] = (example.body, example.floats)
    return [pytest.param(*case, id=name) for name, case in found.items()]


CONVERSIONS = tuple(HEADS[f"to_{d.name}"] for d in DTYPES)


@pytest.mark.parametrize(("expression", "floats"), real_bodies())
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_are_those_of_finite_differences(
    expression: sp.Expr, floats: tuple[float, float], order: int
) -> None:
    rng = np.random.default_rng(0)
    symbols = sorted(expression.free_symbols, key=str)
    at = {s: rng.uniform(*floats, 5) for s in symbols}
    for first in symbols:
        function = expression if order == 1 else differentiate(expression, first)
        for symbol in symbols:
            exact = evaluate(differentiate(function, symbol), at, f64)
            ends = [evaluate(function, at | {symbol: at[symbol] + s}, f64) for s in (STEP, -STEP)]
            numeric = (ends[0] - ends[1]) / (2 * STEP)
            np.testing.assert_allclose(
                np.broadcast_to(exact, numeric.shape), numeric, GRADIENT[0] * 5, GRADIENT[1] * 5
            )


NUMPY = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log2": np.log2,
    "log10": np.log10,
    "cbrt": np.cbrt,
    "exp2": np.exp2,
    "arctan": np.arctan,
    "rint": np.rint,
    "round": np.round,
    "trunc": np.trunc,
    "sign": np.sign,
    "abs": np.abs,
    "square": np.square,
    "reciprocal": np.reciprocal,
    "tanh": np.tanh,
    "hypot": np.hypot,
    "logaddexp": np.logaddexp,
    "arctan2": np.arctan2,
    "mod": np.mod,
    "floor_divide": np.floor_divide,
    "divide": np.divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "heaviside": np.heaviside,
    "greater": np.greater,
    "less_equal": np.less_equal,
    "not_equal": np.not_equal,
}


@pytest.mark.parametrize("name", NUMPY)
def test_functions_mean_what_numpy_means(name: str) -> None:
    function: Any = NUMPY[name]
    rng = np.random.default_rng(1)
    count = getattr(function, "nin", 1)
    arrays = [rng.uniform(0.2, 3, 50) for _ in range(count)]
    if name not in ("log2", "log10", "power"):
        arrays = [a - 1.6 for a in arrays]
    actual = run(trace(FUNCTIONS[name], [f64] * count), *arrays)
    expected = function(*arrays)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, 1e-13)


def test_exotic_numbers_pass_through() -> None:
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0], np.float32)
    for name in ("isnan", "isinf", "isfinite"):
        expected = getattr(np, name)(special)
        np.testing.assert_array_equal(run(trace(FUNCTIONS[name], [f32]), special), expected)
    infinity = run(trace(lambda x: where(x > 0, float("inf"), -float("inf")), [f32]), special)
    np.testing.assert_array_equal(infinity, [-np.inf, np.inf, -np.inf, -np.inf, -np.inf])
    nan = run(trace(lambda x: where(x > 0, float("nan"), x), [f32]), special)
    np.testing.assert_array_equal(nan, [np.nan, np.nan, -np.inf, 0, -1])


@pytest.mark.parametrize(
    ("function", "points", "derivatives"),
    [
        (relu, (0.0,), (0.0,)),
        (lambda x: maximum(x, 0), (0.0,), (0.5,)),
        (lambda x: maximum(1, x), (1.0,), (0.5,)),
        (maximum, (2.0, 2.0), (0.5, 0.5)),
        (minimum, (2.0, 2.0), (0.5, 0.5)),
        (minimum, (1.0, 2.0), (1.0, 0.0)),
        (abs_, (0.0,), (0.0,)),
        (lambda x: clip(x, 0, 6), (0.0,), (1.0,)),
        (lambda x: clip(x, 0, 6), (6.0,), (1.0,)),
        (lambda x: clip(x, None, 6), (7.0,), (0.0,)),
        (lambda x: clip(x, 1), (7.0,), (1.0,)),
        (clip, (3.0, 4.0, 5.0), (0.0, 1.0, 0.0)),
        (lambda x: round_(x) + mod(x, 1), (2.2,), (1.0,)),
        (lambda x: x * stop_gradient(x), (3.0,), (3.0,)),
        (lambda x: x**0, (0.0,), (0.0,)),
        (power, (0.0, 2.0), (0.0, 0.0)),
        (power, (0.0, 0.0), (0.0, 0.0)),
        (lambda x: x**1.5, (0.0,), (0.0,)),
    ],
)
def test_derivatives_at_ties_are_torchs(
    function: Callable[..., Any], points: tuple[float, ...], derivatives: tuple[float, ...]
) -> None:
    found = tuple(derivative_at(function, *points, by=i) for i in range(len(points)))
    assert found == derivatives


def test_derivative_of_what_is_not_chosen_is_never_multiplied() -> None:
    functions = [
        lambda x: where(x > 0, log(x), 0),
        lambda x: (x > 0) * sqrt(x),
        lambda x: where(x > 0, x**0.5 / x, 0) * 3,
    ]
    for function in functions:
        once = differentiate(body(function, f64), X)
        for derivative in (once, differentiate(once, X)):
            for symbol in (X, Y):
                scaled = times(symbol, derivative)
                values = {X: np.float64(0.0), Y: np.float64(2.0)}
                assert evaluate(scaled, values, f64) == 0


def test_derivatives_reuse_forward_values() -> None:
    for name in ("sigmoid", "tanh", "exp"):
        derivative = differentiate(body(FUNCTIONS[name]), X)
        assert {h.meaning.name for h in derivative.atoms(HEADS[name])} == {name}
        assert derivative.atoms(*HEADS.values()) == {HEADS[name](X)}
