"""Roundings put into the evaluation of a graph, to see what they do to its outputs.

Where n terms are added up, a node is moved by √n roundings if that is more; results of functions
that saturate (tanh, the logistic function) by roundings of the largest of them, for so exactly do
runtimes compute them.

Numbers that no rounding made are not moved: what is copied from an argument (so that an element
still equals the maximum that it is), whole numbers, and the data.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import erf, sigmoid, tanh
from nncompile.ir.graph import Input, graphs_within
from nncompile.ir.op import Op, Value
from nncompile.ir.types import Array, Type, bf16, f16, f32, f64, is_real, max_norm

ROUNDINGS = 16  # that every node may be off by, and that healthy backends stay well below
EPSILON = {bf16: 2.0**-7, f16: 2.0**-10, f32: 2.0**-23, f64: 2.0**-52}
_ODD = np.uint64(0x9E3779B97F4A7C15)  # of the golden ratio
_SATURATING = (sigmoid, erf, tanh)
_LOOKED_AT = 16  # elements that tell whether an op copies


class Rounding:
    """Moves the result of every node by up to `ROUNDINGS` roundings, for one evaluation.

    `computing` holds the nodes that were seen to copy nothing, for evaluations of the same inputs.
    """

    def __init__(self, seed: Sequence[int], computing: set[Value] | None = None) -> None:
        self._computing = set() if computing is None else computing
        self._random = np.random.default_rng(seed)
        self._key = self._random.integers(2**63, dtype=np.uint64)
        self._results: dict[Value, Any] = {}

    def __call__(self, v: Value, result: Any) -> Any:
        if isinstance(v.op, Input):
            # Data are the same for all backends; a parameter stands for the terms of its products.
            moved = result if v.op.kind == "input" else self._moved(result, v, v.type)
        elif isinstance(result, tuple):
            pairs = zip(result, v.type.items, strict=True)
            moved = tuple(self._moved(x, v, t) for x, t in pairs)
        elif not v.args and np.array_equal(result, np.asarray(result, v.dtype.numpy)):
            moved = result  # a constant that its type has
        else:
            moved = self._moved(result, v, v.type)
        self._results[v] = moved
        return moved

    def _arguments(self, v: Value) -> list[Array]:
        results = [self._results[a] for a in v.args]
        flat = [x for k in results for x in (k if isinstance(k, tuple) else (k,))]
        return [x for x in flat if is_real(x.dtype) and x.size]

    def _moved(self, x: Array, v: Value, type_: Type) -> Array:
        if type_.dtype not in EPSILON or not x.size:
            return x
        terms = 1.0 if isinstance(v.op, Map) else _terms(x, self._arguments(v))
        size = EPSILON[type_.dtype] * max(ROUNDINGS, terms**0.5)
        if _saturates(v.op):
            largest = max_norm(x)
            return np.asarray(x + size * largest * self._random.uniform(-1, 1, x.shape))
        rounded = np.isfinite(x) & ((x != np.rint(x)) | (np.abs(x) > 2 / EPSILON[type_.dtype]))
        if not rounded.any():
            return x
        if v.args and v not in self._computing:
            copied = _copied(x, rounded, self._arguments(v))
            if copied is None:
                self._computing.add(v)
            else:
                rounded &= ~copied
        # Equal elements of leaves stay equal, for they are equal to all backends.
        factors = self._random.uniform(-1, 1, x.shape) if v.args else self._factors(x)
        return np.where(rounded, x * (1 + size * factors), x)

    def _factors(self, x: Array) -> Array:
        """Random numbers from −1 to 1 that follow from the elements: equal ones stay equal."""
        bits = np.array(x, np.float64).ravel().view(np.uint64)
        mixed = (bits ^ (bits >> np.uint64(32))) * _ODD + self._key
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _ODD
        return ((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1).reshape(x.shape)


def _terms(x: Array, args: Sequence[Array]) -> float:
    """About how many terms are added up for an element: of sums and products of matrices, that is.
    The rounding errors of n additions in a row come to about √n (N. Higham and T. Mary, "A new
    approach to probabilistic rounding error analysis", 2019)."""
    sizes = sorted((a.size for a in args), reverse=True)[:2]
    if len(sizes) == 2:
        return float((sizes[0] * sizes[1] / x.size) ** 0.5)
    return sizes[0] / x.size if sizes else 1.0


@functools.lru_cache(maxsize=4096)
def _saturates(op: Op) -> bool:
    """Whether an op, or the body of a loop, computes functions that saturate: runtimes have them
    to a rounding of 1, and not of each element."""
    if isinstance(op, Map):
        return bool(op.body.has(*_SATURATING))
    return any(_saturates(v.op) for graph in graphs_within(op) for v in graph.nodes)


def _copied(x: Array, among: Array, args: Sequence[Array]) -> Array | None:
    """Which elements are those of an argument, up to their sign; None where none is."""
    indices = np.flatnonzero(among)
    sample = np.abs(x.ravel()[indices[:: max(1, indices.size // _LOOKED_AT)]])
    # The few among the many: the other way round, numpy sorts the many.
    if not any(np.isin(np.abs(a), sample).any() for a in args):
        return None
    return np.isin(np.abs(x), np.concatenate([np.abs(a).ravel() for a in args]))
