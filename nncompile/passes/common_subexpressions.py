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
from nncompile.elementwise.map import Map, body_of, is_plain, over
from nncompile.elementwise.sympy_functions import less, placeholder, relu
from nncompile.ir.graph import Graph, Op, Value, apply
from nncompile.ops.contraction.matmul import Gemm, MatMul
from nncompile.ops.random.generator import Dropout
from nncompile.ops.reduction.reduce import ArgMax, ArgMin, LogSumExp, Max, Min, Sum
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.shape.reshape import Transpose, reshape
from nncompile.passes.rewriter import on, rewrite

_REDUCTIONS = (Sum, Max, Min, LogSumExp, ArgMax, ArgMin)


def common(graph: Graph) -> Graph:
    """Computes once what is needed in two forms: a reduction with and without its axes, a softmax
    beside its logarithm, the sign of what is rectified, the row sums of attention's slope."""
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

    @on(Sum)
    def row_sums(value: Value) -> Value | None:
        """Σⱼ aᵢⱼ·(b·cᵀ)ᵢⱼ beside a·c: Σₖ bᵢₖ·(a·c)ᵢₖ. In the slope of attention that is a sum over
        features in place of one over positions (Dao et al. 2022, "FlashAttention")."""
        x = value.args[0]
        if value.op not in (Sum((x.rank - 1,)), Sum((x.rank - 1,), True)) or not is_plain(x):
            return None
        if body_of(x) != placeholder(0) * placeholder(1) or x.dtype is not value.dtype:
            return None
        for a, product_ in (x.args, x.args[::-1]):
            if not a.type == product_.type == x.type:  # one is broadcast
                continue
            dropped = product_.op if isinstance(product_.op, Dropout) else None
            if dropped is not None:  # it is linear, and drops the same of the other factor
                product_, bits = product_.args
                a = apply(dropped, a, bits)
            factors = _by_transposed(product_)
            if factors is None:
                continue
            b, c = factors
            together = known(MatMul(), a, c)
            if together is not None and together.type == b.type:
                return apply(value.op, b * together)
        return None

    return rewrite(graph, [reduced, softmax, rectified, row_sums])


def _by_transposed(value: Value) -> tuple[Value, Value] | None:
    """`(b, c)` of a matrix product b·cᵀ."""
    if isinstance(value.op, MatMul):
        b, c = value.args
        last = c.rank - 1
        flipped = (*range(last - 1), last, last - 1)
        if isinstance(c.op, Transpose) and c.op.axes == flipped:
            return b, c.args[0]
    elif value.op == Gemm(False, True) and len(value.args) == 2:
        return value.args[0], value.args[1]
    return None


_RELU = Map(relu(placeholder(0)), 1)


@functools.lru_cache(maxsize=16384)
def _asks_for_sign(body: sp.Expr, i: int) -> bool:
    """Whether all that the body asks about argument `i` is whether it is positive."""
    x = placeholder(i)
    return body.has(x) and not body.xreplace({less(sp.S.Zero, x): sp.S.One}).has(x)
