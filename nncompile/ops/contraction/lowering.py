"""Products of matrices in ONNX: as onnxruntime's kernels get them right, and of many elements."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from nncompile.ir.dims import Dim, is_one
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import Type, f64
from nncompile.ops.core.long_sums import PRODUCT_BLOCK, ROW_BLOCK, double_total, stack_of_blocks


def matrix_products(o: OnnxEmitter, a: str, b: str, sizes: Sequence[Dim], stacked: bool) -> str:
    """a·b in ONNX, of matrices of so many rows, elements to sum, and columns.

    Joined with a transposition, onnxruntime's kernel of stacks of matrices writes one of the
    products of nothing; where that moves the first axis, no rows or columns end the process. Before
    1.24 there is no joined kernel of float64, and yet they are joined.
    """
    if o.type.dtype is f64:
        a, b = (o.apart(x, "Transpose", static=True) for x in (a, b))
    rows, inner, columns = (sp.sympify(size).is_positive is True for size in sizes)
    if stacked:
        a, b = (
            o.apart(x, "Transpose") if not inner or (o.moves_first(x) and not has_elements) else x
            for x, has_elements in ((a, rows), (b, columns))
        )
    return o.MatMul(a, b)


def long_product(
    o: OnnxEmitter,
    a: str,
    b: str,
    left: Type,
    right: Type,
    transposed: tuple[bool, bool] = (False, False),
) -> str:
    """a·b of float32 matrices or stacks of them, each `transposed` or not, with many elements to
    sum: the products of blocks are added up."""
    rows = left.shape[-1 if transposed[0] else -2]
    columns = right.shape[-2 if transposed[1] else -1]
    size = ROW_BLOCK if is_one(rows) or is_one(columns) else PRODUCT_BLOCK
    a = stack_of_blocks(o, a, left.shape, not transposed[0], size, to_last=True)
    b = stack_of_blocks(o, b, right.shape, transposed[1], size, to_last=False)
    products = matrix_products(o, a, b, (rows, size, columns), True)
    return double_total(o, products, [max(left.rank, right.rank) - 2])
