"""A formula, and what formulas become, for the tests of formulas."""

from __future__ import annotations

from nncompile.elementwise import exp
from nncompile.elementwise.formula import formula
from nncompile.elementwise.map import Map
from nncompile.ir.graph import toposort
from nncompile.ir.op import Value


@formula
def swish(x, beta=1):  # type: ignore[no-untyped-def]
    """x·σ(βx)"""
    return x / (1 + exp(-beta * x))


def maps_of(value: Value) -> list[Map]:
    """The Maps that a value is made of."""
    return [v.op for v in toposort([value]) if isinstance(v.op, Map)]
