"""Expressions of scalars: meanings, derivatives, dtypes, mistakes, long formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, FormulaError
from nncompile.elementwise.derivative import differentiate, times
from nncompile.elementwise.lowering import dtype_of_expression, operation_count
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.printing import text
from nncompile.elementwise.samples import examples
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import HEADS, placeholder
from nncompile.elementwise.trace_formula import LIMIT, trace
from nncompile.ir.types import DTYPES, SIGNED, DType, boolean, f32, f64, i32, i64, promote, u32, u64
from tests.bodies import (
    X,
    Y,
    abs_,
    body,
    clip,
    exp,
    log,
    maximum,
    minimum,
    mod,
    power,
    relu,
    round_,
    run,
    sin,
    sqrt,
    stop_gradient,
    where,
)
from tests.tolerances import SLOPE, STEP


def derivative_at(function: Callable[..., Any], *points: float, by: int = 0) -> float:
    """The derivative of a function of float64 scalars at a point."""
    expression = body(function, *[f64] * len(points))
    values = {placeholder(i): np.float64(x) for i, x in enumerate(points)}
    return float(evaluate(differentiate(expression, placeholder(by)), values, f64))


# Meanings and derivatives.


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
                np.broadcast_to(exact, numeric.shape), numeric, SLOPE[0] * 5, SLOPE[1] * 5
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


# Dtypes.


@pytest.mark.parametrize("a", DTYPES)
@pytest.mark.parametrize("b", DTYPES)
def test_promotion_of_two_arguments(a: DType, b: DType) -> None:
    if a.is_bool and b.is_bool:
        with pytest.raises(DTypeError, match="add of bools"):
            trace(lambda x, y: x + y, [a, b])
        return
    functions = (lambda x, y: x + y, lambda x, y: where(x == x, x, y), maximum)
    if u64 in (a, b) and not {a, b}.isdisjoint(SIGNED):
        for function in functions:
            with pytest.raises(DTypeError, match="no integer type holds both u64 and"):
                trace(function, [a, b])
        return
    for function in functions:
        program = trace(function, [a, b])
        assert program.dtype is promote(a, b)
        assert run(program, a.numpy.type(1), b.numpy.type(1)).dtype == promote(a, b).numpy
    assert trace(lambda x, y: x < y, [a, b]).dtype is boolean


@pytest.mark.parametrize(
    ("function", "dtype", "expected"),
    [
        (lambda x: 0.5 * x, f32, f32),
        (lambda x: 0.5 * x, f64, f64),
        (lambda x: 2 * x, i32, i32),
        (lambda x: 2 * x, u32, u32),
        (lambda x: 0.5 * x, i64, f32),
        (lambda x: x / 2, i64, f32),
        (lambda x: x // 2, i64, i64),
        (lambda x: x**2, i32, i32),
        (lambda x: x + 1, boolean, i64),
        (lambda x: where(x, 1.0, 0.0), boolean, f32),
        (lambda x: where(x > 0, 1.0, 0.0) * x, f64, f64),
        (lambda x: where(x > 0, 1, 0), f64, i64),
        (lambda x: x - x, f64, f64),
        (lambda x: exp(x), i32, f32),
        (lambda x: x.astype("float64"), f32, f64),
        (lambda x: x & 1, i32, i32),
        (lambda x: ~x, boolean, boolean),
        (lambda x: x == 0, f32, boolean),
        (lambda x: exp(1.0), f64, f32),
    ],
)
def test_literals_take_the_dtype_of_what_they_meet(
    function: Callable[..., Any], dtype: DType, expected: DType
) -> None:
    program = trace(function, [dtype])
    assert program.dtype is expected
    assert run(program, dtype.numpy.type(1)).dtype == expected.numpy
    if program.result.free_symbols:
        assert dtype_of_expression(program.result, {X: dtype}) is expected


def test_literals_are_exact_rationals_of_their_text() -> None:
    assert body(lambda x: 0.1 * x) == X / 10
    assert body(lambda x: 0.5 * x) == body(lambda x: x / 2)
    assert body(lambda x: np.float32(0.1) * x) == X / 10
    assert evaluate(X / 3, {X: np.float64(3)}) == 1
    assert evaluate(sp.Rational("0.1") * X, {X: np.float32(1)}) == np.float32(0.1)


def test_integers_wrap_and_are_no_real_algebra() -> None:
    ends = np.array([2**31 - 1, -(2**31)], np.int32)
    doubled = run(trace(lambda n: (n + n) // 2, [i32]), ends)
    np.testing.assert_array_equal(doubled, (ends + ends) // 2)
    bits = np.array([0xFFFFFFFF, 7], np.uint32)
    mixed = run(trace(lambda n: (n * 0x9E3779B9 ^ n >> 16) + 5, [u32]), bits)
    np.testing.assert_array_equal(mixed, (bits * np.uint32(0x9E3779B9) ^ bits >> 16) + 5)
    with pytest.raises(DTypeError, match="i32 cannot hold"):
        run(trace(lambda n: n + 2**40, [i32]), ends)


@pytest.mark.parametrize(
    ("function", "dtypes", "message"),
    [
        (lambda a, b: a * b, (boolean, boolean), "multiply of bools"),
        (lambda a, b: a - b, (boolean, boolean), "subtract of bools"),
        (lambda a: -a, (boolean,), "negative of bools"),
        (lambda a, b: a & b, (f32, i64), "bitwise_and of f32"),
        (lambda a: a << 1, (f32,), "left_shift of f32"),
        (lambda a: where(a, 1, 0), (f32,), "condition of where must be boolean, got f32"),
        (lambda n: n**-1, (i64,), "an integer to the power -1"),
        (lambda x: x / 0, (f32,), "divides by zero"),
        (lambda x: x / (x - x), (f32,), "divides by zero"),
        (lambda n: n // 0, (i64,), "divides by zero"),
        (lambda x: x if x > 0 else -x, (f32,), "cannot branch on a value"),
        (lambda x: math.exp(x), (f32,), "cannot turn a value into a Python number"),
        (lambda x: sp.exp(x), (f32,), "cannot turn a value into a Python number"),
        (lambda x: x[0], (f32,), "cannot look inside a value"),
        (lambda x: np.add.reduce(x), (f32,), "numpy's add does not work"),
        (lambda x: np.sum(x), (f32,), "numpy's sum does not work"),
        (lambda x: x + "1", (f32,), "takes scalars and numbers"),
        (lambda x: x * np.ones(3), (f32,), "takes scalars and numbers"),
        (lambda x: (x, x), (f32,), "must return one number, got tuple"),
        (lambda x: None, (f32,), "must return one number, got NoneType"),
    ],
)
def test_what_is_no_formula_is_refused(
    function: Callable[..., Any], dtypes: tuple[DType, ...], message: str
) -> None:
    with pytest.raises((FormulaError, DTypeError), match=message):
        trace(function, dtypes)


def test_numpys_functions_work_on_scalars() -> None:
    assert body(lambda x: np.exp(x) + np.maximum(x, 0)) == body(lambda x: exp(x) + maximum(x, 0))
    assert body(lambda x: np.where(x > 0, x, 0)) == body(lambda x: where(x > 0, x, 0))
    assert body(lambda x: math.floor(x) + round(x)) == body(
        lambda x: FUNCTIONS["floor"](x) + round_(x)
    )


# Long formulas.


def chain(x: Any) -> Any:
    """200 operations, one after another."""
    for i in range(50):
        x = sin(x * 0.9 + i) * 1.1
    return x


def nested(x: Any) -> Any:
    """A function with its argument in several places, in itself 12 times."""
    for _ in range(12):
        x = x * sin(x) / (1 + x * x) + 0.3 * x
    return x


@pytest.mark.parametrize("function", [chain, nested])
def test_long_formulas_are_cut(function: Callable[..., Any]) -> None:
    program = trace(function, [f64])
    pieces = [part for _, part, _ in program.bindings] + [program.result]
    assert len(pieces) > 5
    assert max(map(operation_count, pieces)) < LIMIT
    known: set[sp.Symbol] = {X}
    for symbol, part, _ in program.bindings:
        assert part.free_symbols <= known
        known.add(symbol)
    points = np.linspace(-2, 2, 9)
    scope = dict(function.__globals__) | {"sin": np.sin}
    expected = type(function)(function.__code__, scope)(points)
    np.testing.assert_allclose(run(program, points), expected, 1e-10)


def test_pieces_of_a_branch_are_computed_under_its_condition() -> None:
    def steep(x: Any) -> Any:
        for _ in range(20):
            x = log(x + 0.5) * 2 + sin(x)
        return x

    program = trace(lambda x: where(x > 5, steep(x), where(x > 1, x, steep(-x))), [f64])
    assert program.bindings
    assert all(isinstance(part, HEADS["where"]) for _, part, _ in program.bindings)
    shared = trace(lambda x: where(x > 5, steep(x), 0) + steep(x), [f64])
    assert not any(isinstance(part, HEADS["where"]) for _, part, _ in shared.bindings)
