"""The sizes of names that make the inputs of a model those that it is applied to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.dims import Dim, Shape, dim, same, substitute, symbols


def solved_sizes(shapes: Mapping[str, tuple[Shape, Shape]]) -> dict[sp.Symbol, Dim]:
    """The sizes that make each declared shape the actual one; both may be symbolic, and a name
    may mean different sizes on the two sides. Raises `ShapeError` where there are none."""
    names = symbols(d for declared, _ in shapes.values() for d in declared)
    dummies = {s: sp.Dummy(s.name, integer=True, nonnegative=True) for s in names}
    solution: dict[sp.Symbol, Dim] = {}
    pending: list[tuple[str, Dim, Dim]] = []
    for name, (declared, actual) in shapes.items():
        if len(declared) != len(actual):
            raise ShapeError(
                f"input {name!r} has rank {len(declared)}, not {len(actual)}",
                rows=[("expected", _shape(declared)), ("got", _shape(actual))],
            )
        pending += [(name, d, a) for d, a in zip(declared, actual, strict=True)]
    pending.sort(key=lambda entry: not isinstance(entry[1], int) and not entry[1].is_Symbol)
    for name, d, a in pending:
        expected = d if isinstance(d, int) else substitute(d, dummies)
        expected = substitute(expected, solution)
        unknown = [s for s in dummies.values() if s in symbols([expected])]
        roots = _roots(expected, a, unknown[0]) if len(unknown) == 1 else []
        if len(roots) == 1 and roots[0].is_integer is not False:
            solution[unknown[0]] = dim(roots[0])
        elif unknown or same(expected, a) is not True:
            declared, actual = shapes[name]
            raise ShapeError(
                f"input {name!r}: size {a} does not fit {d}",
                rows=[("expected", _shape(declared)), ("got", _shape(actual))],
            )
    return {s: solution[dummies[s]] for s in names if dummies[s] in solution}


def _roots(left: Any, right: Dim, unknown: sp.Symbol) -> list[Any]:
    """The values of `unknown` that make both sides equal."""
    return list(sp.solve(left - right, unknown)) if left.is_polynomial(unknown) else []


def _shape(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
