"""Common subexpressions that interning cannot see.

Equal nodes are one object from the start. What is left are nodes that differ and of which one is
a cheap function of the other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import sympy as sp

from nncompile.elementwise import exp, relu, sympy_functions, where
from nncompile.elementwise.map import Map, body_of, is_plain, over
from nncompile.elementwise.sympy_functions import less, placeholder
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32, i64
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.random.generator import Dropout
from nncompile.ops.reduction.operands import Reduction
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import Transpose, reshape
from nncompile.passes.rewriter import Changes, Steps, on, present, rule, rules


@rules
def common() -> Changes:
    """Computes once what is needed in two forms: a reduction with and without its axes, a softmax
    beside its logarithm, the sign of what is rectified, the row sums of attention's gradient."""
    return [reduced, softmax_beside_logarithm, rectified, row_sums]


@on(Reduction)
def reduced(value: Value) -> Value | None:
    """A reduction that keeps its axes, beside one that does not: that one reshaped."""
    op: Any = value.op
    flat = apply(dataclasses.replace(op, keepdims=False), *value.args)
    return reshape(flat, value.shape) if op.keepdims and present(flat) else None


@reduced.refuses(f32[2, 3])
def _(x: Value) -> Iterator[Any]:
    yield x.sum(1, keepdims=True), x.sum(0), x.max(1)
    yield x.sum(1)


@rule(f32[2, 3], 1)
def softmax_beside_logarithm(x: Value, axis: int) -> Steps:
    """A softmax beside the log-softmax of the same: its exponential."""
    yield Softmax(axis)(x)
    logarithm = LogSoftmax(axis)(x)
    if not present(logarithm):
        return "the logarithm is not needed"
    yield exp(logarithm)


@softmax_beside_logarithm.refuses(f32[2, 3])
def _(x: Value) -> Iterator[Any]:
    yield Softmax(1)(x), LogSoftmax(0)(x)


@on(Map)
def rectified(value: Value) -> Value | None:
    """A comparison with zero of what is rectified, too: of the result. The sign is the same, and
    what went into the relu need not be kept."""
    if not is_plain(value):
        return None
    for i, x in enumerate(value.args):
        if not x.dtype.is_float or not _asks_for_sign(body_of(value), i):
            continue
        positive = apply(_RELU, x)
        if present(positive):
            args = [positive if a is x else a for a in value.args]
            return over(body_of(value), args, value)
    return None


@rectified.refuses(f32[2], f32[2], i64[2])
def _(x: Value, y: Value, n: Value) -> Iterator[Any]:
    yield where(x > 0, y, 0)  # x is not rectified
    yield where(x > 0, y, x), relu(x)  # and is needed itself
    yield where(x > -1, y, 0), relu(x)
    yield where(n > 0, y, 0), relu(n)
    yield Map(less(sp.S.Zero, placeholder(0)), 1, (sp.S.Zero,))(x), relu(x)


_RELU = Map(sympy_functions.relu(placeholder(0)), 1)


@functools.lru_cache(maxsize=16384)
def _asks_for_sign(body: sp.Expr, i: int) -> bool:
    """Whether all that the body asks about argument `i` is whether it is positive."""
    x = placeholder(i)
    return body.has(x) and not body.xreplace({less(sp.S.Zero, x): sp.S.One}).has(x)


@on(Sum)
def row_sums(value: Value) -> Value | None:
    """Σⱼ aᵢⱼ·(b·cᵀ)ᵢⱼ beside a·c: Σₖ bᵢₖ·(a·c)ᵢₖ. In the gradient of attention that is a sum over
    features in place of one over positions (Dao et al. 2022, "FlashAttention")."""
    x = value.args[0]
    if value.op not in (Sum((x.rank - 1,)), Sum((x.rank - 1,), True)) or not is_plain(x):
        return None
    if body_of(x) != placeholder(0) * placeholder(1) or x.dtype is not value.dtype:
        return None
    for a, product in (x.args, x.args[::-1]):
        factors = _by_transposed(product, a) if a.type == product.type == x.type else None
        if factors is None:
            continue
        a, b, c = factors
        weighted = MatMul()(a, c)
        if present(weighted) and weighted.type == b.type:
            return apply(value.op, b * weighted)
    return None


def _by_transposed(product: Value, a: Value) -> tuple[Value, Value, Value] | None:
    """`(a, b, c)` where `product` is b·cᵀ; where elements of that are dropped, `a` is without
    them, for the drop is linear."""
    if isinstance(product.op, Dropout):
        a = apply(product.op, a, product.args[1])
        product = product.args[0]
    if isinstance(product.op, MatMul):
        b, c = product.args
        last = c.rank - 1
        flipped = (*range(last - 1), last, last - 1)
        if isinstance(c.op, Transpose) and c.op.axes == flipped:
            return a, b, c.args[0]
    elif product.op == Gemm(False, True) and len(product.args) == 2:
        return a, product.args[0], product.args[1]
    return None


@row_sums.refuses(f32[2, 3], f32[2, 4], f32[3, 4], f32[3, 3])
def _(a: Value, b: Value, c: Value, square: Value) -> Iterator[Any]:
    product = b @ c.transpose()
    yield (a * product).sum(1)  # a·c is not needed
    yield (a * product).sum(0), a @ c
    yield (a + product).sum(1), a @ c
    yield (a * (b @ c.reshape((4, 3)))).sum(1), a @ c
    yield (square * (square @ square.transpose())).sum(1), square @ square.transpose()
    yield product.sum(1), a @ c
    yield (a[:1] * product).sum(1), a[:1] @ c  # which is broadcast
