"""Derivatives of formulas: recognized spellings, branches, declared derivatives, long formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import FormulaError
from nncompile.elementwise import erf, exp, log, sigmoid, sin, sqrt, tanh, where
from nncompile.elementwise.formula import PRIMITIVES, Formula, formula
from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.printing import text
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f64
from tests.counting import calls
from tests.formula_checks import maps_of, swish
from tests.leaves import leaf, vector


def test_spelled_out_gelu_is_gelu() -> None:
    @formula
    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))

    x = vector()
    y = gelu(x)
    assert text(y.op.body, ["x"]) == "x*normal_cdf(x)"  # type: ignore[attr-defined]
    derivative = grad(y.sum(), [x])[0]
    wide = np.float32([-100, -1, 0, 1, 100])
    assert np.isfinite(evaluate(derivative, {"x": wide})).all()


def test_naive_spelling_has_a_finite_gradient() -> None:
    x = vector()
    y = swish(x)
    first = grad(y.sum(), [x])[0]
    second = grad(first.sum(), [x])[0]
    wide = np.float32([-100, -89, 0, 89, 100])
    for value in evaluate([y, first, second], {"x": wide}):
        assert np.isfinite(value).all()


@pytest.mark.parametrize("count", [1, 30])
def test_branch_that_is_not_taken_gives_no_nan(count: int) -> None:
    @formula
    def safe(x: Any) -> Any:
        y = x
        for _ in range(count):  # when long, it is cut into several ops
            y = log(y * 1.5 + 1) + sin(y)
        return where(x > 0, y, sqrt(-x))

    x = vector()
    y = safe(x)
    first = grad(y.sum(), [x])[0]
    second = grad(first.sum(), [x])[0]
    results = evaluate([y, first, second], {"x": np.float32([-2, -1, 1, 2])})
    for value in results:
        assert np.isfinite(value).all()
    np.testing.assert_allclose(results[1][:2], [-0.5 / math.sqrt(2), -0.5], 1e-6)


def test_derivative_of_zero_times_infinity_is_zero() -> None:
    x, g = vector("x"), vector("g")
    derivative = grad((PRIMITIVES["relu"](x) * g).sum(), [x])[0]
    found = evaluate(derivative, {"x": np.float32([-1, 1]), "g": np.float32([np.inf, np.inf])})
    np.testing.assert_array_equal(found, [0, np.inf])


# Declared derivatives.


@formula(derivative=lambda x: 1)
def rounded(x: Any) -> Any:
    """Rounds; the derivative is straight through."""
    return PRIMITIVES["rint"](x)


@formula(derivative=lambda x, y: (y**2, 3 * x))
def odd(x: Any, y: Any) -> Any:
    """A product with derivatives that are not its own."""
    return x * y


FEEDS = {"x": np.float32([0.4, 1.6]), "y": np.float32([2, 3])}


def test_declared_derivatives_take_the_place_of_derivatives() -> None:
    x, y = vector("x"), vector("y")
    value = rounded(x)
    results = evaluate([value, grad(value.sum(), [x])[0]], FEEDS)
    np.testing.assert_array_equal(results, [[0, 2], [1, 1]])
    derivatives = grad(odd(x, y).sum(), [x, y])
    dx, dy = evaluate(derivatives, FEEDS)
    np.testing.assert_allclose(dx, [4, 9])
    np.testing.assert_allclose(dy, [1.2, 4.8])
    second = grad(derivatives[0].sum(), [y])[0]  # of y², as declared
    np.testing.assert_allclose(evaluate(second, FEEDS), [4, 6])


def test_declared_derivatives_hold_within_other_formulas() -> None:
    @formula
    def outer(x: Any, y: Any) -> Any:
        return 2 * rounded(x) + odd(x * x, y)

    x, y = vector("x"), vector("y")
    value = outer(x, y)
    np.testing.assert_allclose(evaluate(value, FEEDS), [0.16 * 2, 4 + 2.56 * 3], 1e-6)
    dx, dy = grad(value.sum(), [x, y])
    np.testing.assert_allclose(evaluate(dx, FEEDS), [2 + 4 * 0.8, 2 + 9 * 3.2], 1e-6)
    np.testing.assert_allclose(evaluate(dy, FEEDS), [3 * 0.16, 3 * 2.56], 1e-6)
    second = grad(dx.sum(), [y])[0]
    np.testing.assert_allclose(evaluate(second, FEEDS), [2 * 2 * 0.8, 2 * 3 * 3.2], 1e-6)


def test_declared_derivatives_of_one_argument_used_twice_add_up() -> None:
    x = vector("x")
    derivative = grad(odd(x, x).sum(), [x])[0]
    np.testing.assert_allclose(evaluate(derivative, FEEDS), [0.16 + 1.2, 2.56 + 4.8], 1e-6)


def test_wrong_number_of_declared_derivatives_is_an_error() -> None:
    @formula(derivative=lambda x, y: 1)
    def wrong(x: Any, y: Any) -> Any:
        return x + y

    with pytest.raises(FormulaError, match="returns 1 derivatives, but it has 2 arguments"):
        wrong(vector("x"), vector("y"))
    with pytest.raises(FormulaError, match="returns 1 derivatives, but it has 2 arguments"):
        formula(lambda x: wrong(x, x))(vector("x"))


# Sizes of derivatives.


@formula
def chain(x: Any) -> Any:
    """200 operations, one after another."""
    for _ in range(50):
        x = sin(x * 0.9 + 0.1) * 1.1
    return x


@formula
def tower(x: Any) -> Any:
    """200 operations, each with the argument again."""
    y = x
    for i in range(100):
        y = y * x + 0.01 * (i + 1)
    return y


@formula
def curve(x: Any) -> Any:
    """To be nested in itself."""
    return 0.5 * x * (1 + tanh(0.8 * (x + 0.045 * x**3))) + x / (1 + x * x)


@formula
def nested(x: Any) -> Any:
    """`curve` of `curve` of ..., 12 times."""
    for _ in range(12):
        x = curve(x)
    return x


@formula
def unrolled(x: Any) -> Any:
    """The same without a formula of its own."""
    for _ in range(12):
        x = 0.5 * x * (1 + tanh(0.8 * (x + 0.045 * x**3))) + x / (1 + x * x)
    return x


@formula
def gated(x: Any) -> Any:
    """A product of two functions of the product before."""
    for _ in range(50):
        x = sigmoid(x * 1.01 + 0.3) * tanh(x)
    return x


@formula
def residual(x: Any) -> Any:
    """Naive spellings, roots and the argument again."""
    y = x
    for _ in range(40):
        y = log(1 + exp(y)) * sqrt(y * y + 1) + x
    return y


LONG = [chain, tower, nested, unrolled, gated, residual]
CALLS = 3_000_000  # the longest takes a third; composed by substitution they take minutes


@pytest.mark.parametrize("function", LONG)
def test_long_formulas_differentiate_twice_with_little_work(function: Formula) -> None:
    x = vector(f"only in {function.name}")
    derivatives = [function(x)]

    def differentiate_twice() -> None:
        for _ in range(2):
            derivatives.append(grad(derivatives[-1].sum(), [x])[0])

    assert calls(differentiate_twice) < CALLS
    second = derivatives[-1]
    sizes = [operation_count(op.body) for op in maps_of(second)]
    assert max(sizes) < 1000
    assert len(sizes) < 2000


@pytest.mark.parametrize("function", [chain, tower, nested, unrolled])
def test_derivatives_of_long_formulas_are_those_of_finite_differences(function: Formula) -> None:
    x = leaf("x", f64["n"])
    first = grad(function(x).sum(), [x])[0]
    second = grad(first.sum(), [x])[0]
    at, step = np.linspace(-0.7, 0.7, 5), 1e-6
    exact = evaluate([first, second], {"x": at})
    for value, derivative in zip([function(x), first], exact, strict=True):
        ends = [evaluate(value, {"x": at + s}) for s in (step, -step)]
        np.testing.assert_allclose(derivative, (ends[0] - ends[1]) / (2 * step), 1e-5, 1e-5)
