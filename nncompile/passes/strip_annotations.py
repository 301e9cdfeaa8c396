"""What only differentiation and the choice of a mode need, taken out once they are done."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import sympy as sp

from nncompile.elementwise.map import Map, mapped
from nncompile.elementwise.sympy_functions import declared, placeholder, stop_gradient
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.graph import Item
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.ops.core.annotations import Annotation
from nncompile.ops.core.checkpoint import Recompute
from nncompile.ops.shape.joining import sections
from nncompile.passes.rewriter import Changes, on, rules


@rules
def release() -> Changes:
    """Removes annotations, stop_gradient and the borders of recomputed blocks: the graph is
    computed, not differentiated."""
    return [plain_map, without_annotation, open_block]


@functools.lru_cache(maxsize=16384)
def _without_stops(body: sp.Expr) -> sp.Expr:
    if not body.has(stop_gradient, declared):
        return body
    plain = body.replace(declared, lambda value, x, gradient: value)
    return plain.replace(stop_gradient, lambda x: x)


@on(Map)
def plain_map(value: Value) -> Value | None:
    """A Map without declared gradients and without stop_gradient in its body."""
    if not isinstance(value.op, Map):
        return None
    body = _without_stops(value.op.body)
    if body == value.op.body and value.op.derivatives is None:
        return None
    result = mapped(body, value.args)
    return broadcast_to(result, value.shape) if result.dtype is value.dtype else None


@plain_map.refuses(f32[3], i64[3])
def _(x: Value, n: Value) -> Iterator[Any]:
    yield x + 1
    yield Map(stop_gradient(placeholder(0)) - placeholder(0), 1)(n)


@on(Annotation)
def without_annotation(value: Value) -> Value | None:
    """The value itself in place of an annotated one: with a declared gradient, an anchor of
    gradients, a training value (the inference pass has chosen before), or a total."""
    return value.args[0]


@on(Item)
def open_block(value: Value) -> Value | None:
    """The result of a recomputed block itself."""
    block = value.args[0]
    if not isinstance(value.op, Item) or not isinstance(block.op, Recompute):
        return None
    return block.args[value.op.index]


@open_block.refuses(f32[4])
def _(x: Value) -> Iterator[Any]:
    yield sections(x, [1, 3], 0)[0]
