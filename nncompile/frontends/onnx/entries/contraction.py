"""Sums of products."""

from __future__ import annotations

from typing import Any

from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const
from nncompile.ir.op import Value
from nncompile.ir.types import f64, i32, i64
from nncompile.ops.contraction.einsum import einsum
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.linear_algebra.determinants import det
from nncompile.ops.shape.reshape import expand_dims, swapaxes


@imports("MatMul")
def _matmul(n: Node, a: Value, b: Value) -> Any:
    return product_of(a, b)


def product_of(a: Value, b: Value) -> Value:
    """The matrix product; of integers as wrapping as ONNX's."""
    if a.dtype.is_float:
        return matmul(a, b)
    dtype = a.dtype
    return cast(matmul(cast(a, i64), cast(b, i64)), dtype)


@imports("Gemm")
def _gemm(n: Node, a: Value, b: Value, c: Value | None = None) -> Any:
    transposed = bool(n["transA"]), bool(n["transB"])
    if a.dtype.is_float:
        return gemm(a, b, c, transpose_a=transposed[0], transpose_b=transposed[1],
                    alpha=n["alpha"], beta=n["beta"])  # fmt: skip
    left, right = (
        swapaxes(x, 0, 1) if flag else x for x, flag in zip((a, b), transposed, strict=True)
    )
    y = cast(product_of(left, right), f64) * n["alpha"]
    return cast(y if c is None else y + cast(c, f64) * n["beta"], a.dtype)


@imports("Einsum")
def _einsum(n: Node, *xs: Value) -> Any:
    dtype = xs[0].dtype
    operands = xs if dtype.is_float else [cast(x, i64) for x in xs]
    return cast(einsum(n["equation"].replace(" ", ""), *operands), dtype)


@imports("Det")
def _det(n: Node, x: Value) -> Any:
    return det(x)


@imports("MatMulInteger")
def _matmul_integer(
    n: Node, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None
) -> Any:
    left, right = cast(a, i32), cast(b, i32)
    if a_zero is not None:
        zero = cast(a_zero, i32)
        left = left - (expand_dims(zero, -1) if zero.rank else zero)
    if b_zero is not None:
        right = right - cast(b_zero, i32)
    return product_of(left, right)


@imports("FusedMatMul", domain="com.microsoft")
def _fused_matmul(n: Node, a: Value, b: Value) -> Any:
    if n["transBatchA"] or n["transBatchB"]:
        raise Refused("batches that are transposed")
    a = swapaxes(a, -1, -2) if n["transA"] else a
    b = swapaxes(b, -1, -2) if n["transB"] else b
    alpha = 1.0 if n["alpha"] is None else n["alpha"]
    return matmul(a, b) * const(alpha, a.dtype)
