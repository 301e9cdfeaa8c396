"""Graphs computed in numpy, exactly as written or with rounding errors thrown in: how far two
right ways to compute the same thing may be apart.

As in stochastic arithmetic (J. Vignes, "A stochastic arithmetic for reliable scientific
computation", 1993), every operand of every operation is moved by about a unit in the last place of
its element type; the spread of the results is what rounding does to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise.map import Map
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.special_functions import digamma, lgamma
from nncompile.elementwise.sympy_functions import erf, normal_cdf, placeholder, sigmoid, tanh
from nncompile.ir import precision
from nncompile.ir.basic import Cast
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Op, Value
from nncompile.ir.types import TupleType, Type, f16, f64, is_real
from nncompile.ops.core.checkpoint import Recompute
from nncompile.ops.loops.scan import Scan
from nncompile.ops.reduction.extremes import Max
from tests.op_types import Feeds, Sizes

Noise = Mapping[str, float]  # of an element type, relative
SINGLE: Noise = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float32": 2.0**-24,
    "float64": 2.0**-52,
}
DOUBLE: Noise = dict.fromkeys(SINGLE, 2.0**-52)

# Kernels compute them as polynomials that are right to the last place of one, not of the result.
ABSOLUTE = (erf, normal_cdf, sigmoid, tanh, lgamma, digamma)


class Computation:
    """The outputs of a graph at given sizes, ready to be computed many times in double."""

    def __init__(self, graph: Graph, sizes: Sizes) -> None:
        self.outputs = graph.outputs
        self._steps: list[tuple[Value, Op]] = [
            (
                v,
                v.op
                if isinstance(v.op, Input)
                else precision.in_types(v.op.at(sizes), precision.DOUBLE),
            )
            for v in toposort(graph.outputs.values())
        ]

    def is_finite(self, feeds: Feeds) -> bool:
        """Whether all results on the way are numbers. Where they are not, the mathematics that
        graphs are rewritten by does not hold: 0/0·x is not 0·x/0."""
        known = self._known(feeds, None, None)
        return all(bool(np.isfinite(x).all()) for x in _flat([*known.values()]) if is_real(x.dtype))

    def __call__(
        self,
        feeds: Feeds,
        noise: Noise | None = None,
        rng: np.random.Generator | None = None,
        held: bool = False,
    ) -> Feeds:
        """The outputs by name; with `noise`, of operands that are moved by so much. Ties are `held`
        where the operands of everything that compares or chooses are left as they are."""
        known = self._known(feeds, noise, rng, held)
        return {name: known[v] for name, v in self.outputs.items()}

    def _known(
        self,
        feeds: Feeds,
        noise: Noise | None,
        rng: np.random.Generator | None,
        held: bool = False,
    ) -> dict[Value, Any]:
        known: dict[Value, Any] = {}
        with np.errstate(all="ignore"):
            for v, op in self._steps:
                if isinstance(op, Input):
                    array = feeds[op.name]
                    wide = array.astype(np.float64) if is_real(array.dtype) else array
                    known[v] = wide
                    continue
                args = [known[a] for a in v.args]
                if held and not isinstance(op, Cast):
                    made = _arrays(op, v, args)
                    if _are_chosen(made, args):
                        known[v] = made
                        continue
                if noise is not None and rng is not None and not _is_exact(op, v):
                    args = [_moved(x, a, noise, rng) for x, a in zip(args, v.args, strict=True)]
                    if isinstance(op, Map):
                        known[v] = _formula(op, v, args, noise, rng)
                        continue
                known[v] = _arrays(op, v, args)
                if noise is not None and rng is not None and isinstance(op, Cast):
                    known[v] = _moved(known[v], v, noise, rng)
        return known

    def spread(
        self, feeds: Feeds, exact: Feeds, noise: Noise, runs: int, factor: float = 1.0
    ) -> dict[str, np.ndarray]:
        """How far each element goes, at most, in several noisy runs; infinite where it changes
        from one number to none. Every other run holds ties: where noise breaks them a gradient may
        be 0, and what is a sum that cancels would look exact."""
        rng = np.random.default_rng(0)
        scaled = {name: factor * size for name, size in noise.items()}
        found = {name: np.zeros(a.shape) for name, a in exact.items()}
        for i in range(runs):
            for name, array in self(feeds, scaled, rng, held=i % 2 == 1).items():
                with np.errstate(all="ignore"):
                    apart = np.abs(array.astype(np.float64) - exact[name].astype(np.float64))
                same = (array == exact[name]) | ((array != array) & (exact[name] != exact[name]))
                apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
                found[name] = np.maximum(found[name], apart)
        return found


def _is_exact(op: Op, v: Value) -> bool:
    """Whether the op compares or moves elements and rounds nothing. What it is of is not moved
    again: a maximum is one of its numbers, and is found among them by equality."""
    moves = op.moves and not isinstance(op, Cast | Scan | Recompute)  # these compute within
    return isinstance(op, Max) or moves or (isinstance(v.type, Type) and v.dtype.is_bool)


def _arrays(op: Op, v: Value, args: Sequence[Any]) -> Any:
    result = op.numpy(*args)
    if isinstance(v.type, TupleType):
        return tuple(map(np.asarray, result))
    return np.asarray(result)


def _are_chosen(made: Any, args: Sequence[Any]) -> bool:
    """Whether nothing was rounded: all numbers are truth values, integers, 0 or of the operands."""
    real = [x for x in _flat([made]) if is_real(x.dtype)]
    operands = [np.ravel(x) for x in _flat(args) if is_real(x.dtype)]
    return all(np.isin(x, np.concatenate([np.zeros(1), *operands])).all() for x in real)


def _flat(arrays: Sequence[Any]) -> list[np.ndarray]:
    return [x for xs in arrays for x in (xs if isinstance(xs, tuple) else (xs,))]


def _moved(x: Any, v: Value, noise: Noise, rng: np.random.Generator) -> Any:
    if isinstance(v.type, TupleType) or not v.dtype.is_float:
        return x
    size = noise[v.dtype.name]
    x = x * (1 + size * rng.uniform(-1, 1, x.shape))
    if size <= DOUBLE["float32"] or v.dtype is f64:
        return x
    with np.errstate(over="ignore"):  # too much for its type
        x = np.where(np.isinf(x.astype(v.dtype.numpy)), np.sign(x) * np.inf, x)
    if v.dtype is f16:  # numbers below the least normal one are so far apart
        return x + 2.0**-25 * rng.uniform(-1, 1, x.shape) * (np.abs(x) < 2.0**-14)
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, 0.0, x)


def _formula(op: Map, v: Value, args: Sequence[Any], noise: Noise, rng: np.random.Generator) -> Any:
    """A formula, an operation at a time."""
    reals = [t.dtype.name for t in (v.type, *(a.type for a in v.args)) if t.dtype.is_float]
    # Floats of 16 bits are computed with in float32.
    size = max((min(noise[name], noise["float32"]) for name in reals), default=0.0)
    known = list(args)
    for body, places in _operations(op.body, op.count):
        values = {}
        for k, place in enumerate(places):
            x = known[place]
            if is_real(x.dtype) and place >= op.count:
                x = x * (1 + size * rng.uniform(-1, 1, x.shape))
            values[placeholder(k)] = x
        made = np.asarray(evaluate(body, values))
        if isinstance(body, ABSOLUTE):
            made = made + size * rng.uniform(-1, 1, made.shape)
        known.append(made)
    result = known[-1]
    shape = np.broadcast_shapes(result.shape, *(a.shape for a in args))
    return np.broadcast_to(result, shape)


@cache
def _operations(body: sp.Expr, count: int) -> tuple[tuple[sp.Expr, tuple[int, ...]], ...]:
    """A body as single operations: each of placeholders, for the arguments and the results of
    earlier operations at these places."""
    places: dict[sp.Expr, int] = {placeholder(i): i for i in range(count)}
    found: list[tuple[sp.Expr, tuple[int, ...]]] = []

    def walk(x: sp.Expr) -> None:
        if x in places or not x.free_symbols:
            return
        for a in x.args:
            walk(a)
        inner = [a for a in x.args if a.free_symbols]
        names = {a: placeholder(k) for k, a in enumerate(dict.fromkeys(inner))}
        found.append((x.func(*(names.get(a, a) for a in x.args)), tuple(places[a] for a in names)))
        places[x] = count + len(found) - 1

    walk(body)
    if body in places and places[body] < count:
        found.append((placeholder(0), (places[body],)))
    return tuple(found)
