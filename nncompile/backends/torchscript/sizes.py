"""Dimensions as TorchScript: where the sizes of names come from, and arithmetic on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sympy as sp

from nncompile.diagnostics.errors import BackendError
from nncompile.ir.dims import Dim, FloorDiv, Shape

# Each size is written with the one of its leaf's axis in place of this symbol.
MEASURED = sp.Symbol("measured", integer=True, nonnegative=True)

Origin = tuple[str, int, sp.Expr]


def origins(shapes: Mapping[str, Shape]) -> dict[sp.Symbol, Origin]:
    """For each name of a dimension the leaf and axis to measure it at, and the size as an
    expression of that measure (of `4*h` it is a quarter) and of the names before it."""
    found: dict[sp.Symbol, Origin] = {}
    axes = [
        (leaf, axis, size)
        for leaf, shape in shapes.items()
        for axis, size in enumerate(shape)
        if not isinstance(size, int)
    ]
    for leaf, axis, size in axes:
        if size.is_Symbol:
            found.setdefault(size, (leaf, axis, MEASURED))
    pending = [entry for entry in axes if not entry[2].is_Symbol]
    while True:
        for leaf, axis, size in pending:
            unknown = size.free_symbols - found.keys()
            if len(unknown) != 1:
                continue
            (name,) = unknown
            roots = [] if size.has(FloorDiv, sp.Mod) else sp.solve(size - MEASURED, name)
            if len(roots) == 1:
                found[name] = (leaf, axis, roots[0])
                break
        else:
            return found


def is_measurable(size: Dim, known: Mapping[sp.Symbol, Origin]) -> bool:
    """Whether the size is arithmetic of integers that can be measured."""
    if isinstance(size, int):
        return True
    if not all(_is_arithmetic(x) for x in sp.preorder_traversal(size)):
        return False
    return all(
        name == MEASURED or (name in known and is_measurable(known[name][2], known))
        for name in size.free_symbols
    )


def _is_arithmetic(x: sp.Basic) -> bool:
    if isinstance(x, sp.Pow):
        return bool(x.exp.is_Integer)
    kinds = (sp.Symbol, sp.Rational, sp.Add, sp.Mul, FloorDiv, sp.Mod, sp.Max, sp.Min)
    return isinstance(x, kinds)


def size_text(size: sp.Expr, texts: Mapping[sp.Symbol, str]) -> str:
    """Integer arithmetic as source, with the text of each name; every operation that is an
    operand of another stands in parentheses. Raises `BackendError` for what is not integer
    arithmetic."""

    return _SizeText(texts).walk(size)


@dataclass(frozen=True)
class _SizeText:
    texts: Mapping[sp.Symbol, str]

    def walk(self, x: sp.Expr) -> str:
        """An expression."""
        if x.is_Symbol:
            return self.texts[x]
        if x.is_Integer:
            return str(int(x))
        numerator, denominator = sp.fraction(sp.together(x))
        if denominator != 1:
            return f"{self.operand(numerator)} // {self.operand(denominator)}"
        if isinstance(x, sp.Add):
            return _sum_text(x, self.operand)
        if isinstance(x, sp.Mul):
            return " * ".join(self.operand(f) for f in x.as_ordered_factors())
        if isinstance(x, sp.Pow) and x.exp.is_Integer:
            return " * ".join([self.operand(x.base)] * int(x.exp))
        if isinstance(x, FloorDiv):
            return f"{self.operand(x.args[0])} // {self.operand(x.args[1])}"
        if isinstance(x, sp.Mod):
            return f"{self.operand(x.args[0])} % {self.operand(x.args[1])}"
        if isinstance(x, sp.Max | sp.Min):
            name = "max" if isinstance(x, sp.Max) else "min"
            return functools.reduce(lambda a, b: f"{name}({a}, {b})", map(self.walk, x.args))
        raise BackendError(f"the size {x} is not arithmetic of integers")

    def operand(self, x: sp.Expr) -> str:
        """An expression within another."""
        atomic = x.is_Symbol or (x.is_Integer and x >= 0) or isinstance(x, sp.Max | sp.Min)
        return self.walk(x) if atomic else f"({self.walk(x)})"


def _sum_text(x: sp.Expr, operand: Callable[[sp.Expr], str]) -> str:
    # Positive terms first: `n - 1`, not `-1 + n`.
    terms = sorted(x.as_ordered_terms(), key=_is_negative)
    text = operand(terms[0])
    for term in terms[1:]:
        negative = _is_negative(term)
        text += f" {'-' if negative else '+'} {operand(-term if negative else term)}"
    return text


def _is_negative(term: sp.Expr) -> bool:
    return bool(term.as_coeff_Mul()[0] < 0)
