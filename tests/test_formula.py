"""Formulas on values, arrays, numbers and within each other; `Map` as an op."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile import elementwise
from nncompile.elementwise import add, exp, maximum, multiply, sigmoid, subtract
from nncompile.elementwise.formula import PRIMITIVES, Formula, formula
from nncompile.elementwise.map import mapped
from nncompile.elementwise.printing import text
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import boolean, f32, f64, i64
from tests.formula_checks import maps_of, swish
from tests.leaves import leaf, vector


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


def test_equality_in_a_formula_is_elementwise() -> None:
    @formula
    def is_zero(x: Any) -> Any:
        return x == 0

    y = is_zero(vector())
    assert y.dtype is boolean
    np.testing.assert_array_equal(evaluate(y, {"x": np.float32([0, 1])}), [True, False])
    number = formula(lambda x: (x == 0) * 2.0 + (x != 0) * x)
    np.testing.assert_array_equal(number(np.float32([0, 3])), [2, 3])


def test_maps_are_canonical() -> None:
    x, y = vector("x"), vector("y")
    a, b, c = (placeholder(i) for i in range(3))
    assert mapped(a + b, [x, x]) is x * 2
    assert mapped(a - c, [x, y, y]) is subtract(x, y)
    assert mapped(b, [x, y]) is y
    assert mapped(a * b, [y, x]) is multiply(x, y)
    assert sigmoid(x).op is sigmoid(y).op
