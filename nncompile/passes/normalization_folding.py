"""Products that take along what each channel of their results is multiplied by and what is added
to it: batch normalization by running statistics is of that form (B. Jacob et al., "Quantization
and training of neural networks for efficient integer-arithmetic-only inference", 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sympy as sp

from nncompile.elementwise import abs, sign
from nncompile.elementwise.map import Map, body_of, is_plain, mapped
from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import is_one
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value, apply
from nncompile.ir.types import i32
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.convolve import Conv, ConvTranspose
from nncompile.ops.quantization.linear import Dequantize
from nncompile.ops.random.generator import seed_leaf, step_leaf
from nncompile.ops.shape.reshape import reshape
from nncompile.passes.maps import number_of, terms
from nncompile.passes.rewriter import on, rewrite, uses


def fold_normalization(graph: Graph) -> Graph:
    """`(x·W + b)·f + c` is `x·(W·f) + (b·f + c)`, and convolutions likewise, where f and c are one
    number for each channel of the result and, as the weights, follow from no data.

    The work on weights would be done at every run: `bake` does it once, where they are known.
    """
    is_fixed = fixed()

    @on(Map)
    def into_weights(value: Value) -> Value | None:
        chain = _chain(value, is_fixed)
        return None if chain is None else _folded(*chain)

    return rewrite(graph, [into_weights])


def fixed() -> Callable[[Value], bool]:
    """A function that says whether a value follows from weights alone: not from data, nor from the
    seed and the step. What is made of integers again is left to the runtime, so that these are
    stored. It remembers what it has seen."""
    known = {seed_leaf(): False, step_leaf(): False}

    def is_fixed(value: Value) -> bool:
        stack = [value]
        while stack:
            v = stack.pop()
            missing = [a for a in v.args if a not in known]
            if v in known:
                continue
            if missing:
                stack += (v, *missing)
            elif isinstance(v.op, Input):
                known[v] = v.op.kind != "input"
            else:
                known[v] = type(v.op) is not Dequantize and all(known[a] for a in v.args)
        return known[value]

    return is_fixed


_LONGEST = 64  # steps after a product


@dataclass(frozen=True)
class _Step:
    """`value` is `factor·x + addend` of x, one of its arguments."""

    value: Value
    factor: sp.Expr
    addend: sp.Expr

    def operand(self, body: sp.Expr) -> Value:
        """The factor or the addend as a value."""
        number = number_of(body)
        if number is not None:
            return const(number, self.value.dtype)
        return mapped(body, self.value.args)


def _chain(value: Value, is_fixed: Callable[[Value], bool]) -> tuple[Value, list[_Step]] | None:
    """The product whose result is multiplied and added to up to `value`, by one number for each
    channel that follows from weights alone, and the steps of that in order; None where there is no
    such product, where what lies between is needed elsewhere, and for a sum alone."""
    steps: list[_Step] = []
    operands: list[Value] = []
    v = value
    while is_plain(v):
        if len(steps) == _LONGEST:
            return None
        changing = [i for i, a in enumerate(v.args) if not is_fixed(a)]
        split = terms(body_of(v), changing[0]) if len(changing) == 1 else None
        if split is None:
            return None
        x = v.args[changing[0]]
        if x.type != v.type or uses(x) != 1 or any(a.dtype is not v.dtype for a in v.args):
            return None
        operands += (a for a in v.args if a is not x)
        steps.append(_Step(v, *split))
        v = x
    shape = _channel_shape(v, is_fixed)
    if shape is None or not steps:
        return None
    if len(steps) == 1 and steps[0].factor == 1 and not isinstance(v.op, Conv):
        return None  # the bias of a product, which is not part of it
    return (v, steps[::-1]) if all(_is_by_channel(a, shape) for a in operands) else None


def _channel_shape(v: Value, is_fixed: Callable[[Value], bool]) -> tuple[int, ...] | None:
    """The shape of one number for each channel of a product with weights, as it broadcasts to the
    result; None for what is no such product."""
    match v.op:
        case MatMul():
            axis = v.rank - 1
            fits = v.args[1].rank == 2
        case Gemm() | Conv():
            axis, fits = 1, True
        case ConvTranspose():
            axis, fits = 1, isinstance(v.args[1].shape[0], int)
        case _:
            return None

    def is_weight(a: Value) -> bool:
        return is_fixed(a) or (isinstance(a.op, Dequantize) and all(map(is_fixed, a.args)))

    channels = v.shape[axis] if fits and all(map(is_weight, v.args[1:])) else None
    if not isinstance(channels, int) or not v.dtype.is_float:
        return None
    return tuple(channels if i == axis else 1 for i in range(v.rank))


def _is_by_channel(a: Value, shape: tuple[int, ...]) -> bool:
    """Whether the value broadcasts to that shape."""
    aligned = (1,) * (len(shape) - a.rank) + a.shape
    return all(is_one(d) or d == size for d, size in zip(aligned, shape, strict=True))


def _folded(product: Value, steps: list[_Step]) -> Value:
    """The product with other weights, plus what is added to it."""
    factor: Value | None = None
    addend: Value | None = None
    for step in steps:
        if step.factor != 1:
            scale = step.operand(step.factor)
            factor = scale if factor is None else factor * scale
            addend = None if addend is None else addend * scale
        if step.addend != 0:
            plus = step.operand(step.addend)
            addend = plus if addend is None else addend + plus
    if factor is not None:
        product = _multiplied(product, _by_channel(factor, product))
    if addend is None:
        return product
    plus = _by_channel(addend, product)
    if isinstance(product.op, Conv):
        x, w, *bias = product.args
        return apply(product.op, x, w, bias[0] + plus if bias else plus)
    spatial = (1,) * (product.rank - 2) if isinstance(product.op, ConvTranspose) else ()
    return product + reshape(plus, (*plus.shape, *spatial))


def _by_channel(x: Value, product: Value) -> Value:
    """A factor or an addend as a vector of one number for each channel."""
    shape = _channel_shape(product, lambda _: True)
    assert shape is not None  # it was one when the chain was found
    vector = (math.prod(shape),)
    return x if x.shape == vector else reshape(broadcast_to(x, shape), vector)


def _multiplied(product: Value, factor: Value) -> Value:
    """The product times one number for each channel, by way of its weights."""
    x, w, *rest = product.args
    match product.op:
        case MatMul() | Gemm(transpose_b=False):
            w = _along(w, factor, w.rank - 1)
        case Gemm() | Conv():
            w = _along(w, factor, 0)
        case ConvTranspose(groups=groups):
            # w[channels, results/groups, *kernel]: the rows of one group make its own results.
            channels, results, *kernel = w.shape
            by_group = reshape(factor, (groups, 1, results, *(1,) * len(kernel)))
            grouped = reshape(w, (groups, channels // groups, results, *kernel))
            w = reshape(grouped * by_group, w.shape)
    return apply(product.op, x, w, *(b * factor for b in rest))


def _along(w: Value, factor: Value, axis: int) -> Value:
    """The weight times one number for each index along an axis. One of integers has other scales,
    which are not negative, and so may have integers of the other sign."""
    if not isinstance(w.op, Dequantize):
        return w * reshape(factor, (*factor.shape, *(1,) * (w.rank - axis - 1)))
    q, scale, _ = w.args
    signs = cast(reshape(sign(factor), (*factor.shape, *(1,) * (w.rank - axis - 1))), i32)
    turned = cast(cast(q, i32) * signs, q.dtype)
    zeros = const(np.zeros(factor.shape, q.dtype.numpy))
    return Dequantize(axis)(turned, broadcast_to(abs(factor) * scale, factor.shape), zeros)
