"""ONNX graphs that can be of fewer nodes, and some that cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.onnx_files import FLOAT, ints, weight

X = {"x": (FLOAT, ["N", 4, 6])}


# What is simplified: nodes in the textual syntax of onnx, the tensors that the file stores, and the
# operators that are left.
FEWER: dict[str, tuple[str, Mapping[str, Any], list[str]]] = {
    "an identity": ("a = Identity(x)  y = Relu(a)", {}, ["Relu"]),
    "a dropout": ("a = Dropout(x)  y = Relu(a)", {}, ["Relu"]),
    "a name of an output moves": ("a = Relu(x)  y = Identity(a)", {}, ["Relu"]),
    "nodes that nobody needs": ("y = Relu(x)  b = Exp(x)  c = Exp(b)", {}, ["Relu"]),
    "nodes that compute the same": ("a = Exp(x)  b = Exp(x)  y = Mul(a, b)", {}, ["Exp", "Mul"]),
    "arithmetic of constants": ("a = Exp(w)  b = Neg(a)  y = Mul(x, b)", {"w": weight(6)}, ["Mul"]),
    "constants": ("s = Constant <value = int64[2] {0, 24}> ()  y = Reshape(x, s)", {}, ["Reshape"]),
    "sizes of a reshape": (
        "s = Shape(x)  n = Gather(s, zero)  n1 = Unsqueeze(n, axis)  "
        "t = Concat <axis = 0> (n1, rest)  y = Reshape(x, t)",
        {"zero": np.int64(0), "axis": ints(0), "rest": ints(24)}, ["Reshape"],
    ),
    "a slice to the end": (
        "s = Shape(x)  n = Slice(s, zero, one, zero)  y = Slice(x, one, n, zero)",
        {"zero": ints(0), "one": ints(1)}, ["Slice"],
    ),
    "a slice that is all": (
        "a = Slice(x, zero, end, axis)  y = Relu(a)",
        {"zero": ints(0), "end": ints(100), "axis": ints(1)}, ["Relu"],
    ),
    "reshapes in a row": (
        "a = Unsqueeze(x, axis)  b = Reshape(a, s)  y = Flatten <axis = 1> (b)",
        {"axis": ints(1), "s": ints(0, 2, 12)}, ["Reshape"],
    ),
    "reshapes that cancel": (
        "a = Unsqueeze(x, axis)  b = Squeeze(a, axis)  y = Relu(b)",
        {"axis": ints(1)}, ["Relu"],
    ),
    "transpositions in a row": (
        "a = Transpose <perm = [1, 0, 2]> (x)  y = Transpose(a)",
        {}, ["Transpose"],
    ),
    "transpositions that cancel": ("a = Transpose(x)  b = Transpose(a)  y = Relu(b)", {}, ["Relu"]),
    "heads that are joined around a transposition": (
        "a = Reshape(x, split)  b = Reshape(a, join)  r = Relu(x)  c = Reshape(r, joined)  "
        "d = Transpose <perm = [0, 2, 1]> (c)  y = Reshape(d, back)",
        {"split": ints(0, 4, 2, 3), "join": ints(-1, 2, 3), "joined": ints(-1, 2, 3),
         "back": ints(-1, 4, 3, 2)},
        ["Relu", "Reshape", "Transpose"],
    ),
    "axes that are split after a transposition": (
        "b = Reshape(x, a)  c = Transpose <perm = [1, 0]> (b)  y = Reshape(c, d)",
        {"a": ints(-1, 24), "d": ints(2, 12, -1)}, ["Reshape", "Transpose"],
    ),
    "slices that are a split": (
        "a = Slice(x, n0, n2, axis)  b = Slice(x, n2, n6, axis)  e = Exp(a)  "
        "y = Concat <axis = 2> (b, e)",
        {"n0": ints(0), "n2": ints(2), "n6": ints(6), "axis": ints(2)}, ["Split", "Exp", "Concat"],
    ),
    "concatenations in a row": (
        "a = Concat <axis = 1> (x, x)  y = Concat <axis = 1> (a, x)",
        {}, ["Concat"],
    ),
    "an expansion that the operator does itself": (
        "s = Shape(x)  a = Expand(w, s)  y = Add(x, a)",
        {"w": weight(6)}, ["Add"],
    ),
    "casts in a row": (
        "a = Greater(x, zero)  b = Cast <to = 7> (a)  y = Cast <to = 1> (b)",
        {"zero": np.float32(0)}, ["Greater", "Cast"],
    ),
    "factors of 1": ("a = Mul(x, one)  y = Neg(a)", {"one": np.float32(1)}, ["Neg"]),
    "sums with 0": (
        "a = Add(zero, x)  y = Neg(a)",
        {"zero": np.zeros((4, 1), np.float32)}, ["Neg"],
    ),
    "a choice that is the same everywhere": (
        "a = Where(c, x, zero)  y = Neg(a)",
        {"c": np.ones(6, bool), "zero": np.float32(0)}, ["Neg"],
    ),
    "a power of 1": ("a = Pow(x, one)  y = Neg(a)", {"one": np.int64(1)}, ["Neg"]),
    "a choice by the opposite": (
        "g = Greater(x, zero)  n = Not(g)  y = Where(n, x, zero)",
        {"zero": np.float32(0)}, ["Greater", "Where"],
    ),
    "a reduction of one": (
        "a = Slice(x, one, two, one)  b = ReduceSum(a, one)  y = Neg(b)",
        {"one": ints(1), "two": ints(2)}, ["Slice", "Neg"],
    ),
    "zeros around a pool that count": (
        "a = Pad(x, pads)  "
        "y = AveragePool <count_include_pad = 1, kernel_shape = [3], pads = [0, 1]> (a)",
        {"pads": ints(0, 0, 2, 0, 0, 1)}, ["AveragePool"],
    ),
    "what is no maximum around a pool": (
        "a = Pad(x, pads, least)  y = MaxPool <kernel_shape = [2]> (a)",
        {"pads": ints(0, 0, 1, 0, 0, 1), "least": np.float32(-np.inf)}, ["MaxPool"],
    ),
    "a product and a sum": (
        "f = Flatten(x)  p = MatMul(f, w)  y = Add(b, p)",
        {"w": weight(24, 5), "b": weight(5)}, ["Flatten", "Gemm"],
    ),
    "axes of a reduction": (
        "a = ReduceSum(x, axis)  b = Squeeze(a, axis)  y = Relu(b)",
        {"axis": ints(1)}, ["ReduceSum", "Relu"],
    ),
    "an axis that a reduction leaves out": (
        "a = ArgMax <axis = 1, keepdims = 0> (x)  b = Unsqueeze(a, axis)  y = Cast <to = 1> (b)",
        {"axis": ints(1)}, ["ArgMax", "Cast"],
    ),
    "slices of other axes": (
        "a = Slice(x, one, two, one)  y = Slice(a, one, six, two, two)",
        {"one": ints(1), "two": ints(2), "six": ints(6)}, ["Slice"],
    ),
    "a transposition of axes of one": (
        "a = Slice(x, zero, one, one)  b = Transpose <perm = [1, 0, 2]> (a)  y = Squeeze(b, zero)",
        {"zero": ints(0), "one": ints(1)}, ["Slice", "Squeeze"],
    ),
    "a function of its own results": ("a = Relu(x)  y = Relu(a)", {}, ["Relu"]),
    "factors in a row": (
        "a = Mul(x, two)  y = Mul(w, a)",
        {"two": np.float32(2), "w": weight(6)}, ["Mul"],
    ),
    "batch normalization, factors and sums": (
        "a = BatchNormalization(x, one, w, w, one)  b = Mul(a, c)  y = Add(b, c)",
        {"one": np.ones(4, np.float32), "w": weight(4), "c": weight(4, 1, seed=1)},
        ["BatchNormalization"],
    ),
    "batch normalization after matrices": (
        "f = Flatten(x)  p = Gemm <beta = 0.5> (f, w, b)  y = BatchNormalization(p, b, b, b, one)",
        {"w": weight(24, 5), "b": weight(5), "one": np.ones(5, np.float32)}, ["Flatten", "Gemm"],
    ),
    "batch normalization after a transposed convolution": (
        "p = ConvTranspose <group = 2> (x, w)  y = BatchNormalization(p, b, b, b, one)",
        {"w": weight(4, 3, 2), "b": weight(6), "one": np.ones(6, np.float32)}, ["ConvTranspose"],
    ),
    "a transposition before a product": (
        "f = Flatten(x)  t = Transpose(f)  y = Gemm(t, f)",
        {}, ["Flatten", "Gemm"],
    ),
}  # fmt: skip


# What stays as it is, as it would be other numbers, or another file.
KEPT: dict[str, tuple[str, Mapping[str, Any]]] = {
    "a cast that loses": ("a = Cast <to = 7> (x)  y = Cast <to = 1> (a)", {}),
    "zeros around a pool that do not count": (
        "a = Pad(x, pads)  y = AveragePool <kernel_shape = [2]> (a)",
        {"pads": ints(0, 0, 1, 0, 0, 1)},
    ),
    "zeros around a pool of maxima": (
        "a = Pad(x, pads)  y = MaxPool <kernel_shape = [2]> (a)",
        {"pads": ints(0, 0, 1, 0, 0, 1)},
    ),
    "more zeros than a pool is wide": (
        "a = Pad(x, pads)  y = AveragePool <count_include_pad = 1, kernel_shape = [2]> (a)",
        {"pads": ints(0, 0, 2, 0, 0, 0)},
    ),
    "a slice backwards": (
        "a = Slice(x, start, end, axis, step)  y = Neg(a)",
        {"start": ints(-1), "end": ints(-100), "axis": ints(1), "step": ints(-1)},
    ),
    "random numbers": (
        "a = RandomNormalLike <seed = 1.0> (x)  b = Mul(a, zero)  y = Add(x, b)",
        {"zero": np.float32(0)},
    ),
    "random numbers, twice": (
        "a = RandomNormalLike(x)  b = RandomNormalLike(x)  c = Sub(a, b)  d = Mul(c, zero)  "
        "y = Add(x, d)",
        {"zero": np.float32(0)},
    ),
    "weights that are stored as integers": (
        "a = DequantizeLinear(w, scale)  y = Mul(x, a)",
        {"w": np.arange(6, dtype=np.int8), "scale": np.float32(0.5)},
    ),
}  # fmt: skip


# What ONNX has one operator for, in the forms of exporters.
SPELLED = {
    "gelu": ("a = Div(x, root)  b = Erf(a)  c = Add(b, one)  d = Mul(x, c)  y = Mul(d, half)"),
    "gelu in another order": (
        "h = Mul(x, half)  a = Mul(x, inverse)  b = Erf(a)  c = Add(one, b)  y = Mul(c, h)"
    ),
    "gelu by tanh": (
        "a = Pow(x, three)  b = Mul(a, cubic)  c = Add(x, b)  d = Mul(c, scale)  e = Tanh(d)  "
        "f = Add(e, one)  g = Mul(f, half)  y = Mul(x, g)"
    ),
    "layer normalization": (
        "m = ReduceMean(x, axis)  d = Sub(x, m)  p = Pow(d, two)  v = ReduceMean(p, axis)  "
        "e = Add(v, epsilon)  s = Sqrt(e)  n = Div(d, s)  z = Mul(n, w)  y = Add(z, b)"
    ),
}


def numbers_of(kind: str) -> dict[str, Any]:
    """The numbers that such a form takes."""
    numbers = {"half": 0.5, "one": 1, "two": 2, "three": 3, "root": 2**0.5, "epsilon": 1e-5,
               "inverse": 0.5**0.5, "cubic": 0.044715, "scale": (2 / np.pi) ** 0.5}  # fmt: skip
    weights: dict[str, Any] = {n: np.float32(x) for n, x in numbers.items()}
    if kind == "layer normalization":
        weights |= {"axis": ints(-1), "w": weight(6), "b": weight(6, seed=1)}
    return weights
