"""The interpreter of formula bodies, and what backends and print-outs rely on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import sympy as sp

from nncompile.elementwise.expressions import digest
from nncompile.elementwise.lowering import walk
from nncompile.elementwise.primitives import PRIMITIVE_CALLS
from nncompile.elementwise.printing import text
from nncompile.elementwise.samples import Example, examples
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.elementwise.tracer import Scalar
from nncompile.ir.types import DType, boolean, f32, f64, i32, i64
from tests.bodies import (
    X,
    Y,
    body,
    clip,
    mod,
    sigmoid,
    sin,
    where,
)


class Recorder:
    """A target that writes calls down as text."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def call(self, name: str, dtype: DType, /, *args: str) -> str:
        assert len(args) == PRIMITIVE_CALLS[name]
        self.calls.append(name)
        return f"{name}({', '.join(args)})"

    def literal(self, number: float, dtype: DType, /) -> str:
        return f"{number!r}"

    def cast(self, x: str, source: DType, dtype: DType, /) -> str:
        return f"{x}:{dtype}"


@pytest.mark.parametrize(
    ("function", "dtypes", "expected"),
    [
        (lambda x: 2 * x - 1, (f32,), "subtract(multiply(x, 2.0), 1.0)"),
        (lambda x: 1 - x, (f32,), "subtract(1.0, x)"),
        (lambda x: -x, (f32,), "negative(x)"),
        (lambda x: x / 3, (f32,), "divide(x, 3.0)"),
        (lambda x: x / 4, (f32,), "multiply(x, 0.25)"),
        (lambda x: 1 / (2 * x), (f32,), "divide(0.5, x)"),
        (lambda x: x**3, (f32,), "multiply(multiply(x, x), x)"),
        (lambda x: x**-2, (f32,), "divide(1.0, multiply(x, x))"),
        (lambda x: x**0.5, (f32,), "sqrt(x)"),
        (lambda x, y: (x - y) / 2, (f32, f32), "multiply(subtract(x, y), 0.5)"),
        (lambda x, n: x + n, (f32, i64), "add(x, y:f32)"),
        (lambda n, m: n * m, (i64, i32), "multiply(x, y:i64)"),
        (lambda b, x: b * x, (boolean, f32), "where(x, y, 0.0)"),
        (lambda x: x > 0, (f32,), "less(0.0, x)"),
        (lambda x: where(x > 0, True, x < -1), (f32,), "where(less(0.0, x), True, less(x, -1.0))"),
        (lambda x: FUNCTIONS["step"](x), (f64,), "where(less(0.0, x), 1.0, 0.0)"),
        (lambda x: clip(x, None, 6), (f32,), "minimum(6.0, x)"),
    ],
)
def test_walks_emit_few_plain_calls(
    function: Callable[..., Any], dtypes: tuple[DType, ...], expected: str
) -> None:
    leaves = dict(zip((X, Y), ("x", "y"), strict=True))
    dtype_of = {placeholder(i): d for i, d in enumerate(dtypes)}
    assert walk(body(function, *dtypes), leaves, dtype_of, Recorder()) == expected


def test_walks_visit_equal_parts_once() -> None:
    target = Recorder()
    expression = body(lambda x: sin(x) ** 2 + sin(x) / (1 + sin(x) ** 2))
    walk(expression, {X: "x"}, {X: f32}, target)
    assert sorted(target.calls) == ["add", "add", "divide", "multiply", "sin"]


def test_walks_use_every_call_and_no_other() -> None:
    target = Recorder()

    for example in examples():
        dtypes = {placeholder(i): d for i, d in enumerate(example.dtypes)}
        walk(example.body, {s: str(s) for s in dtypes}, dtypes, target)
    assert set(target.calls) == set(PRIMITIVE_CALLS)


def test_bodies_pickle_and_their_digests_are_those_of_equal_bodies() -> None:
    seen: dict[bytes, sp.Expr] = {}
    for example in examples():
        assert isinstance(example, Example)
        again = pickle.loads(pickle.dumps(example.body))
        assert again == example.body
        assert digest(again) == digest(example.body)
        assert seen.setdefault(digest(example.body), example.body) == example.body
    assert digest(X + Y) == digest(Y + X) != digest(X - Y)


def test_symmetric_functions_do_not_depend_on_order() -> None:
    for name in ("maximum", "minimum", "equal", "not_equal", "add", "multiply"):
        function = FUNCTIONS[name]
        swapped = body(lambda x, y, function=function: function(y, x), f32, f32)
        assert swapped == body(function, f32, f32)
    both = (i64, i64)
    for name in ("add", "multiply", "bitwise_and", "bitwise_or", "bitwise_xor"):
        function = FUNCTIONS[name]
        swapped = body(lambda x, y, function=function: function(y, x), *both)
        assert swapped == body(function, *both)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y: x + 2 * y, "x + 2*y"),
        (lambda x, y: x * sigmoid(y), "x*sigmoid(y)"),
        (lambda x, y: x - y / 3 - 1, "x - y/3 - 1"),
        (lambda x, y: -(x**2) / (1 + y), "-x**2/(y + 1)"),
        (lambda x, y: (x + y) ** 2 * x**-3, "(x + y)**2/x**3"),
        (lambda x, y: x**y, "x**y"),
        (lambda x, y: where((x > 0) & ~(y == 0), x, 0.25), "where((x > 0) & ~(y == 0), x, 0.25)"),
        (lambda x, y: where(x + 1 <= y, x, y), "where(x + 1 <= y, x, y)"),
        (lambda x, y: float("inf") * x + mod(x, y), "inf*x + (x % y)"),
    ],
)
def test_text_is_mathematics(function: Callable[..., Any], expected: str) -> None:
    assert text(body(function, f32, f32), ["x", "y"]) == expected


def test_scalars_say_what_they_are() -> None:
    assert repr(Scalar(X * 2, f32)) == "2*x0"
