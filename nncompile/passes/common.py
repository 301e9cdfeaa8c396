"""Common subexpressions that interning cannot see.

Equal nodes are one object from the start. What is left are nodes that differ and of which one is
a cheap function of the other.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import sympy as sp

from nncompile.elementwise import exp
from nncompile.graph import Graph, Op, Value, apply
from nncompile.map import Map, body_of, is_plain, over
from nncompile.ops.reduce import ArgMax, ArgMin, LogSumExp, Max, Min, Sum
from nncompile.ops.shape import reshape
from nncompile.ops.softmax import LogSoftmax, Softmax
from nncompile.rewrite import on, rewrite
from nncompile.scalars import placeholder
from nncompile.scalars.heads import less, relu

_REDUCTIONS = (Sum, Max, Min, LogSumExp, ArgMax, ArgMin)


def common(graph: Graph) -> Graph:
    """Computes once what is needed in two forms: a reduction with and without its axes, a softmax
    beside its logarithm, the sign of what is rectified."""
    present = set(graph.nodes)

    def known(op: Op, *args: Value) -> Value | None:
        found = apply(op, *args)
        return found if found in present else None

    @on(*_REDUCTIONS)
    def reduced(value: Value) -> Value | None:
        """A reduction that keeps its axes, beside one that does not: that one reshaped."""
        op: Any = value.op
        if not op.keepdims:
            return None
        flat = known(dataclasses.replace(op, keepdims=False), *value.args)
        return None if flat is None else reshape(flat, value.shape)

    @on(Softmax)
    def softmax(value: Value) -> Value | None:
        """A softmax beside the log-softmax of the same: its exponential."""
        if not isinstance(value.op, Softmax):
            return None
        logarithm = known(LogSoftmax(value.op.axis), *value.args)
        return None if logarithm is None else exp(logarithm)

    @on(Map)
    def rectified(value: Value) -> Value | None:
        """A comparison with zero of what is rectified, too: of the result. The sign is the same,
        and what went into the relu need not be kept."""
        if not is_plain(value):
            return None
        for i, x in enumerate(value.args):
            if not x.dtype.is_float or not _asks_for_sign(body_of(value), i):
                continue
            positive = known(_RELU, x)
            if positive is not None and positive is not value:
                args = [positive if a is x else a for a in value.args]
                return over(body_of(value), args, value)
        return None

    return rewrite(graph, [reduced, softmax, rectified])


_RELU = Map(relu(placeholder(0)), 1)


@functools.lru_cache(maxsize=16384)
def _asks_for_sign(body: sp.Expr, i: int) -> bool:
    """Whether all that the body asks about argument `i` is whether it is positive."""
    x = placeholder(i)
    return body.has(x) and not body.xreplace({less(sp.S.Zero, x): sp.S.One}).has(x)
