"""Dimensions against integers: what is claimed of sizes holds for every choice of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.dims import (
    Dim,
    broadcast,
    dim,
    floordiv,
    is_one,
    product,
    same,
    same_shape,
    solve,
    substitute,
    symbol,
    symbols,
)
from nncompile.ir.size_arithmetic import FloorDiv
from nncompile.ir.types import f32

NAMES = ("h", "n", "w")
BINDINGS = [
    dict(zip(NAMES, sizes, strict=True)) for sizes in itertools.product((0, 1, 2, 5, 8), repeat=3)
]


def bound(d: Dim, sizes: dict[str, int]) -> Dim:
    return substitute(d, {symbol(name): size for name, size in sizes.items()})


# A size as Python source, which is evaluated both with names and with numbers.
_atoms = st.one_of(st.sampled_from(NAMES), st.integers(0, 9).map(str))


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.integers(1, 6)).map(lambda t: f"({t[0]} // {t[1]})"),
        st.tuples(inner, st.integers(1, 6)).map(lambda t: f"({t[0]} % {t[1]})"),
        inner.map(lambda t: f"(-{t})"),
    )


TEXTS = st.recursive(_atoms, _grown, max_leaves=6)


@settings(deadline=None)
@given(TEXTS)
def test_arithmetic_is_that_of_integers(text: str) -> None:
    parsed = dim(text)
    operated = dim(eval(text, {name: symbol(name) for name in NAMES}))  # sympy's own // and %
    for sizes in BINDINGS:
        expected = eval(text, dict(sizes))
        for d in (parsed, operated):
            value = bound(d, sizes)
            assert value == expected and type(value) is int, (d, sizes)


@settings(deadline=None)
@given(TEXTS)
def test_text_of_a_dimension_reads_back(text: str) -> None:
    d = dim(text)
    if not (isinstance(d, sp.Expr) and d.has(sp.Mod, sp.Pow)):
        again = dim(str(d))
        assert all(bound(again, sizes) == bound(d, sizes) for sizes in BINDINGS), (d, again)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_same_is_never_wrong(a: str, b: str) -> None:
    left, right = dim(a), dim(b)
    answer = same(left, right)
    assert same(right, left) is answer
    if answer is not None:
        for sizes in BINDINGS:
            assert (bound(left, sizes) == bound(right, sizes)) is answer, (left, right, sizes)


@pytest.mark.parametrize(
    ("a", "b", "answer"),
    [
        (3, 3, True),
        (3, 4, False),
        ("n", "n", True),
        ("n", "h", None),
        ("n", 3, None),
        ("n", 0, None),
        ("n+1", 0, False),
        ("n+1", "n", False),
        ("2*n", "n", None),
        ("2*(n+h)", "2*h + 2*n", True),
        ("(n+h)*(n-h)", "n*n - h*h", True),
        ("(n+2)//2", "n//2 + 1", True),
        ("(n-1)//2 + 1", "(n+1)//2", True),
        ("(2*n)//4", "n//2", True),
        ("(n//2)//3", "n//6", True),
        ("(4*n+1)//2", "2*n", True),
        ("(n+2)//2", 0, False),
        ("n//2", "n", None),
    ],
)
def test_same(a: Any, b: Any, answer: bool | None) -> None:
    assert same(dim(a), dim(b)) is answer


def test_same_shape() -> None:
    n, h = symbol("n"), symbol("h")
    assert same_shape((n, 3), (n, 3)) is True
    assert same_shape((n, 3), (h, 4)) is False
    assert same_shape((n, 3), (h, 3)) is None
    assert same_shape((n,), (n, 1)) is False


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ("4*h", "4*h"),
        ("2*(h//2)", "2*(h//2)"),
        ("2*h//2", "h"),
        ("-(h//2)", "-(h//2)"),
        ("n - h//3", "n - (h//3)"),
        ("(h+1)//(2*n)", "(h + 1)//(2*n)"),
        ("(h*n)//n", "h"),
        ("(2*h*n + n)//n", "2*h + 1"),
    ],
)
def test_text(given_: str, text: str) -> None:
    assert str(dim(given_)) == text
    assert dim(text) == dim(given_)


def test_sympys_floor_becomes_a_quotient() -> None:
    s, n = symbol("s"), symbol("n")
    for expression in ((s - 1) // 2, (s + 1) // (2 * n), (2 * n * s + 1) // (2 * n), s // n):
        assert not dim(expression).has(sp.floor)  # type: ignore[union-attr]
        for size, count in itertools.product(range(6), range(1, 4)):
            expected = int(expression.subs({s: size, n: count}))
            assert substitute(dim(expression), {s: size, n: count}) == expected


@pytest.mark.parametrize(
    "text", ["", "a b", "1.5", "a/b", "f(x)", "a.b", "n +", "lambda", "4%0", "n[0]"]
)
def test_what_is_no_dimension(text: str) -> None:
    with pytest.raises(ShapeError, match="is not a dimension"):
        dim(text)


@pytest.mark.parametrize(
    "x",
    [1.5, None, True, sp.Rational(1, 2), symbol("n") / 2, sp.Symbol("real"), sp.oo, sp.Float(2)],
)
def test_what_is_no_integer(x: object) -> None:
    with pytest.raises(ShapeError, match="a size must be an integer"):
        dim(x)


def test_no_negative_sizes() -> None:
    with pytest.raises(ShapeError, match=r"a size cannot be negative: \[n, -1\]"):
        f32["n", -1]


def test_division_by_zero_is_an_error() -> None:
    for make in (lambda: dim("n//0"), lambda: substitute(dim("h//n"), {symbol("n"): 0})):
        with pytest.raises(ShapeError, match="divided by zero"):
            make()


def test_numbers_come_out_as_python_integers() -> None:
    n = symbol("n")
    for d in (dim(np.int64(3)), dim(n - n + 3), product([n, 0]), floordiv(7, 2), dim("7//2")):
        assert type(d) is int
    assert is_one(dim(n + 1 - n)) and not is_one(n)
    assert floordiv(-7, 2) == -4 == FloorDiv(sp.Integer(-7), sp.Integer(2))
    assert symbols([n * 2, 3, symbol("h")]) == {n, symbol("h")}


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3).map(tuple), max_size=3))
def test_broadcasting_is_numpys(shapes: list[tuple[int, ...]]) -> None:
    outcomes: list[Any] = []
    for rule, error in ((broadcast, ShapeError), (np.broadcast_shapes, ValueError)):
        try:
            outcomes.append(rule(*shapes))
        except error:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([1, 2, "n", "n+1", "2*n"]), max_size=3).map(tuple), max_size=3
    )
)
def test_broadcasting_of_names_holds_for_all_sizes(shapes: list[tuple[Any, ...]]) -> None:
    named = [tuple(dim(d) for d in shape) for shape in shapes]
    try:
        result = broadcast(*named)
    except ShapeError:
        return  # some sizes do not fit, or are not known to
    for size in (0, 1, 4):
        at = [tuple(int(bound(d, {"n": size})) for d in shape) for shape in (*named, result)]
        assert np.broadcast_shapes(*at[:-1]) == at[-1]


def test_broadcast_errors() -> None:
    n = symbol("n")
    with pytest.raises(ShapeError, match="sizes 2 ≠ 3 on axis -1 do not broadcast"):
        broadcast((2,), (4, 3))
    with pytest.raises(ShapeError, match="cannot tell whether n = 3 on axis -2") as caught:
        broadcast((n, 1), (3, 5))
    assert "the same name" in str(caught.value)


def linear() -> st.SearchStrategy[Callable[..., Dim]]:
    """k·name + c, or a sum or product of two names."""
    scaled = st.tuples(st.sampled_from(NAMES), st.integers(1, 4), st.integers(0, 3))
    pairs = st.tuples(st.sampled_from(NAMES), st.sampled_from("+*"), st.sampled_from(NAMES))
    return st.one_of(
        scaled.map(lambda t: dim(f"{t[1]}*{t[0]} + {t[2]}")), pairs.map(lambda t: dim("".join(t)))
    )


@settings(deadline=None)
@given(st.lists(st.lists(linear(), max_size=3).map(tuple), max_size=4), st.sampled_from(BINDINGS))
def test_sizes_are_found(shapes: list[tuple[Dim, ...]], sizes: dict[str, int]) -> None:
    """What is found is what the data were made with; a name that stands alone is found."""
    actual = [tuple(int(bound(d, sizes)) for d in shape) for shape in shapes]
    found = solve(shapes, actual)
    assert all(sizes[str(name)] == size for name, size in found.items())
    alone = {s for d in itertools.chain(*shapes) if len(symbols([d])) == 1 for s in symbols([d])}
    assert alone <= set(found)


@pytest.mark.parametrize(
    ("declared", "actual", "found"),
    [
        (["4*h"], [28], {"h": 7}),
        (["n-1"], [3], {"n": 4}),
        (["n*n"], [9], {"n": 3}),
        (["n+h", "h+w", "2*n"], [5, 10, 4], {"n": 2, "h": 3, "w": 7}),
        (["n*h", "h"], [6, 3], {"n": 2, "h": 3}),
        (["n*h", "h"], [0, 0], {"h": 0}),
        (["n*h"], [6], {}),
        (["n//2"], [3], {}),
        (["n//2", "n"], [3, 7], {"n": 7}),
        (["n%2", "n"], [1, 7], {"n": 7}),
    ],
)
def test_solving(declared: list[str], actual: list[int], found: dict[str, int]) -> None:
    result = solve([tuple(map(dim, declared))], [tuple(actual)])
    assert {str(name): size for name, size in result.items()} == found


@pytest.mark.parametrize(
    ("declared", "actual", "message"),
    [
        (["n", "n"], [2, 3], "expected size 2 for n, got 3"),
        ([5], [3], "expected size 5, got 3"),
        (["4*h"], [30], r"no size of h makes 4\*h = 30"),
        (["n+3"], [2], r"no size of n makes n \+ 3 = 2"),
        (["n*n"], [8], r"no size of n makes n\*\*2 = 8"),
        (["n//2", "n"], [3, 9], r"expected size 4 for n//2, got 3"),
        (["n*h", "n"], [6, 4], r"no size of h makes h\*n = 6"),
    ],
)
def test_contradictions(declared: list[Any], actual: list[int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        solve([tuple(map(dim, declared))], [tuple(actual)])


@pytest.mark.parametrize("divisor", [-7, -2, -1, 1, 2, 7])
@pytest.mark.parametrize("text", ["n", "2*n", "n - 5", "-n", "3 - 2*n", "n//3"])
def test_divisors_of_either_sign_divide_as_those_of_numbers(text: str, divisor: int) -> None:
    size = dim(text)
    quotient = floordiv(size, divisor)
    for number in range(-9, 10):
        n = {symbol("n"): number}
        assert substitute(quotient, n) == int(substitute(size, n)) // divisor


def test_sizes_that_take_too_long_to_compute_with_are_refused() -> None:
    many: Any = sum(symbol(f"s{i}") for i in range(600))
    assert dim(many) == many
    with pytest.raises(ShapeError, match="too long to compute with"):
        dim(many + 2 * symbol("t") * many)
    with pytest.raises(ShapeError, match="a power above 64"):
        dim(symbol("n") ** 65)
    with pytest.raises(ShapeError, match="a number beyond 64 bits"):
        dim(2**63 * symbol("n"))
    with pytest.raises(ShapeError, match="divided by zero"):
        dim(sp.floor(symbol("n") * sp.zoo + symbol("h") / 2))


def test_sizes_are_put_in_as_sympy_puts_them() -> None:
    n, h = symbol("n"), symbol("h")
    sizes = [sp.Min(n, 3, h), sp.Max(0, n - h), (n * h) ** 2, FloorDiv(n, h + 1), sp.Mod(n, h + 1)]
    for size in map(dim, sizes):
        for values in itertools.product(range(6), repeat=2):
            known = dict(zip((n, h), values, strict=True))
            assert substitute(size, known) == int(size.xreplace(known))  # type: ignore[union-attr]
    assert substitute(dim(n * h + 1), {n: 2}) == dim(2 * h + 1)
    assert substitute(dim(n * h), {n: 2, h: n}) == dim(2 * n)
    with pytest.raises(ShapeError, match="a number beyond 64 bits"):
        substitute(dim(2 * n), {n: 2**62})
    with pytest.raises(ShapeError, match="must be an integer"):
        substitute(1 / n, {n: 2})
