"""The table of onnxruntime's kernels is true of this version: each operator is loaded and run on
each element type that the table gives it, and gives what it gives in 64 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from nncompile.backends.onnx.kernels import ELEMENT_TYPES, KERNELS
from nncompile.ir.types import DTYPES, Array, DType, dtype_of, f32, f64, i32, i64, u64
from nncompile.runtime.buffers import run_bound
from tests.case_names import case_named
from tests.sessions import plain_session

Make = Callable[[DType], Array]


def x(*shape: int) -> Make:
    """Small numbers that every type has."""
    return lambda dtype: (np.arange(np.prod(shape)) % 3 + 1).reshape(shape).astype(dtype.numpy)


def ints(*numbers: int, shape: tuple[int, ...] | None = None) -> Array:
    return np.array(numbers, np.int64).reshape(shape or len(numbers))


ROW = np.zeros((1, 3), np.int64)
SAMPLE = (x(4, 3), ints(1, shape=(1, 1)), x(1, 3))
TWO = ["Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min"]
ORDER = ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"]
BITS = ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]
ONE = ["Identity", "Flatten", "Shape", "Size", "Abs", "Sign", "Neg", "Relu"]
TOLD = ["IsNaN", "IsInf", "BitwiseNot", "Cast", "NonZero"]
REDUCED = [name for name in KERNELS if name.startswith("Reduce")]
# Inputs, of which functions are of the type, and attributes.
EXAMPLES: dict[str, tuple[tuple[Make | Array | str, ...], dict[str, Any]]] = {
    **dict.fromkeys((*TWO, *ORDER, *BITS), ((x(2, 3), x(3)), {})),
    **dict.fromkeys((*ONE, *TOLD), ((x(2, 3),), {})),
    **dict.fromkeys(REDUCED, ((x(2, 3), ints(1)), {})),
    **dict.fromkeys(("ArgMax", "ArgMin"), ((x(2, 3),), {"axis": 1})),
    "Mod": ((x(2, 3), x(3)), {"fmod": 1}),
    "BitShift": ((x(3), x(3)), {"direction": "LEFT"}),
    "Reshape": ((x(2, 3), ints(3, 2)), {}),
    "Transpose": ((x(2, 3),), {"perm": [1, 0]}),
    "Squeeze": ((x(1, 3), ints(0)), {}),
    "Unsqueeze": ((x(3), ints(0)), {}),
    "Concat": ((x(2, 3), x(2, 3)), {"axis": 0}),
    "Split": ((x(2, 4), ints(2, 2)), {"axis": 1}),
    "Slice": ((x(2, 4), ints(0), ints(2), ints(1), ints(1)), {}),
    "Gather": ((x(4, 3), ints(0, 2)), {}),
    "GatherElements": ((x(2, 3), np.zeros((2, 3), np.int64)), {"axis": 1}),
    "GatherND": ((x(2, 3), ints(0, 1, shape=(1, 2))), {}),
    "ScatterElements": ((x(2, 3), ROW, x(1, 3)), {"axis": 0}),
    "ScatterND": (SAMPLE, {}),
    "Expand": ((x(1, 3), ints(2, 3)), {}),
    "Tile": ((x(2, 3), ints(2, 1)), {}),
    "ReverseSequence": ((x(3, 2), ints(1, 2)), {"batch_axis": 1, "time_axis": 0}),
    "Compress": ((x(2, 3), np.array([True, False])), {"axis": 0}),
    "Pad": ((x(2, 3), ints(0, 1, 0, 1), x()), {}),
    "CenterCropPad": ((x(3, 3), ints(2, 2)), {"axes": [0, 1]}),
    "Clip": ((x(2, 3), x(), x()), {}),
    "Where": ((np.array([True, False, True]), x(2, 3), x(3)), {}),
    "MatMul": ((x(2, 3), x(3, 2)), {}),
    "Gemm": ((x(2, 3), x(3, 2), x(2)), {}),
    "CumSum": ((x(2, 3), np.array(1, np.int64)), {}),
    "TopK": ((x(2, 3), ints(2)), {}),
    "Einsum": ((x(2, 3), x(3, 2)), {"equation": "ij,jk->ik"}),
    "MaxPool": ((x(1, 2, 4, 4),), {"kernel_shape": [2, 2]}),
    "Resize": ((x(1, 1, 2, 2), "", np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}),
    "Trilu": ((x(3, 3),), {}),
    "OneHot": ((ints(0, 2), ints(3), x(2)), {"axis": -1}),
    "Unique": ((x(6),), {}),
    "DepthToSpace": ((x(1, 4, 2, 2),), {"blocksize": 2}),
    "SpaceToDepth": ((x(1, 1, 4, 4),), {"blocksize": 2}),
    "QuantizeLinear": ((x(2, 3), np.float32(0.5), np.int8(1)), {}),
    "DequantizeLinear": ((x(2, 3), np.float32(0.5)), {}),
    "Range": ((lambda d: np.array(1, d.numpy), x(), x()), {}),
}
# Graphs within; the tests of scans run them.
WITHIN = ("If", "Loop", "Scan")
OUTPUTS = {"Split": 2, "TopK": 2}


@pytest.mark.parametrize("name", [name for name in KERNELS if name not in WITHIN])
def test_the_kernels_of_the_table(name: str) -> None:
    for dtype in DTYPES:
        if dtype in KERNELS[name]:
            with case_named(f"{name} of {dtype}"):
                check_kernel(name, dtype)


def check_kernel(name: str, dtype: DType) -> None:
    wide = dtype if dtype.is_bool else u64 if name == "BitShift" else f64
    if wide is f64 and (f64 not in KERNELS[name] or name in BITS):
        wide = next((t for t in (i64, f32, i32) if t in KERNELS[name]), f32)
    found, expected = run(name, dtype), run(name, wide)
    for a, b in zip(found, expected, strict=True):
        assert dtype_of(a) in (dtype, dtype_of(b))
        np.testing.assert_array_equal(a, b.astype(a.dtype))


def run(name: str, dtype: DType) -> list[Array]:
    """The results of one node of that operator on numbers of that type."""
    operator, _, reduction = name.partition(":")
    given, attributes = EXAMPLES[operator]
    attributes = attributes | ({"reduction": reduction} if reduction else {})
    if operator == "Mod" and dtype.is_integer:
        attributes = {}
    if operator == "Cast":
        attributes = {"to": ELEMENT_TYPES["float32"]}
    feeds = {}
    for i, value in enumerate(given):
        if not isinstance(value, str):
            feeds[f"i{i}"] = value(dtype) if callable(value) else value
    inputs = [f"i{i}" if f"i{i}" in feeds else "" for i in range(len(given))]
    outputs = [f"o{i}" for i in range(OUTPUTS.get(operator, 1))]
    node = helper.make_node(operator, inputs, outputs, **attributes)
    infos = [
        helper.make_tensor_value_info(
            n, ELEMENT_TYPES[dtype_of(a).name], [f"{n}_{k}" for k in range(a.ndim)]
        )
        for n, a in feeds.items()
    ]
    graph = helper.make_graph([node], name, infos, [onnx.ValueInfoProto(name=o) for o in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return run_bound(plain_session(model), feeds, outputs)
