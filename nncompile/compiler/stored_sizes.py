"""Sizes as JSON, and back: text would have to be parsed, and has no powers."""

from __future__ import annotations

from typing import Any

import sympy as sp

from nncompile.ir.dims import Dim, symbol
from nncompile.ir.size_arithmetic import FloorDiv

_KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (sp.Add, sp.Mul, sp.Pow, sp.Mod, sp.Max, sp.Min, FloorDiv)
}


def as_json(size: Dim) -> Any:
    """A number, the name of a size, or a list of an operator and its operands."""
    if isinstance(size, int) or size.is_Integer:
        return int(size)
    return str(size) if size.is_Symbol else [type(size).__name__, *map(as_json, size.args)]


def from_json(tree: Any) -> Any:
    """The size that `as_json` made this of."""
    if isinstance(tree, list):
        return _KINDS[tree[0]](*(sp.sympify(from_json(part)) for part in tree[1:]))
    return symbol(tree) if isinstance(tree, str) else tree
