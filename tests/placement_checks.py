"""Whether models are computed on CUDA as a whole, by the table of its kernels."""

from __future__ import annotations

import onnx

from nncompile.runtime.cuda.placement import predicted
from nncompile.runtime.cuda.spelling import spelled
from nncompile.runtime.cuda.spellings import SPELLINGS

_BITS = "CUDA has no kernels of bits; arithmetic of two that are data takes nodes for each bit"
# The operators that stay on the CPU, of which element types, and why.
ALLOWED = {
    "BitwiseAnd": ("i8 u8 i16 u16 i32 u32 i64 u64", _BITS),
    "BitwiseOr": ("i8 u8 i16 u16 i32 u32 i64 u64", _BITS),
    "BitwiseXor": ("i8 u8 i16 u16 i32 u32 i64 u64", _BITS),
    "MatMul": ("i32 i64", "CUDA multiplies no integers, and floats would round their products"),
}


def spelled_for_cuda(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model as it is computed on CUDA, where it differs; nodes of data that the CPU would
    compute for it are in the list of those allowed."""
    result, is_changed = spelled(model, SPELLINGS)
    for node in predicted(result):
        types, _ = ALLOWED.get(node.operator, ("", ""))
        assert node.types[0] in types.split(), f"{node} has no kernel on CUDA"
    return result if is_changed else None
