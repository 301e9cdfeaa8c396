"""Numbers for numpy's functions, and values of them."""

from __future__ import annotations

import numpy as np

from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Array, dtype_of

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0]
WIDE = [-7.5, -3.0, -2.5, -1.5, -0.5, -1e-3, 1e-3, 0.25, 1.0, 2.5, 3.0, 40.0, 720.0]
REALS = np.array(SPECIAL + WIDE)
POSITIVE = np.array([1e-3, 0.25, 1.0, 2.5, 3.0])


def leaf(array: Array, name: str = "x") -> Value:
    """An input for arrays of one axis like this one."""
    return apply(Input(name, dtype_of(array)["n"]))


def at(value: Value, points: Array) -> Array:
    """What numpy computes where the leaf `x` is these points."""
    graph = Graph("function", {"result": value}, (leaf(points),))
    return evaluate(graph, {"x": points})["result"]  # type: ignore[no-any-return]
