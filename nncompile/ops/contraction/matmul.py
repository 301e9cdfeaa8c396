"""Matrix products as `a @ b`, of any rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.broadcasting import fit, unbroadcast
from nncompile.ir.dims import Dim, broadcast, is_one, product
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64, i32, i64, u32
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.contraction.lowering import long_product, matrix_products
from nncompile.ops.contraction.operands import check_inner, element_type, promoted
from nncompile.ops.core.long_sums import COLUMN, DOWN, PRODUCTS
from nncompile.ops.shape.reshape import reshape, swapaxes


class MatMul(Op):
    """numpy's `a @ b`: rows by columns over the last two axes, the axes before them broadcast; a
    vector is a row on the left and a column on the right. u32 wraps round.

    onnxruntime refuses leading axes of size zero that others broadcast to.
    """

    label = "matmul"

    def infer(self, left: Type, right: Type) -> Type:
        dtype = element_type(left, right)
        if not left.rank or not right.rank:
            raise ShapeError("a scalar has no rows or columns", hint="`*` multiplies by a number")
        check_inner(left.shape[-1], right.shape[-2 if right.rank > 1 else -1])
        rows, columns = left.shape[-2:-1], right.shape[-1:] if right.rank > 1 else ()
        return Type(dtype, (*broadcast(left.shape[:-2], right.shape[:-2]), *rows, *columns))

    def pullback(self, g: Value, y: Value, a: Value, b: Value) -> Sequence[Value | None]:
        if not y.dtype.is_float:
            return (None, None)
        left = a if a.rank > 1 else reshape(a, (1, *a.shape))
        right = b if b.rank > 1 else reshape(b, (*b.shape, 1))
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        above = reshape(g, (*broadcast(left.shape[:-2], right.shape[:-2]), rows, columns))
        if right.rank == 2:  # one matrix for all of the left: its gradient is one product
            count = product(left.shape[:-1])
            flat, top = reshape(left, (count, inner)), reshape(above, (count, columns))
            gradients = gemm(top, right, transpose_b=True), gemm(flat, top, transpose_a=True)
        else:
            gradients = (
                matmul(above, swapaxes(right, -1, -2)),
                matmul(swapaxes(left, -1, -2), above),
            )
            gradients = unbroadcast(gradients[0], left), unbroadcast(gradients[1], right)
        return reshape(gradients[0], a.shape), reshape(gradients[1], b.shape)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        a, b = types
        rank = self.infer(a, b).rank
        left, right = (
            None if p is None else p - t.rank for p, t in zip(row_axes, types, strict=True)
        )
        if left is not None and right is not None:  # a leading axis of both
            is_leading = left == right and left < -2 and min(a.rank, b.rank) > 2
            return int(rank + left) if is_leading else None
        axis, t, other = (left, a, b) if left is not None else (right, b, a)
        if axis is None or axis == (-1 if t is a else -2) or t.rank < 2 or other.rank < 2:
            return None  # summed over; vectors are left out
        if axis < -2 and other.rank >= -axis and not is_one(other.shape[axis]):
            return None
        return int(rank + axis)

    def numpy(self, a: Array, b: Array) -> Array:
        return a @ b

    def onnx(self, o: OnnxEmitter, a: str, b: str) -> str:
        if o.type.dtype is not f32:
            return self._product(o, a, b)
        left, right = o.types
        limit = _products_limit(left, right)

        def few(o: OnnxEmitter) -> str:
            return self._product(o, a, b)

        def many(o: OnnxEmitter) -> str:
            return self._long_product(o, a, b)

        return o.by_size(left.shape[-1], limit, few, many, o.type)

    def _long_product(self, o: OnnxEmitter, a: str, b: str) -> str:
        left, right = o.types
        axes = [-1] if right.rank == 1 else []
        if left.rank == 1:
            a, left = o.Unsqueeze(a, o.ints([0])), left.with_shape((1, *left.shape))
            axes.insert(0, -2)
        if right.rank == 1:
            b, right = o.Unsqueeze(b, o.ints([1])), right.with_shape((*right.shape, 1))
        y = long_product(o, a, b, left, right)
        return o.Squeeze(y, o.ints(axes)) if axes else y

    def _product(self, o: OnnxEmitter, a: str, b: str) -> str:
        left, right = o.types
        if sp.sympify(left.shape[-1]).is_positive:
            rows, columns = (1, *left.shape)[-2], right.shape[-1]
            stacked = max(left.rank, right.rank) > 2
            return matrix_products(o, a, b, (rows, left.shape[-1], columns), stacked)
        # Without elements to sum, kernels write all matrices, and in their right shape, only where
        # both are matrices, the left ones have all leading axes, and no transposition is joined in.
        vectors = [axis for axis, t in ((-2, left), (-1, right)) if t.rank == 1]
        leading = broadcast(left.shape[:-2], right.shape[:-2])
        if left.rank == 1:
            a, left = o.Unsqueeze(a, o.ints([0])), left.with_shape((1, *left.shape))
        if right.rank == 1:
            b = o.Unsqueeze(b, o.ints([1]))
        if left.shape[:-2] != leading:
            a = o.Expand(a, o.shape((*leading, *left.shape[-2:])))
        sizes = (*left.shape[-2:], 1 if -1 in vectors else right.shape[-1])
        product = matrix_products(o, a, b, sizes, len(leading) > 0)
        axes = [len(leading) + 2 + axis for axis in vectors]
        return o.Squeeze(product, o.ints(axes)) if axes else product

    def torch(self, t: TorchEmitter, a: str, b: str) -> str:
        left, right = t.types
        limit = _products_limit(left, right) if t.type.dtype is f32 else None
        y = t.in_double(left.shape[-1], limit, "torch.matmul", [a, b])
        return t.wrapped(y, t.type.dtype)

    def macs(self, result: Type, left: Type, right: Type) -> Dim:
        return product((*result.shape, left.shape[-1]))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        shapes: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = [
            ((2, 3), (3, 4)),
            (("n", "k"), ("k", "m")),
            (("b", "n", 3), (3, 2)),
            ((3, 2), ("b+1", 2, "n")),
            (("b", "n", 2), ("b", 2, 3)),
            (("b+1", 1, "n", 2), (3, 2, "m")),
            ((3,), (3,)),
            (("k",), ("k", 2)),
            ((2, "k"), ("k",)),
            (("k",), ("b+1", "k", 3)),
            (("b", 2, "k"), ("k",)),
            # Without elements to sum there are several matrices to write.
            ((2, "k"), (3, "k", 2)),
            (("k",), (3, "k", 2)),
            ((3, 1, 2, "k"), (2, "k", 2)),
        ]
        for left, right in shapes:
            yield Sample(cls(), (f32[left], f32[right]))
        for dtype in (f64, i64, i32):
            yield Sample(cls(), (dtype["n", "k"], dtype["k", 3]), integers=(-9, 9))
        yield Sample(cls(), (u32["n", "k"], u32["k", 3]), integers=(0, 2**32))


def _products_limit(left: Type, right: Type) -> int:
    """How many elements one product of float32 may sum."""
    return DOWN if left.rank == 1 else COLUMN if right.rank == 1 else PRODUCTS


@suggests_names
def matmul(a: Any, b: Any) -> Value:
    """numpy's `a @ b`: `[…, n, k] @ […, k, m]` is `[…, n, m]`, the leading axes broadcast, and a
    vector is a row on the left and a column on the right.

    Raises `ShapeError` where the inner sizes differ or may differ, and for numbers.
    """
    a, b = promoted(a, b)
    if a.rank and b.rank:
        inner = -min(2, b.rank)
        a, b = fit(a, -1, b.shape[inner]), fit(b, inner, a.shape[-1])
    return _PRODUCT(a, b)


_PRODUCT = MatMul()  # one op for all, which finds out its digest once

register("matmul", matmul)
