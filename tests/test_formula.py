"""Formulas on values, arrays, numbers and within each other; `Map` as an op."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

from nncompile import elementwise
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, FormulaError, ShapeError
from nncompile.elementwise import (
    add,
    erf,
    exp,
    log,
    maximum,
    multiply,
    sigmoid,
    sin,
    sqrt,
    subtract,
    tanh,
    where,
)
from nncompile.elementwise.formula import PRIMITIVES, Formula, formula
from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.map import Map, mapped
from nncompile.elementwise.printing import text
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.graph import Graph, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import boolean, f32, f64, i64
from tests.counting import calls
from tests.leaves import leaf, vector


@formula
def swish(x, beta=1):  # type: ignore[no-untyped-def]
    """x·σ(βx)"""
    return x / (1 + exp(-beta * x))


def maps_of(value: Value) -> list[Map]:
    """The Maps that a value is made of."""
    return [v.op for v in toposort([value]) if isinstance(v.op, Map)]


# What it is applied to.


def test_numbers_give_numbers() -> None:
    assert swish(2.0) == pytest.approx(2 / (1 + math.exp(-2)))
    assert isinstance(swish(2.0), float)
    assert add(2, 3) == 5
    assert isinstance(add(2, 3), int)
    assert PRIMITIVES["less"](1, 2.5) is True


def test_arrays_broadcast_and_keep_their_dtype() -> None:
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    result = swish(x, np.float32([1, 2, 3]))
    np.testing.assert_allclose(result, x / (1 + np.exp(-x * np.float32([1, 2, 3]))), 1e-6)
    assert result.dtype == np.float32


def test_values_give_one_elementwise_op() -> None:
    y = swish(leaf("x", f32["n", 3]), leaf("beta", f32[3]))
    assert y.type == f32["n", 3]
    (op,) = maps_of(y)
    assert sorted(op.body.free_symbols, key=str) == [placeholder(0), placeholder(1)]
    assert text(swish(vector()).op.body, ["x"]) == "x*sigmoid(x)"
    assert text(swish(vector(), beta=2).op.body, ["x"]) == "x*sigmoid(2*x)"


def test_numbers_in_a_call_are_literals() -> None:
    x = vector()
    assert 0.5 * x is x / 2
    assert x * 2 is x * 2.0
    assert swish(x, 1) is swish(x)
    assert (np.float64(0.5) * x).dtype is f32  # a numpy number is a number too
    assert (0.5 * leaf("n", i64["n"])).dtype is f32


def test_sizes_mix_with_values() -> None:
    x = leaf("x", f32["batch", 2])
    mean = x / x.shape[0]
    assert mean.type == x.type
    np.testing.assert_allclose(evaluate(mean, {"x": np.ones((4, 2), np.float32)}), 0.25)


def test_order_of_symmetric_arguments_does_not_matter() -> None:
    x, y = vector("x"), vector("y")
    assert x + y is y + x
    assert maximum(x, y) is maximum(y, x)
    assert x - y is not y - x
    assert (x > y) is (y < x)


def test_arguments_that_cancel_keep_shape_and_dtype() -> None:
    x, wide = leaf("x", f32["n", 1]), leaf("y", f64[1, 4])
    zero = formula(lambda a, b: (a - a) * b)(x, wide)
    assert zero.type == f64["n", 4]
    feeds = {"x": np.ones((2, 1), np.float32), "y": np.ones((1, 4))}
    graph = Graph("zero", {"y": zero}, (x, wide))
    np.testing.assert_array_equal(evaluate(graph, feeds)["y"], np.zeros((2, 4)))
    assert formula(lambda a, b: a + b - b)(vector("x"), vector("x")) is vector("x")
    assert (x - x).type == x.type


def test_formulas_nest() -> None:
    @formula
    def twice(x: Any) -> Any:
        return swish(swish(x), beta=2) + exp(1.0)

    points = np.linspace(-3, 3, 7)
    inner = points / (1 + np.exp(-points))
    np.testing.assert_allclose(
        twice(points), inner / (1 + np.exp(-2 * inner)) + math.e, 1e-12, 1e-12
    )
    assert len(maps_of(twice(vector()))) == 1


def test_names_of_primitives_are_complete() -> None:
    for name in FUNCTIONS:
        assert PRIMITIVES[name].function is FUNCTIONS[name]
        assert PRIMITIVES[name].__doc__
    typed = {name: f for name, f in vars(elementwise).items() if isinstance(f, Formula)}
    assert typed
    assert all(PRIMITIVES[f.name] is f for f in typed.values())
    assert repr(swish) == "formula swish(x, beta=1)"


# Recognition and stability, through values.


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


# Mistakes.


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        (lambda x: x if x > 0 else 0, "cannot branch on a value", "where(condition, a, b)"),
        (lambda x: math.tanh(x), "cannot turn a value into a Python number", "elementwise"),
        (lambda x: x / 0, "divides by zero", "inf"),
        (lambda x: (x > 0) + (x < 1), "add of bools", "& | ^ ~"),
        (lambda x: x * vector("w"), "takes values|takes scalars and numbers", "argument"),
    ],
)
def test_mistakes_are_answered_at_the_users_line(function: Any, message: str, hint: str) -> None:
    with pytest.raises((FormulaError, DTypeError), match=message) as caught:
        formula(function)(vector())
    assert hint in str(caught.value)
    line = inspect.getsourcelines(function)[1]
    assert caught.value.location is not None
    assert caught.value.location.place == f"test_formula.py:{line}"


def test_mistakes_are_told_in_the_users_words() -> None:
    @formula
    def chosen(weight: Any, limit: Any) -> Any:
        return weight if (weight > 0) & (weight * 2 <= limit) else limit

    with pytest.raises(FormulaError) as caught:
        chosen(vector("a"), limit=vector("b"))
    assert "branch on a value: (weight > 0) & (2*weight <= limit) has" in str(caught.value)
    with pytest.raises(FormulaError) as caught:
        chosen(vector("a"), 1.5)
    assert "(weight > 0) & (2*weight <= 1.5)" in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message", "rows"),
    [
        (lambda a, b: a - b, "subtract: sizes 4 ≠ 5", (("left", "a"), ("right", "b"))),
        (lambda a, b: b - a, "subtract: sizes 5 ≠ 4", (("left", "b"), ("right", "a"))),
        (lambda a, b: b < a, "less: sizes 5 ≠ 4", (("left", "b"), ("right", "a"))),
        (lambda a, b: elementwise.arctan2(a, b), "arctan2: sizes", (("y", "a"), ("x", "b"))),
        (lambda a, b: swish(a, beta=b), "swish: sizes 4 ≠ 5", (("x", "a"), ("beta", "b"))),
        (lambda a, b: where(True, b, a), "where: sizes 5 ≠ 4", (("x", "b"), ("y", "a"))),
    ],
)
def test_shapes_that_differ_are_told_as_written(build: Any, message: str, rows: Any) -> None:
    a, b = leaf("a", f32[4]), leaf("b", f32[5])
    with pytest.raises(ShapeError, match=message) as caught:
        build(a, b)
    types = {"a": "f32[4]", "b": "f32[5]"}
    assert [row[:3] for row in caught.value.rows] == [
        (label, types[name], f"input {name}") for label, name in rows
    ]


def test_equality_in_a_formula_is_elementwise() -> None:
    @formula
    def is_zero(x: Any) -> Any:
        return x == 0

    y = is_zero(vector())
    assert y.dtype is boolean
    np.testing.assert_array_equal(evaluate(y, {"x": np.float32([0, 1])}), [True, False])
    number = formula(lambda x: (x == 0) * 2.0 + (x != 0) * x)
    np.testing.assert_array_equal(number(np.float32([0, 3])), [2, 3])


def test_truth_of_a_value_is_an_error() -> None:
    with pytest.raises(FormulaError, match="no truth value"):
        bool(vector() > 0)


@pytest.mark.parametrize("argument", [[1, 2], {"a": 1}, {1}])
def test_collections_are_no_arguments(argument: Any) -> None:
    with pytest.raises(FormulaError, match=f"not {type(argument).__name__}"):
        add(vector(), argument)


def test_no_argument_at_all_is_an_error() -> None:
    with pytest.raises(FormulaError, match="needs a value, an array or a number, got 'a'"):
        exp("a")


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


def test_maps_are_canonical() -> None:
    x, y = vector("x"), vector("y")
    a, b, c = (placeholder(i) for i in range(3))
    assert mapped(a + b, [x, x]) is x * 2
    assert mapped(a - c, [x, y, y]) is subtract(x, y)
    assert mapped(b, [x, y]) is y
    assert mapped(a * b, [y, x]) is multiply(x, y)
    assert sigmoid(x).op is sigmoid(y).op
