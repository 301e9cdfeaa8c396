"""Dimensions as TorchScript: where the sizes of names come from, and arithmetic on them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import sympy as sp

from nncompile.diagnostics.errors import BackendError
from nncompile.ir.dims import Dim, Shape
from nncompile.ir.size_arithmetic import FloorDiv

# Each size is written with the one of its leaf's axis in place of this symbol.
MEASURED = sp.Symbol("measured", integer=True, nonnegative=True)

Origin = tuple[str, int, sp.Expr]


def origins(shapes: Mapping[str, Shape]) -> dict[sp.Symbol, Origin]:
    """For each name of a dimension the leaf and axis to measure it at, and the size as an
    expression of that measure (of `4*h` it is a quarter) and of the names before it."""
    measured_at: dict[sp.Symbol, Origin] = {}
    axes = [
        (leaf, axis, size)
        for leaf, shape in shapes.items()
        for axis, size in enumerate(shape)
        if not isinstance(size, int)
    ]
    for leaf, axis, size in axes:
        if size.is_Symbol:
            measured_at.setdefault(size, (leaf, axis, MEASURED))
    pending = [entry for entry in axes if not entry[2].is_Symbol]
    while True:
        for leaf, axis, size in pending:
            unknown = size.free_symbols - measured_at.keys()
            if len(unknown) != 1:
                continue
            (name,) = unknown
            roots = [] if size.has(FloorDiv, sp.Mod) else sp.solve(size - MEASURED, name)
            if len(roots) == 1:
                measured_at[name] = (leaf, axis, roots[0])
                break
        else:
            return measured_at


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
    """Integer arithmetic as source, with the text of each name. Raises `BackendError` for what is
    not integer arithmetic."""
    if size.is_Symbol:
        return texts[size]
    if size.is_Integer:
        return str(int(size))

    def infix(operator: str, operands: Iterable[sp.Expr]) -> str:
        return f" {operator} ".join(f"({size_text(x, texts)})" for x in operands)

    numerator, denominator = sp.fraction(sp.together(size))
    if denominator != 1:
        return infix("//", (numerator, denominator))
    if isinstance(size, sp.Add):  # positive terms first: `n - 1`, not `-1 + n`
        signs = {term: bool(term.as_coeff_Mul()[0] < 0) for term in size.as_ordered_terms()}
        first, *others = sorted(signs, key=signs.__getitem__)
        rest = (
            f" {'-' if signs[x] else '+'} ({size_text(-x if signs[x] else x, texts)})"
            for x in others
        )
        return "".join([f"({size_text(first, texts)})", *rest])
    if isinstance(size, sp.Mul):
        return infix("*", size.as_ordered_factors())
    if isinstance(size, sp.Pow) and size.exp.is_Integer:
        return infix("*", [size.base] * int(size.exp))
    if isinstance(size, FloorDiv | sp.Mod):
        return infix("//" if isinstance(size, FloorDiv) else "%", size.args)
    if isinstance(size, sp.Max | sp.Min):
        name = "max" if isinstance(size, sp.Max) else "min"
        operands = (size_text(x, texts) for x in size.args)
        return functools.reduce(lambda a, b: f"{name}({a}, {b})", operands)
    raise BackendError(f"the size {size} is not arithmetic of integers")
