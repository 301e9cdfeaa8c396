"""Products of products in the order that takes fewer multiplications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from nncompile.ir.graph import Graph
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul

_PRODUCTS = (Gemm, MatMul)

Factor = tuple[Value, bool]  # a matrix, and whether it is transposed


def chains(graph: Graph) -> Graph:
    """Multiplies (a·b)·c as a·(b·c) where that is less work at every size: the gradient of a
    low-rank change A·B of a weight is xᵀ·(g·Bᵀ), and the gradient of the weight itself, xᵀ·g, is
    not computed.

    Only where nothing else needs a·b. Sizes that only the data tell may be any.
    """
    products = graph.of_class(*_PRODUCTS)
    multiplied = {a for v in products for a in v.args if isinstance(a.op, _PRODUCTS)}
    if not multiplied:
        return graph
    results = set(graph.outputs.values())
    inner_of: dict[Value, Value] = {}
    for inner in products:
        if inner not in multiplied or inner in results:
            continue
        if not _is_product(inner) or len(inner.args) > 2:
            continue
        outer = graph.readers[inner]
        free = inner not in inner_of and not any(v in inner_of for v in outer)
        if free and all(_multiplies(v, inner) for v in outer) and _pays(inner, outer):
            inner_of |= dict.fromkeys(outer, inner)
    if not inner_of:
        return graph
    new: dict[Value, Value] = {}

    def make(v: Value, args: list[Value]) -> Value:
        new[v] = _reassociated(v, inner_of[v], new) if v in inner_of else rebuilt(v, args)
        return new[v]

    return graph.mapped(lambda outputs: transformed(outputs, make))


def _is_product(v: Value) -> bool:
    return isinstance(v.op, _PRODUCTS) and v.dtype.is_float and all(a.rank == 2 for a in v.args[:2])


def _multiplies(v: Value, inner: Value) -> bool:
    """Whether `v` is a product of `inner` and something else."""
    if not _is_product(v):
        return False
    first, *rest = (a is inner for a in v.args)
    return first + sum(rest) == 1 and not any(rest[1:])


def _factors(product: Value) -> tuple[Factor, Factor]:
    a, b = product.args[:2]
    if isinstance(product.op, Gemm):
        return (a, product.op.transpose_a), (b, product.op.transpose_b)
    return (a, False), (b, False)


def _chain(outer: Value, inner: Value) -> tuple[list[Factor], bool]:
    """The three matrices in their order, and whether the first two are those of `inner`."""
    left, right = _factors(outer)
    is_first = left[0] is inner
    a, b = _factors(inner)
    if (left if is_first else right)[1]:  # (a·b)ᵀ = bᵀ·aᵀ
        a, b = (b[0], not b[1]), (a[0], not a[1])
    return ([a, b, right] if is_first else [left, a, b]), is_first


def _sizes(factors: Sequence[Factor]) -> list[Any]:
    """The rows of the first matrix, and the columns of each."""
    shapes = [x.shape[::-1] if transposed else x.shape for x, transposed in factors]
    return [shapes[0][0], *(columns for _, columns in shapes)]


def _pays(inner: Value, outer: Sequence[Value]) -> bool:
    """Whether the other order takes fewer multiplications, whatever the symbolic sizes are."""
    rows, depth, columns = _sizes(_factors(inner))
    savings = sp.sympify(rows * depth * columns)
    for v in outer:
        factors, is_first = _chain(v, inner)
        a, b, c, d = _sizes(factors)
        # Products of a·b by b·c by c·d: from the left, and from the right.
        left, right = a * b * c + a * c * d, b * c * d + a * b * d
        savings += (left - a * b * c) - right if is_first else (right - b * c * d) - left
    terms = sp.expand(savings).as_coefficients_dict().values()
    return any(n > 0 for n in terms) and all(n >= 0 for n in terms)


def _reassociated(outer: Value, inner: Value, new: dict[Value, Value]) -> Value:
    factors, is_first = _chain(outer, inner)
    a, b, c = ((new[x], transposed) for x, transposed in factors)
    rest = [new[x] for x in outer.args[2:]]
    alpha = outer.op.alpha if isinstance(outer.op, Gemm) else 1.0
    beta = outer.op.beta if isinstance(outer.op, Gemm) else 1.0
    alpha *= inner.op.alpha if isinstance(inner.op, Gemm) else 1.0
    first, last = (a, (_product(b, c), False)) if is_first else ((_product(a, b), False), c)
    return apply(Gemm(first[1], last[1], alpha, beta), first[0], last[0], *rest)


def _product(a: Factor, b: Factor) -> Value:
    return apply(Gemm(a[1], b[1]), a[0], b[0])
