"""Symbolic dimensions: an int, or a sympy expression over non-negative integer symbols.

Comparing two dimensions has three answers: equal, different, and unknown.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import lcm
from typing import Any

import sympy as sp

from nncompile.errors import ShapeError

Dim = int | sp.Expr
Shape = tuple[Dim, ...]


class FloorDiv(sp.Function):  # type: ignore[misc]
    """`a // b` for integers; simplifies only where the division is exact."""

    nargs = 2
    is_integer = True

    @classmethod
    def eval(cls, a: sp.Expr, b: sp.Expr) -> sp.Expr | None:
        if b == 1:
            return a
        if a.is_Integer and b.is_Integer and b != 0:
            return sp.Integer(int(a) // int(b))
        quotient = sp.cancel(a / b) if not b.is_Integer else sp.expand(a / b)
        integral = quotient.is_integer and not quotient.has(sp.floor)
        if integral and all(c.is_Integer for c in quotient.as_coefficients_dict().values()):
            return quotient
        return None

    def _eval_is_nonnegative(self) -> bool | None:
        a, b = self.args
        return True if a.is_nonnegative and b.is_nonnegative else None

    def _sympystr(self, printer: Any) -> str:
        a, b = (printer.parenthesize(x, 100) for x in self.args)
        return f"{a}//{b}"


def _unfloor(x: sp.Expr) -> sp.Expr:
    """sympy turns (s-1)//2 into floor(s/2 - 1/2); this turns it back."""
    terms = sp.Add.make_args(sp.expand(x))
    denominator = lcm(*(int(sp.fraction(t.as_coeff_Mul()[0])[1]) for t in terms))
    if denominator == 1 and not x.is_integer:
        numerator, divisor = sp.fraction(sp.together(x))
        return FloorDiv(numerator, divisor)
    return FloorDiv(sp.expand(x * denominator), sp.Integer(denominator))


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: lambda a, b: FloorDiv(sp.sympify(a), sp.sympify(b)),
    ast.Mod: operator.mod,
}


def _parse(text: str) -> Dim:
    def walk(node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name):
                return symbol(name)
            case ast.Constant(value=int(value)):
                return value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](walk(left), walk(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -walk(operand)
        raise ShapeError(
            f"{text!r} is not a dimension",
            hint='write a name or arithmetic of names, such as "batch" or "4*h"',
        )

    try:
        return dim(walk(ast.parse(text.strip(), mode="eval").body))
    except SyntaxError:
        raise ShapeError(
            f"{text!r} is not a dimension",
            hint='write a name or arithmetic of names, such as "batch" or "4*h"',
        ) from None


@lru_cache(maxsize=None)
def symbol(name: str) -> sp.Symbol:
    """The dimension called `name`; equal names are equal dimensions."""
    return sp.Symbol(name, integer=True, nonnegative=True)


def dim(x: Any) -> Dim:
    """A dimension from an int, a name, arithmetic in text, or a sympy expression.

    >>> dim("2*batch"), dim(3), dim((symbol("s") - 1) // 2)
    (2*batch, 3, (s - 1)//2)
    """
    if isinstance(x, bool):
        raise ShapeError(f"a size must be an integer, got {x!r}")
    if isinstance(x, int):
        return x
    if isinstance(x, str):
        return _parse(x)
    if isinstance(x, sp.Expr):
        if x.has(sp.floor):
            x = x.replace(sp.floor, _unfloor)
        return int(x) if x.is_Integer else x
    if hasattr(x, "__index__"):
        return int(x.__index__())
    raise ShapeError(f"a size must be an integer or a name, got {x!r}")


def same(a: Dim, b: Dim) -> bool | None:
    """Whether two dimensions are equal: True, False, or None where that depends on the sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a == b:
        return True
    difference = sp.expand(sp.sympify(a) - sp.sympify(b))
    if difference.is_zero:
        return True
    if difference.is_positive or difference.is_negative:
        return False
    return None


def same_shape(a: Shape, b: Shape) -> bool | None:
    """Whether two shapes are equal, axis by axis: True, False or None (unknown)."""
    if len(a) != len(b):
        return False
    answers = [same(x, y) for x, y in zip(a, b, strict=True)]
    if all(answers):
        return True
    return False if False in answers else None


def is_one(d: Dim) -> bool:
    return isinstance(d, int) and d == 1


def broadcast(*shapes: Shape) -> Shape:
    """The common shape by numpy's rule. Raises `ShapeError` where axes differ, or where it is
    unknown whether they do."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = []
    for axis in range(-rank, 0):
        size: Dim = 1
        for shape in shapes:
            if -axis > len(shape) or is_one(shape[axis]):
                continue
            if is_one(size):
                size = shape[axis]
                continue
            answer = same(size, shape[axis])
            if answer is False:
                raise ShapeError(f"sizes {size} ≠ {shape[axis]} on axis {axis} do not broadcast")
            if answer is None:
                raise ShapeError(
                    f"cannot tell whether {size} = {shape[axis]} on axis {axis}",
                    hint="give both axes one name, or write one size in terms of the other",
                )
        result.append(size)
    return tuple(result)


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    total: Dim = 1
    for d in dims:
        total = total * d
    return dim(total)


def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b` as a dimension."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return dim(FloorDiv(sp.sympify(a), sp.sympify(b)))


def symbols(dims: Iterable[Dim]) -> set[sp.Symbol]:
    """The names that the dimensions depend on."""
    found: set[sp.Symbol] = set()
    for d in dims:
        if not isinstance(d, int):
            found |= d.free_symbols
    return found


def substitute(d: Dim, bindings: Mapping[sp.Symbol, Dim]) -> Dim:
    """The dimension with sizes in place of names."""
    return d if isinstance(d, int) else dim(d.subs(bindings, simultaneous=True))


def solve(declared: Sequence[Shape], actual: Sequence[tuple[int, ...]]) -> dict[sp.Symbol, int]:
    """The sizes of all names, from the shapes of the data.

    A name may stand in arithmetic that is linear in it (`4*h` = 28 gives h = 7). Raises
    `ShapeError` where the shapes contradict each other.
    """
    bindings: dict[sp.Symbol, int] = {}
    pending = [
        (d, n)
        for shape, sizes in zip(declared, actual, strict=True)
        for d, n in zip(shape, sizes, strict=True)
    ]
    pending.sort(key=lambda pair: isinstance(pair[0], sp.Expr) and not pair[0].is_Symbol)
    for d, n in pending:
        left = substitute(d, bindings)
        if isinstance(left, int):
            if left != n:
                raise ShapeError(f"expected size {left} for {d}, got {n}")
            continue
        unknown = sorted(left.free_symbols, key=str)
        roots = sp.solve(left - n, unknown[0]) if len(unknown) == 1 else []
        if len(roots) == 1 and roots[0].is_Integer and roots[0] >= 0:
            bindings[unknown[0]] = int(roots[0])
        elif roots or not left.has(FloorDiv):
            raise ShapeError(f"no size of {', '.join(map(str, unknown))} makes {d} = {n}")
    return bindings
