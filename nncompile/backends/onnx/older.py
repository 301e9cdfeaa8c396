"""What opset 17 writes in another way than the opsets after it."""

from __future__ import annotations

import numpy as np

from nncompile.backends.onnx.kernels import ELEMENT_TYPES
from nncompile.backends.onnx.nodes import Call
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import DType, i64, u64

LAST = 17
"""The last opset that this is for."""
BITWISE = frozenset(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"))
"""The operators that it lacks."""


def older_call(o: OnnxEmitter, call: Call) -> Call:
    """The call of the same operator as opset 17 has it: reductions have axes as an attribute."""
    if not call.op_type.startswith("Reduce") or call.op_type == "ReduceSum" or len(call.inputs) < 2:
        return call
    axes = [int(axis) for axis in o.constants[call.inputs[1]]]
    return call._replace(inputs=call.inputs[:1], attributes={**call.attributes, "axes": axes})


def bit_by_bit(o: OnnxEmitter, operator: str, dtype: DType, *args: str) -> str:
    """What a bitwise operator of opset 18 gives, by arithmetic, which wraps round."""
    if operator == "BitwiseNot":
        return o.Sub(o.scalar(-1 if dtype.is_signed else np.iinfo(dtype.numpy).max, dtype), *args)
    x, y = args
    both = _common_bits(o, dtype, x, y)
    if operator == "BitwiseAnd":
        return both
    apart = both if operator == "BitwiseOr" else o.Add(both, both)
    return o.Sub(o.Add(x, y), apart)


def _common_bits(o: OnnxEmitter, dtype: DType, x: str, y: str) -> str:
    """The bits that both integers have: products of single bits, and their sum, which is a product
    of matrices as onnxruntime's sum of integers goes through float64."""
    count = 8 * dtype.numpy.itemsize
    places = o.constant(np.arange(count, dtype=np.uint64))
    bits = (
        o.Mod(o.BitShift(o.Unsqueeze(_cast(o, a, u64), o.ints([-1])), places, direction="RIGHT"),
              o.scalar(2, u64))
        for a in (x, y)
    )  # fmt: skip
    weights = o.constant((np.uint64(1) << np.arange(count, dtype=np.uint64)).astype(np.int64))
    return _cast(o, o.MatMul(_cast(o, o.Mul(*bits), i64), weights), dtype)


def _cast(o: OnnxEmitter, x: str, dtype: DType) -> str:
    return o.Cast(x, to=ELEMENT_TYPES[dtype.name])
