"""Identities of arithmetic and of sums that hold for every number."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import sympy as sp

from nncompile import elementwise
from nncompile.elementwise import exp, sympy_functions
from nncompile.elementwise.map import Map, body_of, is_plain, mapped, over
from nncompile.elementwise.sympy_functions import placeholder, where
from nncompile.elementwise.trace_formula import LIMIT
from nncompile.ir.basic import cast, size_value
from nncompile.ir.broadcasting import Expand, broadcast_to
from nncompile.ir.dims import Dim, is_one, product
from nncompile.ir.op import Value
from nncompile.ir.types import boolean, f32, f64, i64
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import Reshape, reshape
from nncompile.ops.shape.selecting import nonzero
from nncompile.passes.maps import costs, inlined, joined_arguments, kinds_of, terms
from nncompile.passes.rewriter import Changes, Steps, made_by, on, rule, rules, uses


@rules
def algebra() -> Changes:
    """Cancels what cancels (−−x, x + 0, 2·(3·x)), computes on small tensors before they are
    repeated, and sums in one go."""
    return [
        before_repeating,
        chosen_first,
        simpler_together,
        sum_of_repeated,
        sum_of_one,
        sum_of_reshaped,
        sum_of_sum,
        sum_of_scaled,
    ]


@on(Map)
def before_repeating(value: Value) -> Value | None:
    """An elementwise op of repeated arguments: computed on what is repeated."""
    if not isinstance(value.op, Map) or not any(isinstance(a.op, Expand) for a in value.args):
        return None
    args = [a.args[0] if isinstance(a.op, Expand) else a for a in value.args]
    return broadcast_to(mapped(value.op.body, args, value.op.derivatives), value.shape)


@before_repeating.refuses(f32[3])
def _(x: Value) -> Iterator[Any]:
    yield exp(x)


@on(Map)
def simpler_together(value: Value) -> Value | None:
    """Two elementwise ops as one where that takes fewer operations on tensors than both."""
    if not is_plain(value):
        return None
    for i, inner in enumerate(value.args):
        if not is_plain(inner) or inner.rank < value.rank or inner.dtype is not value.dtype:
            continue
        args, order = joined_arguments(value.args, i)
        bodies = body_of(value), len(value.args), i, body_of(inner)
        outer_cost, inner_cost, together = costs(*bodies, order, kinds_of(args))
        if outer_cost + inner_cost > LIMIT:
            continue
        if together < outer_cost + (inner_cost if uses(inner) == 1 else 0):
            body, args = inlined(body_of(value), value.args, i)
            joined = over(body, args, value)
            if joined is not None:
                return joined
    return None


@simpler_together.refuses(f32[2, 3], f32[3], f64[2, 3])
def _(x: Value, row: Value, wide: Value) -> Iterator[Any]:
    yield Map(sympy_functions.exp(placeholder(0)), 1, (sp.S.One,))(x)
    yield x + exp(row)  # the row is smaller
    yield cast(wide * 2, f32) * 2
    yield exp(x) * 2  # as many operations together
    long = Map(sp.Add(*(sympy_functions.exp(i * placeholder(0)) for i in range(1, LIMIT))), 1)
    yield long(x) * 2


@on(Map)
def chosen_first(value: Value) -> Value | None:
    """`a·where(c, b, 0)` is `where(c, a·b, 0)`: no product with a mask, which is NaN at ∞·0."""
    if not is_plain(value):
        return None
    body = _chosen_first(body_of(value))
    return None if body == body_of(value) else over(body, value.args, value)


@chosen_first.refuses(f32[3], f32[3])
def _(x: Value, y: Value) -> Iterator[Any]:
    yield Map(sympy_functions.exp(placeholder(0)), 1, (sp.S.One,))(x)
    yield x * y
    yield x * elementwise.where(y > 0, y, 1)


@functools.lru_cache(maxsize=16384)
def _chosen_first(body: sp.Expr) -> sp.Expr:
    if not body.is_Mul:
        return body
    for factor in body.args:
        if isinstance(factor, where) and factor.args[2] == 0:
            condition, branch, zero = factor.args
            return where(condition, branch * (body / factor), zero)
    return body


@rule(f32[1, 3], (2, 3), (0,), False)
def sum_of_repeated(
    x: Value, shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool
) -> Steps:
    """A sum of what is repeated is one of what is there, as often as it is repeated."""
    before = Sum(axes, keepdims)(Expand(shape)(x))
    yield before
    lead = len(shape) - x.rank
    source = (1,) * lead + x.shape
    repeated = [i for i in axes if is_one(source[i]) and not is_one(shape[i])]
    if made_by(shape[i] for i in repeated):
        return "the number of repetitions depends on data"
    rest = tuple(i - lead for i in axes if not is_one(source[i]))
    small = cast(x, before.dtype)
    total = Sum(rest, True)(small) if rest else small
    left = [i for i in range(lead, len(shape)) if keepdims or i not in axes]
    total = reshape(total, [1 if i in axes else source[i] for i in left])
    if repeated:
        total = total * size_value(product(shape[i] for i in repeated), before.dtype)
    yield broadcast_to(total, before.shape)


@sum_of_repeated.refuses(f32[5], boolean[5], f32[1])
def _(x: Value, mask: Value, single: Value) -> Iterator[Any]:
    yield broadcast_to(single, nonzero(mask)[0].shape).sum()


@on(Sum)
def sum_of_one(value: Value) -> Value | None:
    """A sum over axes of size one is the elements themselves."""
    (x,) = value.args
    if not isinstance(value.op, Sum) or not all(is_one(x.shape[i]) for i in value.op.axes):
        return None
    return reshape(cast(x, value.dtype), value.shape)


@sum_of_one.refuses(f32[2, 1])
def _(x: Value) -> Iterator[Any]:
    yield x.sum()
    yield x.sum(0)


@rule(f32[2, 1], (2,), (0,), False)
def sum_of_reshaped(
    x: Value, shape: tuple[Dim, ...], axes: tuple[int, ...], keepdims: bool
) -> Steps:
    """The sum of all elements does not ask for their shape."""
    before = Sum(axes, keepdims)(Reshape(shape)(x))
    yield before
    if len(axes) != len(shape):
        return "the sum is over some axes only"
    yield reshape(Sum(tuple(range(x.rank)))(x), before.shape)


@sum_of_reshaped.refuses(f32[4])
def _(x: Value) -> Iterator[Any]:
    yield x.reshape((2, 2)).sum(1)


@rule(f32[2, 3, 4], (0,), (1,), True, False)
def sum_of_sum(
    x: Value, outer: tuple[int, ...], inner: tuple[int, ...], outer_keep: bool, inner_keep: bool
) -> Steps:
    """Sums over some axes and then over others are one sum."""
    yield Sum(outer, outer_keep)(Sum(inner, inner_keep)(x))
    if outer_keep is not inner_keep:
        return "one of the sums keeps its axes, the other does not"
    left = list(range(x.rank)) if inner_keep else [i for i in range(x.rank) if i not in inner]
    axes = {*inner, *(left[i] for i in outer)}
    yield Sum(tuple(sorted(axes)), inner_keep)(x)


@sum_of_sum.refuses(f32[2, 3, 4])
def _(x: Value) -> Iterator[Any]:
    yield x.sum(1, keepdims=True).sum(0)
    yield x.sum(1).sum(0, keepdims=True)


@on(Sum)
def sum_of_scaled(value: Value) -> Value | None:
    """Σ c·x is c·Σ x, for a scalar factor: one product instead of one an element."""
    if not isinstance(value.op, Sum) or not is_plain(value.args[0]) or uses(value.args[0]) != 1:
        return None
    inner = value.args[0]
    body = body_of(inner)
    for i, x in enumerate(inner.args):
        if x.type != inner.type or not x.dtype.is_float:
            continue
        split = terms(body, i)
        if split is None or split[1] != 0 or split[0] == 1:
            continue
        if any(a.rank for j, a in enumerate(inner.args) if split[0].has(placeholder(j))):
            continue
        args = (*inner.args, value.op(x))
        return over(split[0] * placeholder(len(inner.args)), args, value)
    return None


@sum_of_scaled.refuses(f32[3], f32[3], f32[()], i64[3])
def _(x: Value, y: Value, c: Value, n: Value) -> Iterator[Any]:
    yield x.sum()
    yield Map(sympy_functions.exp(placeholder(0)), 1, (sp.S.One,))(x).sum()
    yield (c * x).sum(), c * x
    yield (x * y).sum()  # both factors have axes
    yield (c * x + 1).sum()
    yield (x * x).sum()
    yield (n * 2).sum()
