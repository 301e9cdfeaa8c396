"""Expressions of scalars: element types, mistakes, long formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, FormulaError
from nncompile.elementwise.lowering import dtype_of_expression, operation_count
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import HEADS
from nncompile.elementwise.trace_formula import LIMIT, trace
from nncompile.ir.types import DTYPES, SIGNED, DType, boolean, f32, f64, i32, i64, promote, u32, u64
from tests.bodies import X, body, exp, log, maximum, round_, run, sin, where
from tests.case_names import for_each


@pytest.mark.parametrize("a", DTYPES)
@for_each("b", DTYPES)
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
