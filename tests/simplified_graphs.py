"""ONNX graphs that can be of fewer nodes, and some that cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.onnx_files import FLOAT, INT64, weight

node = helper.make_node
X = {"x": (FLOAT, ["N", 4, 6])}


def ints(*numbers: int) -> Any:
    return np.asarray(numbers, np.int64)


def constant(name: str, *numbers: int) -> onnx.NodeProto:
    return node("Constant", [], [name], value=numpy_helper.from_array(ints(*numbers)))


# What is simplified: nodes, the tensors that the file stores, and the operators that are left.
FEWER: dict[str, tuple[Sequence[onnx.NodeProto], Mapping[str, Any], list[str]]] = {
    "an identity": ([node("Identity", ["x"], ["a"]), node("Relu", ["a"], ["y"])], {}, ["Relu"]),
    "a dropout": ([node("Dropout", ["x"], ["a"]), node("Relu", ["a"], ["y"])], {}, ["Relu"]),
    "a name of an output moves": (
        [node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["y"])], {}, ["Relu"],
    ),
    "nodes that nobody needs": (
        [node("Relu", ["x"], ["y"]), node("Exp", ["x"], ["b"]), node("Exp", ["b"], ["c"])],
        {}, ["Relu"],
    ),
    "nodes that compute the same": (
        [node("Exp", ["x"], ["a"]), node("Exp", ["x"], ["b"]), node("Mul", ["a", "b"], ["y"])],
        {}, ["Exp", "Mul"],
    ),
    "arithmetic of constants": (
        [node("Exp", ["w"], ["a"]), node("Neg", ["a"], ["b"]), node("Mul", ["x", "b"], ["y"])],
        {"w": weight(6)}, ["Mul"],
    ),
    "constants": ([constant("s", 0, 24), node("Reshape", ["x", "s"], ["y"])], {}, ["Reshape"]),
    "sizes of a reshape": (
        [
            node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axis"], ["n1"]), node("Concat", ["n1", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["y"]),
        ],
        {"zero": np.int64(0), "axis": ints(0), "rest": ints(24)}, ["Reshape"],
    ),
    "a slice to the end": (
        [
            node("Shape", ["x"], ["s"]), node("Slice", ["s", "zero", "one", "zero"], ["n"]),
            node("Slice", ["x", "one", "n", "zero"], ["y"]),
        ],
        {"zero": ints(0), "one": ints(1)}, ["Slice"],
    ),
    "a slice that is all": (
        [node("Slice", ["x", "zero", "end", "axis"], ["a"]), node("Relu", ["a"], ["y"])],
        {"zero": ints(0), "end": ints(100), "axis": ints(1)}, ["Relu"],
    ),
    "reshapes in a row": (
        [
            node("Unsqueeze", ["x", "axis"], ["a"]), node("Reshape", ["a", "s"], ["b"]),
            node("Flatten", ["b"], ["y"], axis=1),
        ],
        {"axis": ints(1), "s": ints(0, 2, 12)}, ["Reshape"],
    ),
    "reshapes that cancel": (
        [
            node("Unsqueeze", ["x", "axis"], ["a"]), node("Squeeze", ["a", "axis"], ["b"]),
            node("Relu", ["b"], ["y"]),
        ],
        {"axis": ints(1)}, ["Relu"],
    ),
    "transpositions in a row": (
        [node("Transpose", ["x"], ["a"], perm=[1, 0, 2]), node("Transpose", ["a"], ["y"])],
        {}, ["Transpose"],
    ),
    "transpositions that cancel": (
        [node("Transpose", ["x"], ["a"]), node("Transpose", ["a"], ["b"]),
         node("Relu", ["b"], ["y"])], {}, ["Relu"],
    ),
    "heads that are joined around a transposition": (
        [
            node("Reshape", ["x", "split"], ["a"]), node("Reshape", ["a", "join"], ["b"]),
            node("Relu", ["x"], ["r"]), node("Reshape", ["r", "joined"], ["c"]),
            node("Transpose", ["c"], ["d"], perm=[0, 2, 1]), node("Reshape", ["d", "back"], ["y"]),
        ],
        {"split": ints(0, 4, 2, 3), "join": ints(-1, 2, 3), "joined": ints(-1, 2, 3),
         "back": ints(-1, 4, 3, 2)}, ["Relu", "Reshape", "Transpose"],
    ),
    "axes that are split after a transposition": (
        [
            node("Reshape", ["x", "a"], ["b"]), node("Transpose", ["b"], ["c"], perm=[1, 0]),
            node("Reshape", ["c", "d"], ["y"]),
        ],
        {"a": ints(-1, 24), "d": ints(2, 12, -1)}, ["Reshape", "Transpose"],
    ),
    "slices that are a split": (
        [
            node("Slice", ["x", "n0", "n2", "axis"], ["a"]),
            node("Slice", ["x", "n2", "n6", "axis"], ["b"]),
            node("Exp", ["a"], ["e"]), node("Concat", ["b", "e"], ["y"], axis=2),
        ],
        {"n0": ints(0), "n2": ints(2), "n6": ints(6), "axis": ints(2)}, ["Split", "Exp", "Concat"],
    ),
    "concatenations in a row": (
        [node("Concat", ["x", "x"], ["a"], axis=1), node("Concat", ["a", "x"], ["y"], axis=1)],
        {}, ["Concat"],
    ),
    "an expansion that the operator does itself": (
        [
            node("Shape", ["x"], ["s"]), node("Expand", ["w", "s"], ["a"]),
            node("Add", ["x", "a"], ["y"]),
        ],
        {"w": weight(6)}, ["Add"],
    ),
    "casts in a row": (
        [
            node("Greater", ["x", "zero"], ["a"]), node("Cast", ["a"], ["b"], to=INT64),
            node("Cast", ["b"], ["y"], to=FLOAT),
        ],
        {"zero": np.float32(0)}, ["Greater", "Cast"],
    ),
    "factors of 1": ([node("Mul", ["x", "one"], ["a"]), node("Neg", ["a"], ["y"])],
                     {"one": np.float32(1)}, ["Neg"]),
    "sums with 0": ([node("Add", ["zero", "x"], ["a"]), node("Neg", ["a"], ["y"])],
                    {"zero": np.zeros((4, 1), np.float32)}, ["Neg"]),
    "a choice that is the same everywhere": (
        [node("Where", ["c", "x", "zero"], ["a"]), node("Neg", ["a"], ["y"])],
        {"c": np.ones(6, bool), "zero": np.float32(0)}, ["Neg"],
    ),
    "a power of 1": ([node("Pow", ["x", "one"], ["a"]), node("Neg", ["a"], ["y"])],
                     {"one": np.int64(1)}, ["Neg"]),
    "a choice by the opposite": (
        [node("Greater", ["x", "zero"], ["g"]), node("Not", ["g"], ["n"]),
         node("Where", ["n", "x", "zero"], ["y"])], {"zero": np.float32(0)}, ["Greater", "Where"],
    ),
    "a reduction of one": (
        [node("Slice", ["x", "one", "two", "one"], ["a"]), node("ReduceSum", ["a", "one"], ["b"]),
         node("Neg", ["b"], ["y"])], {"one": ints(1), "two": ints(2)}, ["Slice", "Neg"],
    ),
    "zeros around a pool that count": (
        [node("Pad", ["x", "pads"], ["a"]),
         node("AveragePool", ["a"], ["y"], kernel_shape=[3], count_include_pad=1, pads=[0, 1])],
        {"pads": ints(0, 0, 2, 0, 0, 1)}, ["AveragePool"],
    ),
    "what is no maximum around a pool": (
        [node("Pad", ["x", "pads", "least"], ["a"]),
         node("MaxPool", ["a"], ["y"], kernel_shape=[2])],
        {"pads": ints(0, 0, 1, 0, 0, 1), "least": np.float32(-np.inf)}, ["MaxPool"],
    ),
    "a product and a sum": (
        [
            node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["p"]),
            node("Add", ["b", "p"], ["y"]),
        ],
        {"w": weight(24, 5), "b": weight(5)}, ["Flatten", "Gemm"],
    ),
    "axes of a reduction": (
        [node("ReduceSum", ["x", "axis"], ["a"]), node("Squeeze", ["a", "axis"], ["b"]),
         node("Relu", ["b"], ["y"])], {"axis": ints(1)}, ["ReduceSum", "Relu"],
    ),
    "an axis that a reduction leaves out": (
        [node("ArgMax", ["x"], ["a"], axis=1, keepdims=0), node("Unsqueeze", ["a", "axis"], ["b"]),
         node("Cast", ["b"], ["y"], to=FLOAT)], {"axis": ints(1)}, ["ArgMax", "Cast"],
    ),
    "slices of other axes": (
        [node("Slice", ["x", "one", "two", "one"], ["a"]),
         node("Slice", ["a", "one", "six", "two", "two"], ["y"])],
        {"one": ints(1), "two": ints(2), "six": ints(6)}, ["Slice"],
    ),
    "a transposition of axes of one": (
        [node("Slice", ["x", "zero", "one", "one"], ["a"]),
         node("Transpose", ["a"], ["b"], perm=[1, 0, 2]), node("Squeeze", ["b", "zero"], ["y"])],
        {"zero": ints(0), "one": ints(1)}, ["Slice", "Squeeze"],
    ),
    "a function of its own results": (
        [node("Relu", ["x"], ["a"]), node("Relu", ["a"], ["y"])], {}, ["Relu"],
    ),
    "factors in a row": (
        [node("Mul", ["x", "two"], ["a"]), node("Mul", ["w", "a"], ["y"])],
        {"two": np.float32(2), "w": weight(6)}, ["Mul"],
    ),
    "batch normalization, factors and sums": (
        [
            node("BatchNormalization", ["x", "one", "w", "w", "one"], ["a"]),
            node("Mul", ["a", "c"], ["b"]), node("Add", ["b", "c"], ["y"]),
        ],
        {"one": np.ones(4, np.float32), "w": weight(4), "c": weight(4, 1, seed=1)},
        ["BatchNormalization"],
    ),
    "batch normalization after matrices": (
        [
            node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["p"], beta=0.5),
            node("BatchNormalization", ["p", "b", "b", "b", "one"], ["y"]),
        ],
        {"w": weight(24, 5), "b": weight(5), "one": np.ones(5, np.float32)}, ["Flatten", "Gemm"],
    ),
    "batch normalization after a transposed convolution": (
        [
            node("ConvTranspose", ["x", "w"], ["p"], group=2),
            node("BatchNormalization", ["p", "b", "b", "b", "one"], ["y"]),
        ],
        {"w": weight(4, 3, 2), "b": weight(6), "one": np.ones(6, np.float32)}, ["ConvTranspose"],
    ),
    "a transposition before a product": (
        [node("Flatten", ["x"], ["f"]), node("Transpose", ["f"], ["t"]),
         node("Gemm", ["t", "f"], ["y"])], {}, ["Flatten", "Gemm"],
    ),
}  # fmt: skip


# What stays as it is, as it would be other numbers, or another file.
KEPT: dict[str, tuple[Sequence[onnx.NodeProto], Mapping[str, Any]]] = {
    "a cast that loses": (
        [node("Cast", ["x"], ["a"], to=INT64), node("Cast", ["a"], ["y"], to=FLOAT)], {},
    ),
    "zeros around a pool that do not count": (
        [node("Pad", ["x", "pads"], ["a"]), node("AveragePool", ["a"], ["y"], kernel_shape=[2])],
        {"pads": ints(0, 0, 1, 0, 0, 1)},
    ),
    "zeros around a pool of maxima": (
        [node("Pad", ["x", "pads"], ["a"]), node("MaxPool", ["a"], ["y"], kernel_shape=[2])],
        {"pads": ints(0, 0, 1, 0, 0, 1)},
    ),
    "more zeros than a pool is wide": (
        [node("Pad", ["x", "pads"], ["a"]),
         node("AveragePool", ["a"], ["y"], kernel_shape=[2], count_include_pad=1)],
        {"pads": ints(0, 0, 2, 0, 0, 0)},
    ),
    "a slice backwards": (
        [node("Slice", ["x", "start", "end", "axis", "step"], ["a"]), node("Neg", ["a"], ["y"])],
        {"start": ints(-1), "end": ints(-100), "axis": ints(1), "step": ints(-1)},
    ),
    "random numbers": (
        [node("RandomNormalLike", ["x"], ["a"], seed=1.0), node("Mul", ["a", "zero"], ["b"]),
         node("Add", ["x", "b"], ["y"])], {"zero": np.float32(0)},
    ),
    "random numbers, twice": (
        [node("RandomNormalLike", ["x"], ["a"]), node("RandomNormalLike", ["x"], ["b"]),
         node("Sub", ["a", "b"], ["c"]), node("Mul", ["c", "zero"], ["d"]),
         node("Add", ["x", "d"], ["y"])], {"zero": np.float32(0)},
    ),
    "weights that are stored as integers": (
        [node("DequantizeLinear", ["w", "scale"], ["a"]), node("Mul", ["x", "a"], ["y"])],
        {"w": np.arange(6, dtype=np.int8), "scale": np.float32(0.5)},
    ),
}  # fmt: skip


def spelled(kind: str) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """What ONNX has one operator for, in the forms of exporters."""
    numbers = {"half": 0.5, "one": 1, "two": 2, "three": 3, "root": 2**0.5, "epsilon": 1e-5,
               "inverse": 0.5**0.5, "cubic": 0.044715, "scale": (2 / np.pi) ** 0.5}  # fmt: skip
    weights: dict[str, Any] = {n: np.float32(x) for n, x in numbers.items()}
    if kind == "gelu":
        return [
            node("Div", ["x", "root"], ["a"]), node("Erf", ["a"], ["b"]),
            node("Add", ["b", "one"], ["c"]), node("Mul", ["x", "c"], ["d"]),
            node("Mul", ["d", "half"], ["y"]),
        ], weights  # fmt: skip
    if kind == "gelu in another order":
        return [
            node("Mul", ["x", "half"], ["h"]), node("Mul", ["x", "inverse"], ["a"]),
            node("Erf", ["a"], ["b"]), node("Add", ["one", "b"], ["c"]),
            node("Mul", ["c", "h"], ["y"]),
        ], weights  # fmt: skip
    if kind == "gelu by tanh":
        return [
            node("Pow", ["x", "three"], ["a"]), node("Mul", ["a", "cubic"], ["b"]),
            node("Add", ["x", "b"], ["c"]), node("Mul", ["c", "scale"], ["d"]),
            node("Tanh", ["d"], ["e"]), node("Add", ["e", "one"], ["f"]),
            node("Mul", ["f", "half"], ["g"]), node("Mul", ["x", "g"], ["y"]),
        ], weights  # fmt: skip
    return [
        node("ReduceMean", ["x", "axis"], ["m"]), node("Sub", ["x", "m"], ["d"]),
        node("Pow", ["d", "two"], ["p"]), node("ReduceMean", ["p", "axis"], ["v"]),
        node("Add", ["v", "epsilon"], ["e"]), node("Sqrt", ["e"], ["s"]),
        node("Div", ["d", "s"], ["n"]), node("Mul", ["n", "w"], ["z"]),
        node("Add", ["z", "b"], ["y"]),
    ], {**weights, "axis": ints(-1), "w": weight(6), "b": weight(6, seed=1)}  # fmt: skip
