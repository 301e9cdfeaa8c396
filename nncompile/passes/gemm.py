"""Matrix products that take what follows them along: biases, factors, whole updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy as sp

from nncompile.elementwise import exp, sympy_functions, where
from nncompile.elementwise.map import Map, mapped, over
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import SizeOf, const, size_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Shape, product, substitute, symbols
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32, f64, i64
from nncompile.ops.contraction.gemm import Gemm, gemm
from nncompile.ops.contraction.matmul import MatMul, matmul
from nncompile.ops.reduction.sums import Sum
from nncompile.passes.maps import number_of, terms
from nncompile.passes.rewriter import Changes, Steps, on, rule, rules, uses

_DOWN_THE_ROWS = Sum((0,))
USUAL = 64  # what a symbolic size is taken for where the smaller of two tensors is chosen


@rules
def gemms() -> Changes:
    """A matrix product and the bias added to it are one gemm."""
    return [add_into_product]


@rule(f32[2, 3], f32[3, 4], f32[4])
def add_into_product(a: Value, b: Value, c: Value) -> Steps:
    """a @ b + c is one gemm."""
    product_ = a @ b
    yield product_ + c
    if a.rank != 2 or b.rank != 2:
        return "a gemm multiplies matrices"
    if uses(product_) != 1:
        return "the product is also used without the sum"
    if c.rank > 2 or c.dtype is not product_.dtype or not c.dtype.is_float:
        return f"{c.type} does not fit into a gemm of {product_.type}"
    yield gemm(a, b, c)


@add_into_product.refuses(
    f32[2, 3], f32[3, 4], f32[4], f32[5, 2, 3], f32[5, 2, 4], i64[2, 2], i64[2]
)
def _(a: Value, b: Value, c: Value, stack: Value, high: Value, n: Value, m: Value) -> Iterator[Any]:
    yield stack @ b + c
    yield a @ b + c, a @ b
    yield a @ b + high
    yield n @ n + m


@rules
def updates() -> Changes:
    """Factors and sums move into the matrix product before them: W − η·XᵀG is one gemm.

    A factor that is a number becomes α or β; one that is a value scales the smaller factor of the
    product. A sum down the rows is a product, too: b − η·ΣG is b + (−η … −η)·G. Only where the
    product or the sum itself is not needed.
    """
    return [linear_in_product, scaled_addend, linear_in_sum]


@on(Map)
def linear_in_product(value: Value) -> Value | None:
    """`p·(a·b) + q` as a gemm, `p` a scalar and `q` any expression that fits."""
    if not isinstance(value.op, Map) or not value.dtype.is_float:
        return None
    for i, inner in enumerate(value.args):
        if not _is_product(inner) or uses(inner) != 1 or inner.type != value.type:
            continue
        split = terms(value.op.body, i)
        if split is None:
            continue
        addends = [a for j, a in enumerate(value.args) if j != i]
        if any(a.dtype is not value.dtype for a in addends):
            continue
        result = _with_terms(value, inner, *split)
        if result is not None:
            return result
    return None


@linear_in_product.refuses(f32[2, 2], f32[2, 2], f32[3, 2, 2], f64[2, 2], f32[2, 2], i64[2, 2])
def _(a: Value, b: Value, stack: Value, wide: Value, q: Value, n: Value) -> Iterator[Any]:
    yield n @ n + n
    yield a + b
    yield 2 * (stack @ b) + stack
    yield 2 * (a @ b), a @ b
    yield (a @ b) + stack
    yield exp(a @ b)
    yield (a @ b) * q  # no scalar factor
    yield gemm(a, b, q) + b  # which has an addend already
    yield a @ b + 1
    yield where(n > 0, a @ b, 0)
    branch = sympy_functions.where(sympy_functions.less(0, placeholder(1)), placeholder(2), 0)
    yield mapped(placeholder(0) + branch, (a @ b, n, q))


@on(Map)
def linear_in_sum(value: Value) -> Value | None:
    """`p·Σ rows of x + q` as a vector times a matrix, `p` a scalar."""
    if not isinstance(value.op, Map) or not value.dtype.is_float:
        return None
    for i, inner in enumerate(value.args):
        if not isinstance(inner.op, Sum) or inner.op != _DOWN_THE_ROWS:
            continue
        if uses(inner) != 1 or inner.type != value.type:
            continue
        (x,) = inner.args
        split = terms(value.op.body, i)
        if split is None or x.rank != 2 or x.dtype is not value.dtype:
            continue
        factor, rest = split
        if factor == 1 or not _has_no_axes(factor, value) or _is_of_sizes(factor, value):
            continue
        number = number_of(factor)
        scale = mapped(factor, value.args) if number is None else const(number, x.dtype)
        if scale.dtype is not x.dtype:
            continue
        scaled = matmul(broadcast_to(scale, x.shape[:1]), x)
        if rest == 0:
            return scaled
        if over(rest, value.args, value) is not None:
            last = placeholder(len(value.args))
            return mapped(rest + last, (*value.args, scaled))
    return None


@linear_in_sum.refuses(f32["n", 2], f32[2], f32[()], i64["n", 2], f32["n", 2, 2])
def _(x: Value, q: Value, c: Value, n: Value, stack: Value) -> Iterator[Any]:
    yield 2 * n.sum(0)
    yield 2 * q
    yield 2 * x.sum(1)
    yield 2 * x.sum(0), x.sum(0)
    yield exp(x.sum(0))
    yield 2 * stack.sum(0)
    yield x.sum(0) + q
    yield q * x.sum(0)
    yield x.mean(0)  # of no rows it is 0/0, and a product of none is 0
    yield c / size_value(x.shape[0], f32) * x.sum(0)
    yield mapped(placeholder(0) * placeholder(1), (x.sum(0), const(2, i64)))


def _is_product(value: Value) -> bool:
    return isinstance(value.op, MatMul | Gemm) and all(a.rank == 2 for a in value.args[:2])


def _with_terms(value: Value, inner: Value, factor: sp.Expr, rest: sp.Expr) -> Value | None:
    op = inner.op if isinstance(inner.op, Gemm) else Gemm()
    a, b, *c = inner.args
    if c and rest != 0:
        return None
    number = number_of(factor)
    if number is None:
        if c or not _has_no_axes(factor, value):
            return None
        a, b = _scaled(a, b, mapped(factor, value.args))
        number = 1.0
    beta = op.beta * number
    if rest != 0:
        beta, addend = _addend(rest, value)
        if addend is None:
            return None
        c = [addend]
    return apply(
        Gemm(op.transpose_a, op.transpose_b, op.alpha * number, beta if c else 1.0), a, b, *c
    )


def _is_of_sizes(body: sp.Expr, value: Value) -> bool:
    """Whether it divides by a size: the mean of no rows is 0/0, and the sum of no products 0."""
    values = [a for i, a in enumerate(value.args) if body.has(placeholder(i))]
    for a in values:  # which grows
        values += a.args if isinstance(a.op, Map) else ()
    return any(isinstance(a.op, SizeOf) for a in values)


def _has_no_axes(body: sp.Expr, value: Value) -> bool:
    return all(a.rank == 0 for i, a in enumerate(value.args) if body.has(placeholder(i)))


def _addend(rest: sp.Expr, value: Value) -> tuple[float, Value | None]:
    """The expression as β and a value."""
    coefficient, body = rest.as_coeff_Mul()
    number = number_of(coefficient)
    if number is None or not any(body.has(placeholder(i)) for i in range(len(value.args))):
        return 1.0, None
    if body.is_Symbol:
        return number, mapped(body, value.args)
    return 1.0, mapped(rest, value.args)


def _scaled(a: Value, b: Value, factor: Value) -> tuple[Value, Value]:
    if _extent(a.shape) < _extent(b.shape):
        return a * factor, b
    return a, b * factor


def _extent(shape: Shape) -> Any:
    return substitute(product(shape), dict.fromkeys(symbols(shape), USUAL))


@on(Gemm)
def scaled_addend(value: Value) -> Value | None:
    """A gemm whose addend is a number times a value: the number is β."""
    if not isinstance(value.op, Gemm) or len(value.args) != 3:
        return None
    a, b, c = value.args
    if not isinstance(c.op, Map) or c.op.count != 1:
        return None
    split = terms(c.op.body, 0)
    number = None if split is None or split[1] != 0 else number_of(split[0])
    if number is None or c.args[0].type != c.type:
        return None
    op = value.op
    beta = op.beta * number
    return apply(Gemm(op.transpose_a, op.transpose_b, op.alpha, beta), a, b, c.args[0])


@scaled_addend.refuses(f32[2, 2], f32[2, 2], f32[2, 2])
def _(a: Value, b: Value, c: Value) -> Iterator[Any]:
    yield gemm(a, b)
    yield gemm(a, b, c)
    yield gemm(a, b, c * a)
    yield gemm(a, b, exp(c))
    yield gemm(a, b, 2 * c + 1)
