"""Sums of products in 16 bits, and all else in float32: what kernels of 16 bits are fast at."""

from __future__ import annotations

from nncompile.ir.basic import cast
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.types import DType, f32
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.checks import beside_axes
from nncompile.ops.convolution.convolve import Conv, ConvTranspose, ConvWeightGradient

PRODUCTS: tuple[type[Op], ...] = (MatMul, Gemm, Einsum, Conv, ConvTranspose, ConvWeightGradient)
"""The ops that add up products: devices with kernels of 16 bits have them for these."""


def mixed_precision(graph: Graph, dtype: DType, tables: bool = False) -> Graph:
    """The graph with float32 matrix products and convolutions of arguments that are rounded to
    `dtype`, f16 or bf16, and with results that are; in the bodies of loops, too.

    What they give is float32 again at once, so biases of convolutions, norms, reductions and losses
    are computed as before. The gradient of a product is one of 16 bits, as its arguments are; at a
    parameter it arrives in float32, for an optimizer that keeps the parameter in float32.

    With `tables`, what is taken from parameters by indices is rounded, too: for files, which then
    hold these in 16 bits.
    """

    def make(value: Value, args: list[Value]) -> Value:
        op = value.op
        if isinstance(op, PRODUCTS) and value.dtype is f32:
            bias = args[2:] if isinstance(op, Conv) else []
            product = cast(op(*(cast(x, dtype) for x in args[: len(args) - len(bias)])), f32)
            return product + beside_axes(bias[0], value.rank - 2) if bias else product
        if tables and _takes_rows(value):
            return cast(op(cast(args[0], dtype), *args[1:]), f32)
        within = op.within(lambda body: mixed_precision(body, dtype))
        return rebuilt(value, args) if within is op else apply(within, *args)

    return graph.mapped(lambda outputs: transformed(outputs, make))


def _takes_rows(value: Value) -> bool:
    """Whether a value is made of elements of a parameter, by their indices."""
    op = value.op
    is_table = op.indexes and op.copies == 1 and isinstance(value.args[0].op, Input)
    return is_table and value.dtype is f32
