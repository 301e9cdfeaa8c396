"""What only differentiation needs, taken out once it is done."""

from __future__ import annotations

import functools

import sympy as sp

from nncompile.graph import Graph, Value
from nncompile.map import Map, mapped
from nncompile.ops.basic import Reroute, broadcast_to
from nncompile.rewrite import on, rewrite
from nncompile.scalars.heads import declared, stop_gradient


def release(graph: Graph) -> Graph:
    """Removes declared slopes and gradient fences: the graph is computed, not differentiated."""
    return rewrite(graph, [unfenced, unrouted])


@functools.lru_cache(maxsize=16384)
def _without_fences(body: sp.Expr) -> sp.Expr:
    if not body.has(stop_gradient, declared):
        return body
    plain = body.replace(declared, lambda value, x, slope: value)
    return plain.replace(stop_gradient, lambda x: x)


@on(Map)
def unfenced(value: Value) -> Value | None:
    """A Map without declared slopes and without stop_gradient in its body."""
    if not isinstance(value.op, Map):
        return None
    body = _without_fences(value.op.body)
    if body is value.op.body and value.op.slopes is None:
        return None
    made = mapped(body, value.args)
    return broadcast_to(made, value.shape) if made.dtype is value.dtype else None


@on(Reroute)
def unrouted(value: Value) -> Value | None:
    """The value itself in place of one with a slope that the user declared."""
    return value.args[0] if isinstance(value.op, Reroute) else None
