"""Products of two matrices as BLAS has them: scaled, transposed, and with a third added."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.broadcasting import unbroadcast
from nncompile.ir.dims import Dim, broadcast, is_one, product, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64, is_float32
from nncompile.ops.contraction.lowering import long_product
from nncompile.ops.contraction.operands import check_inner, element_type, promoted
from nncompile.ops.core.long_sums import PRODUCTS

# Where the native kernel is faster: from so many products of a sum on, or elements of a result.
DEEP, WIDE = 512, 2**16


class Gemm(Op, Native):
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
        check_inner(inner, other)
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
            *(g if self.beta == 1 else g * self.beta for g in gradients_c),
        )

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        left, right, *bias_axes = row_axes
        rows, columns = int(self.transpose_a), 1 - int(self.transpose_b)
        axis = (
            0 if (left, right) == (rows, None) else 1 if (left, right) == (None, columns) else None
        )
        if axis is None or not bias_axes:
            return axis
        c, bias_axis = types[2], bias_axes[0]
        if bias_axis is None:  # the same for all rows
            return axis if c.rank < 2 - axis or is_one(c.shape[axis - 2]) else None
        return axis if bias_axis - c.rank == axis - 2 else None

    def numpy(self, a: Array, b: Array, *c: Array) -> Array:
        product_ = (a.T if self.transpose_a else a) @ (b.T if self.transpose_b else b)
        result = self.alpha * product_
        for x in c:
            result = result + self.beta * x
        return result

    def native(self, a: Type, b: Type, *c: Type) -> Kernel | None:
        result = self.infer(a, b, *c)
        fits = result.dtype is f32 and all(same_shape(x.shape, result.shape) is True for x in c)
        fast = _is_deep(a.shape[0]) or _is_wide(result, with_third=bool(c))
        if not fits or not self.transpose_a or not fast:
            return None
        return Kernel(
            "Gemm",
            alpha=self.alpha,
            beta=self.beta,
            transA=int(self.transpose_a),
            transB=int(self.transpose_b),
        )

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
            options = {name: x for name, x in factors.items() if x != 1}
            return t.in_double(inner, limit, "torch.addmm", [*c, left, right], **options)
        y = t.in_double(inner, limit, "torch.matmul", [left, right])
        return y if self.alpha == 1 else t.call("torch.mul", y, self.alpha)

    def macs(self, result: Type, a: Type, *others: Type) -> Dim:
        return product((*result.shape, a.shape[0 if self.transpose_a else 1]))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "k"], f32["k", "m"]))
        yield Sample(cls(True, False, 0.5), (f32["k", "n"], f32["k", 3], f32[3]))
        yield Sample(cls(False, True, 2.0, -1.0), (f32["n", 2], f32["m", 2], f32["n", 1]))
        yield Sample(cls(True, True, 1.5, 0.5), (f32[3, "n"], f32["m", 3], f32["n", "m"]))
        yield Sample(cls(), (f32["n", 2], f32[2, 3], f32[()]))
        yield Sample(cls(False, False, 1.0, 3.0), (f64[2, 2], f64[2, "m"], f64[1, "m"]))


def _is_deep(inner: Dim) -> bool:
    """Whether a sum is long enough for the native kernel, which for that gains a tenth on
    onnxruntime's: one over more than the examples of a batch."""
    return inner >= DEEP if isinstance(inner, int) else not isinstance(inner, sp.Symbol)


def _is_wide(result: Type, with_third: bool) -> bool:
    """Whether a result is large enough for the native kernel where a sum is over the examples of a
    batch. From sixteen on that gains up to a fifth, and below it loses up to a sixth, but gains
    with a third matrix, which it adds while a part of the result is in registers."""
    elements = product(result.shape)
    return isinstance(elements, int) and elements >= (WIDE // 4 if with_third else WIDE)


def _exactly(o: OnnxEmitter, x: str, factor: float) -> tuple[str, float]:
    """A float64 matrix and its factor, which is multiplied in where float32 cannot hold it."""
    if is_float32(factor):
        return x, factor
    return o.Mul(x, o.factor(o.scalar(factor, f64))), 1.0


@suggests_names
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
    op = _PLAIN[bool(transpose_a), bool(transpose_b)]
    beta = 1.0 if c is None else float(beta)
    if alpha != 1.0 or beta != 1.0:
        op = dataclasses.replace(op, alpha=float(alpha), beta=beta)
    return op(*promoted(a, b, *(() if c is None else (c,))))


# One op for all that are so transposed, which finds out its digest once.
_PLAIN = {(a, b): Gemm(a, b) for a in (False, True) for b in (False, True)}
