"""Quantized products in the forms that runtimes compute in integers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nncompile.elementwise import relu
from nncompile.ir.basic import const
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i8, u8
from nncompile.ops.quantization.linear import Dequantize, Quantize
from nncompile.ops.shape.reshape import Reshape
from nncompile.passes.normalization_folding import fixed
from nncompile.passes.rewriter import Steps, on, rewrite, rule


def integer_forms(graph: Graph) -> Graph:
    """The graph of inference in which biases of quantized dense layers are integers of the scale of
    their products, and what is quantized after a reshape is so before it, too.

    onnxruntime computes a Gemm in integers only with a bias of i32, and a convolution only where
    its result, or a ReLU of it, is quantized at once. All is as before but for the last digits of a
    bias, whose scale is far finer than that of the result. (A maximum of rounded numbers is the
    rounded maximum, but onnxruntime 1.32 crashes on a MaxPool between such pairs.)
    """
    return rewrite(graph, [bias_of_integers, quantized_before])


@rule(u8[2, 3], f32[()], u8[()], i8[3, 4], f32[4], i8[4], f32[4], 1)
def bias_of_integers(
    q: Value,
    scale: Value,
    zero: Value,
    w: Value,
    steps: Value,
    zeros: Value,
    bias: Value,
    axis: int | None,
) -> Steps:
    """The bias of a dense layer as whole numbers of the scale of its products."""
    product = Dequantize(None)(q, scale, zero) @ Dequantize(axis)(w, steps, zeros)
    yield product + bias
    if isinstance(bias.op, Dequantize) or not fixed()(bias) or bias.rank != 1:
        return "it is no bias of floats"
    both, none = scale * steps, const(np.zeros(steps.shape, np.int32))
    along = None if axis is None else 0
    yield product + Dequantize(along)(Quantize(along)(bias, both, none), both, none)


@bias_of_integers.refuses(u8[2, 3], i8[3, 4], f32[()], u8[()], f32[4], i8[4], f32[2, 4])
def _(
    q: Value, w: Value, scale: Value, zero: Value, steps: Value, zeros: Value, other: Value
) -> Iterator[Any]:
    yield Dequantize(None)(q, scale, zero) @ Dequantize(1)(w, steps, zeros) + other


@on(Quantize)
def quantized_before(value: Value) -> Value | None:
    """What is reshaped is quantized before that, too."""
    if not isinstance(value.op, Quantize) or value.op.axis is not None:
        return None
    x, *numbers = value.args
    if not isinstance(x.op, Reshape) or isinstance(x.args[0].op, Dequantize | Input):
        return None
    rounded = Dequantize(None)(value.op(x.args[0], *numbers), *numbers)
    return value.op.rebuild(x.op.rebuild(rounded), *numbers)


@quantized_before.refuses(f32[2, 3], f32[()], u8[()], f32[6], u8[6])
def _(x: Value, scale: Value, zero: Value, scales: Value, zeros: Value) -> Iterator[Any]:
    yield Quantize(None)(relu(x), scale, zero)
    yield Quantize(None)(x.reshape((6,)), scale, zero)  # of data
    yield Quantize(0)(relu(x).reshape((6,)), scales, zeros)
