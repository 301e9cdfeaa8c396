"""Casts, reshapes and transposes: what only rearranges is merged, moved or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nncompile.elementwise import exp
from nncompile.elementwise.map import Map, mapped
from nncompile.ir.basic import Cast, cast
from nncompile.ir.broadcasting import Expand, broadcast_to
from nncompile.ir.dims import Dim, is_one
from nncompile.ir.op import Value, apply
from nncompile.ir.types import DType, f32, f64, holds, i64
from nncompile.ops.contraction.gemm import Gemm, gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import Reshape, Transpose, reshape, transpose
from nncompile.passes.maps import uniform
from nncompile.passes.rewriter import Changes, Steps, on, rule, rules, uses
from nncompile.passes.stabilise import kept_axes


@rules
def casts() -> Changes:
    """Converts element types once, and only where they differ."""
    return [cast_of_cast, cast_to_own_type]


@rule(f32[2], f64, i64)
def cast_of_cast(x: Value, inner: DType, outer: DType) -> Steps:
    """A conversion by way of a type that holds all of the first one's numbers is direct."""
    yield Cast(outer)(Cast(inner)(x))
    if not holds(inner, x.dtype):
        return f"{inner} does not hold every {x.dtype}"
    yield cast(x, outer)


@cast_of_cast.refuses(f64[2])
def _(x: Value) -> Iterator[Any]:
    yield Cast(f64)(Cast(f32)(x))


@on(Cast)
def cast_to_own_type(value: Value) -> Value | None:
    """A value of that type already."""
    return value.args[0] if value.args[0].dtype is value.dtype else None


@cast_to_own_type.refuses(f64[2])
def _(x: Value) -> Iterator[Any]:
    yield Cast(f32)(x)


@rules
def reshapes() -> Changes:
    """Reshapes and repeats once, and reductions keep their axes themselves."""
    return [reshape_of_reshape, expand_of_expand, of_uniform, kept_axes, unneeded_ones]


@rule(f32[2, 3], (3, 2), (6, 1))
def reshape_of_reshape(x: Value, inner: tuple[Dim, ...], outer: tuple[Dim, ...]) -> Steps:
    """Two reshapes in a row are one."""
    yield Reshape(outer)(Reshape(inner)(x))
    yield reshape(x, outer)


@rule(f32[3], (2, 3), (4, 2, 3))
def expand_of_expand(x: Value, inner: tuple[Dim, ...], outer: tuple[Dim, ...]) -> Steps:
    """Two broadcasts in a row are one."""
    yield Expand(outer)(Expand(inner)(x))
    yield broadcast_to(x, outer)


@on(Reshape, Transpose, Expand)
def of_uniform(value: Value) -> Value | None:
    """A rearrangement of equal elements: their repetition."""
    if not isinstance(value.op, Reshape | Transpose | Expand) or value.rank == 0:
        return None
    number = uniform(value.args[0])
    return None if number is None else broadcast_to(number, value.shape)


@of_uniform.refuses(f32[2, 2], f32[1])
def _(x: Value, single: Value) -> Iterator[Any]:
    yield single.reshape(())
    yield x.reshape((4,))
    yield x.T


@on(Map)
def unneeded_ones(value: Value) -> Value | None:
    """An elementwise op of arguments with leading axes of size one: it broadcasts without them."""
    if not isinstance(value.op, Map):
        return None
    args = [_without_leading_ones(a) for a in value.args]
    if all(a is b for a, b in zip(args, value.args, strict=True)):
        return None
    result = mapped(value.op.body, args, value.op.derivatives)
    return result if result.type == value.type else None


@unneeded_ones.refuses(f32[3], f32[1, 3])
def _(x: Value, row: Value) -> Iterator[Any]:
    yield x + row
    yield exp(x.reshape((1, 3)))  # whose result has the axis, too
    yield x + x.reshape((3, 1))


def _without_leading_ones(value: Value) -> Value:
    if not isinstance(value.op, Reshape | Expand):
        return value
    inner = value.args[0]
    lead = value.rank - inner.rank
    ones = lead > 0 and all(map(is_one, value.shape[:lead]))
    return inner if ones and value.shape[lead:] == inner.shape else value


@rules
def transposes() -> Changes:
    """Transposes vanish in pairs, move behind elementwise ops, and into matrix products."""
    return [
        transpose_of_transpose,
        transpose_of_ones,
        transposed_elements,
        sum_of_transpose,
        product_of_transposed,
        transpose_of_product,
    ]


