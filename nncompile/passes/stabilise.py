"""Naive spellings that overflow, in the forms that do not.

Within one formula they are recognised while it is traced; these rules see across values. They
belong before differentiation, too: the gradient of a naive spelling is as unstable as itself.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy as sp

from nncompile.elementwise import exp, sigmoid, sin, where
from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.map import Map, body_of, is_plain, mapped, over
from nncompile.elementwise.stable_forms import stabilise as stable_form
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import Cast
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32, i64
from nncompile.ops.reduction.operands import Reduction
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.reduction.sums import LogSumExp, Sum
from nncompile.ops.shape.moves import moved, through_moves
from nncompile.ops.shape.reshape import Reshape
from nncompile.passes.cross_entropy import cross_entropy_of_sigmoid
from nncompile.passes.joined_formulas import (
    is_harmless,
    joined_with,
    may_be_naive,
    place_of,
    written_out,
)
from nncompile.passes.rewriter import Changes, on, rules, uses
from nncompile.passes.softmaxes import less_logsumexp, shifted_log_softmax, shifted_softmax


@rules
def stabilise() -> Changes:
    """Writes log∘softmax, log Σ eˣ, eˣ/Σ eˣ, log(1 + eˣ), 1/(1 + e⁻ˣ) and their like, spelled out
    in several values, in forms that stay finite."""
    return [
        kept_axes,
        less_logsumexp,
        shifted_softmax,
        shifted_log_softmax,
        cross_entropy_of_sigmoid,  # before its logarithms are seen one by one
        stable_together,
    ]


@on(Reshape)
def kept_axes(value: Value) -> Value | None:
    """A reshape that adds or removes the reduced axes of a reduction: done by the reduction."""
    (inner,) = value.args
    if not isinstance(inner.op, Reduction):
        return None
    op: Any = inner.op
    result = apply(dataclasses.replace(op, keepdims=not op.keepdims), *inner.args)
    return result if result.type == value.type and uses(inner) == 1 else None


@kept_axes.refuses(f32[2, 3])
def _(x: Value) -> Iterator[Any]:
    yield x.reshape((3, 2))
    yield x.sum(1).reshape((1, 2))
    yield x.sum(1).reshape((2, 1)), x.sum(1)


# Sums of exponentials: eˣ/Σ eˣ is a softmax, and the logarithms of Σ eˣ and of a softmax are ops of
# their own. Other factors beside them stay: log(Σ eˣ/n) is log Σ eˣ − log n.


def _everywhere(body: sp.Expr, change: Callable[[sp.Expr], sp.Expr]) -> sp.Expr:
    """The body with every part changed, inner ones first."""
    if not body.args:
        return body
    parts = [_everywhere(x, change) for x in body.args]
    same = all(a is b for a, b in zip(parts, body.args, strict=True))
    return change(body if same else body.func(*parts))


def _of_sums(x: sp.Expr, args: list[Value], known: Mapping[sp.Expr, Value]) -> sp.Expr:
    """One node of a body over `args`, which grow by what it comes to need; `known` are the values
    that parts of the body are."""
    if isinstance(x, h.log | h.log1p):
        named = _of_moved(x, args)
        if named is not None:
            return named
    if isinstance(x, h.log):
        return _of_logarithm(x, args, known)
    return _of_product(x, args, known) if x.is_Mul else x


def _of_logarithm(x: sp.Expr, args: list[Value], known: Mapping[sp.Expr, Value]) -> sp.Expr:
    """The logarithm of a product, of which some factors have one that is stable."""
    terms, unstable = [], []
    for factor in sp.Mul.make_args(x.args[0]):
        base, power = factor.as_base_exp() if factor.is_Pow else (factor, 1)
        logarithm = _logarithm(_value_of(base, args, known))
        if logarithm is None:
            unstable.append(factor)
        else:
            terms.append(power * _named(logarithm, args))
    if not terms:
        return x
    rest = sp.Mul(*unstable)
    if rest != 1:
        inverse = rest.is_Pow and rest.exp == -1
        terms.append(-h.log(rest.base) if inverse else h.log(rest))
    return sp.Add(*terms)


def _of_product(x: sp.Expr, args: list[Value], known: Mapping[sp.Expr, Value]) -> sp.Expr:
    """A product in which something is divided by a sum that it is a term of."""
    for below in x.args:
        total = _value_of(below.base, args, known) if below.is_Pow and below.exp == -1 else None
        for above in x.args if total is not None else ():
            share = _share(_value_of(above, args, known), total)
            if share is not None:
                return x / below / above * _named(share, args)
    return x


def _value_of(x: sp.Expr, args: Sequence[Value], known: Mapping[sp.Expr, Value]) -> Value | None:
    """The value that a part of a body is: an argument, a known one, or an exponential."""
    if x.is_Symbol:
        return next(a for i, a in enumerate(args) if placeholder(i) == x)
    if x in known:
        return known[x]
    return mapped(x, args) if isinstance(x, h.exp) and x.free_symbols else None


def _named(value: Value, args: list[Value]) -> sp.Symbol:
    args.append(value)
    return placeholder(len(args) - 1)


def _exponent(e: Value) -> Value | None:
    """The value whose exponential `e` is; None where it is none, or of another type."""
    if not is_plain(e) or not isinstance(body_of(e), h.exp):
        return None
    x = mapped(body_of(e).args[0], e.args)
    return x if x.type == e.type else None


def _of_moved(x: sp.Expr, args: list[Value]) -> sp.Expr | None:
    """A logarithm of one argument, which holds elements of others that have stable logarithms:
    those are taken first, and then moved. None for others."""
    if len(x.free_symbols) != 1:
        return None
    (symbol,) = x.free_symbols
    value = args[place_of(symbol)]
    if not moved(value):
        return None
    body, stable_parts = x.xreplace({symbol: placeholder(0)}), []

    def logarithm(source: Value) -> Value | None:
        plain = mapped(body, [source])
        if plain.type != source.type:
            return None
        stable = stable_together(plain)
        if stable is None:
            return plain
        stable_parts.append(stable)
        return stable

    result = through_moves(value, logarithm)
    return _named(result, args) if result is not None and stable_parts else None


def _logarithm(value: Value | None) -> Value | None:
    """The logarithm of a softmax or of a sum of exponentials, or of some elements of one; None for
    others."""
    return None if value is None else through_moves(value, _logarithm_of_all)


def _logarithm_of_all(value: Value) -> Value | None:
    if isinstance(value.op, Softmax):
        return LogSoftmax(value.op.axis)(*value.args)
    if not isinstance(value.op, Sum):
        return None
    total = LogSumExp(value.op.axes, value.op.keepdims)
    x = _exponent(value.args[0])
    if x is None:
        x = _logarithm_where(value.args[0])
    return None if x is None else total(x)


def _logarithm_where(product: Value) -> Value | None:
    """The logarithm of probabilities of which those that a one-hot tensor leaves out are 0;
    None for others."""
    if not is_plain(product) or len(product.args) != 2:
        return None
    for i, (mask, p) in enumerate((product.args, product.args[::-1])):
        if body_of(product) == h.where(placeholder(i), placeholder(1 - i), 0):
            condition = mask
        elif body_of(product) == placeholder(0) * placeholder(1) and isinstance(mask.op, Cast):
            condition = mask.args[0]
        else:
            continue
        x = _logarithm(p) if condition.dtype.is_bool else None
        if x is not None:
            result = where(condition, x, -math.inf)
            return result if result.type == product.type else None
    return None


def _share(e: Value | None, total: Value | None) -> Value | None:
    """e/total as a softmax, where that is the sum of all exponentials along one axis."""
    if e is None or total is None or not isinstance(total.op, Sum) or total.args[0] is not e:
        return None
    x = _exponent(e) if total.op.keepdims and len(total.op.axes) == 1 else None
    return None if x is None else Softmax(total.op.axes[0])(x)


# Elementwise ops.


@on(Map)
def stable_together(value: Value) -> Value | None:
    """Elementwise ops that are a naive spelling when they are read as one formula; left alone
    where they are not. What the stable form keeps of them stays a value of its own."""
    if not is_plain(value) or not value.dtype.is_float or is_harmless(value):
        return None
    inner = joined_with(value)
    if inner is None or not may_be_naive(body_of(value), inner):
        return None
    body, args, bodies = written_out(value, inner)
    known = {part: v for v, part in bodies.items()}
    stable = body
    if any(isinstance(a.op, (Sum, Softmax)) or moved(a) for a in args):
        stable = _everywhere(body, lambda x: _of_sums(x, args, known))
    stable = _stable(stable)
    if stable == body:
        return None
    for v, part in reversed(bodies.items()):  # outer ones first: they hold the inner ones
        if stable.has(part):
            args.append(v)
            stable = stable.xreplace({part: placeholder(len(args) - 1)})
    return over(stable, args, value)


@stable_together.refuses(f32[3], i64[3])
def _(x: Value, n: Value) -> Iterator[Any]:
    yield Map(h.exp(placeholder(0)), 1, (sp.S.One,))(x)
    yield n + 1
    yield x + 1
    yield exp(x)
    yield sin(exp(x))  # no sine is looked through
    yield 3 * sigmoid(x) - 1  # not a tanh


_stable = functools.lru_cache(maxsize=16384)(stable_form)
