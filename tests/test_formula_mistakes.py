"""Errors in formulas name the user's line, in the user's words."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest

from nncompile import elementwise
from nncompile.diagnostics.errors import DTypeError, FormulaError, ShapeError
from nncompile.elementwise import add, exp, where
from nncompile.elementwise.formula import formula
from nncompile.ir.types import f32
from tests.formula_checks import swish
from tests.leaves import leaf, vector


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        (lambda x: x if x > 0 else 0, "cannot branch on a value", "where(condition, a, b)"),
        (lambda x: math.tanh(x), "cannot turn a value into a Python number", "elementwise"),
        (lambda x: x / 0, "divides by zero", "inf"),
        (lambda x: (x > 0) + (x < 1), "^add of bools", "& | ^ ~"),
        (lambda x: x * vector("w"), "takes values|takes scalars and numbers", "argument"),
    ],
)
def test_mistakes_are_answered_at_the_users_line(function: Any, message: str, hint: str) -> None:
    with pytest.raises((FormulaError, DTypeError), match=message) as caught:
        formula(function)(vector())
    assert hint in str(caught.value)
    line = inspect.getsourcelines(function)[1]
    assert caught.value.location is not None
    assert caught.value.location.place == f"{Path(__file__).name}:{line}"


def test_mistakes_are_told_in_the_users_words() -> None:
    @formula
    def chosen(weight: Any, limit: Any) -> Any:
        return weight if (weight > 0) & (weight * 2 <= limit) else limit

    with pytest.raises(FormulaError) as caught:
        chosen(vector("a"), limit=vector("b"))
    assert "branch on a value: (weight > 0) & (2*weight <= limit) has" in str(caught.value)
    assert str(caught.value).startswith("a formula cannot branch")
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