@rule(f32[2, 3, 4], (0, 2, 1), (1, 0, 2))
def transpose_of_transpose(x: Value, first: tuple[int, ...], second: tuple[int, ...]) -> Steps:
    """Two transpositions in a row are one."""
    yield Transpose(second)(Transpose(first)(x))
    yield transpose(x, [first[i] for i in second])


@rule(f32[2, 1], (1, 0))
def transpose_of_ones(x: Value, axes: tuple[int, ...]) -> Steps:
    """Where only axes of size one change places the elements stay in order."""
    yield Transpose(axes)(x)
    order = [i for i in axes if not is_one(x.shape[i])]
    if order != sorted(order):
        return "the order of the elements changes"
    yield reshape(x, [x.shape[i] for i in axes])


@transpose_of_ones.refuses(f32[2, 1, 3])
def _(x: Value) -> Iterator[Any]:
    yield x.transpose((2, 1, 0))


@on(Map)
def transposed_elements(value: Value) -> Value | None:
    """An elementwise op of arguments transposed alike: transposed afterwards."""
    if not isinstance(value.op, Map):
        return None
    tensors = [a for a in value.args if a.rank]
    orders = {a.op.axes if isinstance(a.op, Transpose) else None for a in tensors}
    if len(orders) != 1 or None in orders:
        return None
    args = [a.args[0] if a.rank else a for a in value.args]
    (axes,) = orders
    return transpose(mapped(value.op.body, args, value.op.derivatives), axes)


@transposed_elements.refuses(f32[2, 3], f32[3, 2], f32[2, 3, 4], f32[4, 2, 3])
def _(x: Value, y: Value, high: Value, other: Value) -> Iterator[Any]:
    yield exp(x)
    yield x.T + y
    yield high.transpose((2, 1, 0)) + other.transpose((0, 2, 1))


@rule(f32[2, 3], (1, 0), (0,), False)
def sum_of_transpose(
    x: Value, order: tuple[int, ...], axes: tuple[int, ...], keepdims: bool
) -> Steps:
    """A sum over transposed axes is one over the axes themselves."""
    yield Sum(axes, keepdims)(Transpose(order)(x))
    over = tuple(sorted(order[i] for i in axes))
    total = Sum(over, keepdims)(x)
    left = [i for i in range(x.rank) if keepdims or i not in over]
    yield transpose(total, [left.index(i) for i in order if i in left])


@on(MatMul, Gemm)
def product_of_transposed(value: Value) -> Value | None:
    """A product of transposed matrices: a gemm that reads them so."""
    if not isinstance(value.op, MatMul | Gemm):
        return None
    a, b, *c = value.args
    flipped = [_flipped(a), _flipped(b)]
    if a.rank != 2 or b.rank != 2 or not value.dtype.is_float or not any(flipped):
        return None
    old = value.op if isinstance(value.op, Gemm) else Gemm()
    op = Gemm(
        old.transpose_a is not flipped[0], old.transpose_b is not flipped[1], old.alpha, old.beta
    )
    a, b = (x.args[0] if f else x for x, f in zip((a, b), flipped, strict=True))
    return apply(op, a, b, *c)


@product_of_transposed.refuses(f32[2, 3], f32[2, 3], f32[5, 3, 2], i64[2, 3])
def _(a: Value, b: Value, stack: Value, n: Value) -> Iterator[Any]:
    yield a @ a.reshape((3, 2))
    yield stack @ b
    yield stack @ b.reshape((3, 2)).T
    yield n @ n.T


def _flipped(x: Value) -> bool:
    return isinstance(x.op, Transpose) and x.op.axes == (1, 0)


@on(Transpose)
def transpose_of_product(value: Value) -> Value | None:
    """(a·b)ᵀ = bᵀ·aᵀ, where the product is not needed as it was."""
    if not _flipped(value) or uses(value.args[0]) != 1:
        return None
    product = value.args[0]
    if not isinstance(product.op, MatMul | Gemm) or len(product.args) != 2:
        return None
    a, b = product.args
    if a.rank != 2 or b.rank != 2 or not value.dtype.is_float:
        return None
    old = product.op if isinstance(product.op, Gemm) else Gemm()
    return apply(Gemm(not old.transpose_b, not old.transpose_a, old.alpha, old.beta), b, a)


@transpose_of_product.refuses(f32[2, 3], f32[3, 2], f32[5, 2, 3], f32[2], i64[2, 2])
def _(a: Value, b: Value, stack: Value, c: Value, n: Value) -> Iterator[Any]:
    yield (stack @ b).transpose((0, 2, 1))
    yield (a @ b).T, a @ b
    yield exp(a).T
    yield gemm(a, b, c).T
    yield (n @ n).T
