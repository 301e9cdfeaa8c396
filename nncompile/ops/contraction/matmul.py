"""Matrix products: `a @ b` of any rank, and `gemm`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.basic import as_value, cast
from nncompile.ir.broadcasting import fit, unbroadcast
from nncompile.ir.dims import Dim, broadcast, is_one, product, same, same_shape
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, DType, Type, f32, f64, i32, i64, is_float32, promote, u32
from nncompile.ops.core.long_sums import (
    COLUMN,
    DOWN,
    PRODUCT_BLOCK,
    PRODUCTS,
    ROW_BLOCK,
    double_total,
    stack_of_blocks,
)
from nncompile.ops.shape.reshape import reshape, swapaxes


def element_type(a: Type, b: Type) -> DType:
    """The element type of a product. Raises `DTypeError` for different types or booleans."""
    if a.dtype is not b.dtype:
        raise DTypeError(f"element types differ, {a.dtype} ≠ {b.dtype}")
    if a.dtype.is_bool:
        raise DTypeError(
            "booleans have no products or sums", hint="x.astype(f32) turns them into 0 and 1"
        )
    return a.dtype


def _check_inner(a: Dim, b: Dim) -> None:
    """The sizes that are summed over must be the same."""
    answer = same(a, b)
    if answer is False:
        raise ShapeError(f"inner sizes differ, {a} ≠ {b}")
    if answer is None:
        raise ShapeError(
            f"cannot tell whether the inner sizes {a} and {b} are equal",
            hint="give both axes the same name, or write one size in terms of the other",
        )


def wrapped(t: TorchEmitter, x: str, dtype: DType) -> str:
    """A result that torch carries in a wider type, wrapped to its own."""
    return t.wrapped(x, dtype)


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
        _check_inner(left.shape[-1], right.shape[-2 if right.rank > 1 else -1])
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

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        a, b = types
        rank = self.infer(a, b).rank
        left, right = (
            None if p is None else p - t.rank for p, t in zip(places, types, strict=True)
        )
        if left is not None and right is not None:  # a leading axis of both
            is_leading = left == right and left < -2 and min(a.rank, b.rank) > 2
            return int(rank + left) if is_leading else None
        place, own, other = (left, a, b) if left is not None else (right, b, a)
        if place is None or place == (-1 if own is a else -2) or own.rank < 2 or other.rank < 2:
            return None  # summed over; vectors are left out
        if place < -2 and other.rank >= -place and not is_one(other.shape[place]):
            return None
        return int(rank + place)

    def numpy(self, a: Array, b: Array) -> Array:
        return a @ b

    def onnx(self, o: OnnxEmitter, a: str, b: str) -> str:
        if o.type.dtype is not f32:
            return self._product(o, a, b)
        left, right = o.types
        limit = _most(left, right)

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
        vectors = [place for place, t in ((-2, left), (-1, right)) if t.rank == 1]
        leading = broadcast(left.shape[:-2], right.shape[:-2])
        if left.rank == 1:
            a, left = o.Unsqueeze(a, o.ints([0])), left.with_shape((1, *left.shape))
        if right.rank == 1:
            b = o.Unsqueeze(b, o.ints([1]))
        if left.shape[:-2] != leading:
            a = o.Expand(a, o.shape((*leading, *left.shape[-2:])))
        sizes = (*left.shape[-2:], 1 if -1 in vectors else right.shape[-1])
        product = matrix_products(o, a, b, sizes, len(leading) > 0)
        axes = [len(leading) + 2 + place for place in vectors]
        return o.Squeeze(product, o.ints(axes)) if axes else product

    def torch(self, t: TorchEmitter, a: str, b: str) -> str:
        left, right = t.types
        limit = _most(left, right) if t.type.dtype is f32 else None
        y = t.in_double(left.shape[-1], limit, "torch.matmul", [a, b])
        return wrapped(t, y, t.type.dtype)

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


def _most(left: Type, right: Type) -> int:
    """How many elements one product of float32 may sum."""
    return DOWN if left.rank == 1 else COLUMN if right.rank == 1 else PRODUCTS


def _exactly(o: OnnxEmitter, x: str, factor: float) -> tuple[str, float]:
    """A float64 matrix and its factor, which is multiplied in where it is no float32."""
    if is_float32(factor):
        return x, factor
    return o.Mul(x, o.factor(o.scalar(factor, f64))), 1.0


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
            o.apart(x, "Transpose") if not inner or (o.moves_first(x) and not some) else x
            for x, some in ((a, rows), (b, columns))
        )
    return o.MatMul(a, b)


def long_product(
    o: OnnxEmitter,
    a: str,
    b: str,
    left: Type,
    right: Type,
    turned: tuple[bool, bool] = (False, False),
) -> str:
    """a·b of float32 matrices or stacks of them, `turned` or not, with many elements to sum: the
    products of blocks are added up."""
    rows = left.shape[-1 if turned[0] else -2]
    columns = right.shape[-2 if turned[1] else -1]
    size = ROW_BLOCK if is_one(rows) or is_one(columns) else PRODUCT_BLOCK
    a = stack_of_blocks(o, a, left.rank, not turned[0], size, to_last=True)
    b = stack_of_blocks(o, b, right.rank, turned[1], size, to_last=False)
    products = matrix_products(o, a, b, (rows, size, columns), True)
    return double_total(o, products, [max(left.rank, right.rank) - 2])


class Gemm(Op):
    """α·a·b + β·c of matrices, each of `a` and `b` transposed if asked for, and of any `c` that
    broadcasts to the result (or none).

    With an inner size of zero (an empty batch) onnxruntime takes β for 1: the runner refuses such.
    """

    transpose_a: bool = False
    transpose_b: bool = False
    alpha: float = 1.0
    beta: float = 1.0

    def infer(self, a: Type, b: Type, c: Type | None = None) -> Type:
        dtype = element_type(a, b)
        if not dtype.is_float or (c is not None and c.dtype is not dtype):
            raise DTypeError(
                "elements must be real and of the same type",
                hint="x.astype(f32) converts integers, a @ b multiplies them",
            )
        if a.rank != 2 or b.rank != 2:
            raise ShapeError(f"needs matrices, got ranks {a.rank} and {b.rank}", hint="use a @ b")
        (rows, inner), (other, columns) = a.shape, b.shape
        if self.transpose_a:
            rows, inner = inner, rows
        if self.transpose_b:
            other, columns = columns, other
        _check_inner(inner, other)
        shape = rows, columns
        if c is not None and same_shape(broadcast(c.shape, shape), shape) is not True:
            raise ShapeError(f"{c} does not broadcast to [{rows}, {columns}]")
        return Type(dtype, shape)

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        a, b, *c = args
        alpha = self.alpha
        if self.transpose_a:
            gradient_a = gemm(b, g, transpose_a=self.transpose_b, transpose_b=True, alpha=alpha)
        else:
            gradient_a = gemm(g, b, transpose_b=not self.transpose_b, alpha=alpha)
        if self.transpose_b:
            gradient_b = gemm(g, a, transpose_a=True, transpose_b=self.transpose_a, alpha=alpha)
        else:
            gradient_b = gemm(a, g, transpose_a=not self.transpose_a, alpha=alpha)
        gradients_c = [unbroadcast(g, x) for x in c]
        return (
            gradient_a,
            gradient_b,
            *(s if self.beta == 1 else s * self.beta for s in gradients_c),
        )

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        left, right, *added = places
        rows, columns = int(self.transpose_a), 1 - int(self.transpose_b)
        axis = (
            0 if (left, right) == (rows, None) else 1 if (left, right) == (None, columns) else None
        )
        if axis is None or not added:
            return axis
        c, place = types[2], added[0]
        if place is None:  # the same for all rows
            return axis if c.rank < 2 - axis or is_one(c.shape[axis - 2]) else None
        return axis if place - c.rank == axis - 2 else None

    def numpy(self, a: Array, b: Array, *c: Array) -> Array:
        product_ = (a.T if self.transpose_a else a) @ (b.T if self.transpose_b else b)
        result = self.alpha * product_
        for x in c:
            result = result + self.beta * x
        return result

    def onnx(self, o: OnnxEmitter, a: str, b: str, *c: str) -> str:
        if o.type.dtype is not f32:
            return self._gemm(o, a, b, *c)

        def few(o: OnnxEmitter) -> str:
            return self._gemm(o, a, b, *c)

        def many(o: OnnxEmitter) -> str:
            return self._long_gemm(o, a, b, *c)

        inner = o.types[0].shape[0 if self.transpose_a else 1]
        return o.by_size(inner, PRODUCTS, few, many, o.type)

    def _gemm(self, o: OnnxEmitter, a: str, b: str, *c: str) -> str:
        alpha, beta = self.alpha, self.beta
        if o.type.dtype is f64:  # attributes are float32
            a, alpha = _exactly(o, a, alpha)
            scaled = [_exactly(o, x, beta) for x in c]
            c, beta = tuple(x for x, _ in scaled), scaled[0][1] if scaled else beta
        return o.Gemm(
            a,
            b,
            *c,
            alpha=alpha,
            beta=beta,
            transA=int(self.transpose_a),
            transB=int(self.transpose_b),
        )

    def _long_gemm(self, o: OnnxEmitter, a: str, b: str, *c: str) -> str:
        left, right = o.types[:2]
        y = long_product(o, a, b, left, right, (self.transpose_a, self.transpose_b))
        y = y if self.alpha == 1 else o.Mul(y, o.scalar(self.alpha, f32))
        for x in c:
            y = o.Add(y, x if self.beta == 1 else o.Mul(x, o.scalar(self.beta, f32)))
        return y

    def torch(self, t: TorchEmitter, a: str, b: str, *c: str) -> str:
        left = t.call("torch.t", a) if self.transpose_a else a
        right = t.call("torch.t", b) if self.transpose_b else b
        inner = t.types[0].shape[0 if self.transpose_a else 1]
        limit = PRODUCTS if t.type.dtype is f32 else None
        if c:
            factors = {"beta": self.beta, "alpha": self.alpha}
            written = {name: x for name, x in factors.items() if x != 1}
            return t.in_double(inner, limit, "torch.addmm", [*c, left, right], **written)
        y = t.in_double(inner, limit, "torch.matmul", [left, right])
        return y if self.alpha == 1 else t.call("torch.mul", y, self.alpha)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "k"], f32["k", "m"]))
        yield Sample(cls(True, False, 0.5), (f32["k", "n"], f32["k", 3], f32[3]))
        yield Sample(cls(False, True, 2.0, -1.0), (f32["n", 2], f32["m", 2], f32["n", 1]))
        yield Sample(cls(True, True, 1.5, 0.5), (f32[3, "n"], f32["m", 3], f32["n", "m"]))
        yield Sample(cls(), (f32["n", 2], f32[2, 3], f32[()]))
        yield Sample(cls(False, False, 1.0, 3.0), (f64[2, 2], f64[2, "m"], f64[1, "m"]))


def promoted(*operands: Any) -> list[Value]:
    """The operands as values of one element type."""
    like = next((x for x in operands if isinstance(x, Value)), None)
    values = [as_value(x, like) for x in operands]
    dtype = functools.reduce(promote, (v.dtype for v in values))
    return [cast(v, dtype) for v in values]


def matmul(a: Any, b: Any) -> Value:
    """numpy's `a @ b`: `[…, n, k] @ […, k, m]` is `[…, n, m]`, the leading axes broadcast, and a
    vector is a row on the left and a column on the right.

    Raises `ShapeError` where the inner sizes differ or may differ, and for numbers.
    """
    a, b = promoted(a, b)
    if a.rank and b.rank:
        inner = -min(2, b.rank)
        a, b = fit(a, -1, b.shape[inner]), fit(b, inner, a.shape[-1])
    return MatMul()(a, b)


def gemm(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Value:
    """α·a·b + β·c of two real matrices, each transposed if asked for, and of any `c` that
    broadcasts to the result.

    Raises `ShapeError` where the sizes do not fit and `DTypeError` for integers.
    """
    op = Gemm(bool(transpose_a), bool(transpose_b), float(alpha), 1.0 if c is None else float(beta))
    return op(*promoted(a, b, *(() if c is None else (c,))))


register("matmul", matmul)
