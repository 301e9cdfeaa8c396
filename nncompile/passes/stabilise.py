"""Naive spellings that overflow, in the forms that do not.

Within one formula they are recognised while it is traced; these rules see across values. They
belong before differentiation, too: the slope of a naive spelling is as unstable as itself.
"""

from __future__ import annotations

import functools

import sympy as sp

from nncompile.dims import is_one
from nncompile.elementwise import log, subtract
from nncompile.formula import Map, mapped
from nncompile.graph import Graph, Value
from nncompile.ops.reduce import LogSumExp, Sum
from nncompile.ops.softmax import LogSoftmax, Softmax
from nncompile.passes.layout import kept_axes
from nncompile.passes.maps import body_of, inlined, is_plain, over
from nncompile.rewrite import Steps, on, rewrite, rule
from nncompile.scalars import LIMIT, operation_count, placeholder
from nncompile.scalars import stabilise as stable_form
from nncompile.scalars.heads import exp as exponential
from nncompile.types import f32

DEEPEST = 4  # elementwise ops that are read as one formula: 1/(1 + e⁻ˣ) is written in four steps


def stabilise(graph: Graph) -> Graph:
    """Writes log∘softmax, log Σ eˣ, eˣ/Σ eˣ, log(1 + eˣ), 1/(1 + e⁻ˣ) and their like, spelled out
    in several values, in forms that stay finite."""
    return rewrite(
        graph,
        [
            kept_axes,
            log_of_softmax,
            share_of_sum,
            log_of_sum,
            less_logsumexp,
            shifted_softmax,
            shifted_log_softmax,
            stable_together,
        ],
    )


def _exponent(e: Value) -> Value | None:
    """The value whose exponential `e` is; None where it is none."""
    if not is_plain(e) or not isinstance(body_of(e), exponential):
        return None
    return mapped(body_of(e).args[0], e.args)


@rule(f32[2, 3], 1)
def log_of_softmax(x: Value, axis: int) -> Steps:
    yield log(Softmax(axis)(x))
    yield LogSoftmax(axis)(x)


@rule(f32[2, 3], (1,))
def share_of_sum(e: Value, axes: tuple[int, ...]) -> Steps:
    """eˣ/Σ eˣ is a softmax."""
    yield e / Sum(axes, True)(e)
    x = _exponent(e)
    if x is None:
        return "it is not an exponential"
    if len(axes) != 1:
        return "a softmax is along one axis"
    if x.type != e.type:
        return "the exponent has another shape"
    yield Softmax(axes[0])(x)


@rule(f32[2, 3], (1,), True)
def log_of_sum(e: Value, axes: tuple[int, ...], keepdims: bool) -> Steps:
    yield log(Sum(axes, keepdims)(e))
    x = _exponent(e)
    if x is None:
        return "it is not a sum of exponentials"
    if x.type != e.type:
        return "the exponent has another shape"
    yield LogSumExp(axes, keepdims)(x)


@rule(f32[2, 3], (1,))
def less_logsumexp(x: Value, axes: tuple[int, ...]) -> Steps:
    yield subtract(x, LogSumExp(axes, True)(x))
    if len(axes) != 1:
        return "a log-softmax is along one axis"
    yield LogSoftmax(axes[0])(x)


@rule(f32[2, 3], f32[2, 1], 1)
def shifted_softmax(x: Value, shift: Value, axis: int) -> Steps:
    """A softmax keeps its value where all along its axis is shifted by the same."""
    yield Softmax(axis)(subtract(x, shift))
    if not _is_constant_along(shift, x, axis):
        return "the shift differs along the axis"
    yield Softmax(axis)(x)


@rule(f32[2, 3], f32[2, 1], 1)
def shifted_log_softmax(x: Value, shift: Value, axis: int) -> Steps:
    yield LogSoftmax(axis)(subtract(x, shift))
    if not _is_constant_along(shift, x, axis):
        return "the shift differs along the axis"
    yield LogSoftmax(axis)(x)


def _is_constant_along(shift: Value, x: Value, axis: int) -> bool:
    place = axis - x.rank + shift.rank
    return shift.rank <= x.rank and (place < 0 or is_one(shift.shape[place]))


@on(Map)
def stable_together(value: Value) -> Value | None:
    """Elementwise ops that are a naive spelling when they are read as one formula; left alone
    where they are not."""
    if not is_plain(value) or not value.dtype.is_float:
        return None
    body, args = body_of(value), value.args
    for _ in range(DEEPEST - 1):
        free = body.free_symbols
        inner = [i for i, a in enumerate(args) if placeholder(i) in free and is_plain(a)]
        inner = [i for i in inner if args[i].dtype is value.dtype]
        for i in inner:
            body, args = inlined(body, args, i)
        if not inner or operation_count(body) > LIMIT:
            return None
        found = _stabilised(body)
        if found is not None:
            return over(found, args, value)
    return None


@functools.lru_cache(maxsize=16384)
def _stabilised(body: sp.Expr) -> sp.Expr | None:
    """The stable form of a body, where it has one that is no longer."""
    stable = stable_form(body)
    changed = stable != body and operation_count(stable) <= operation_count(body)
    return stable if changed else None
