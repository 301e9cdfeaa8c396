"""Sums, transpositions, zeros and states that a product or a layer takes itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.work import Item, Work

_DEEP = 16  # nodes between a tensor and the zeros that it is made of
_GEMM_BROADCASTS = 7  # the opset from which the addend of `Gemm` is broadcast by itself


@rule("Add", rounds=True)
def product_with_addend(work: Work, item: Item) -> bool:
    """A product of matrices and a sum, as `Gemm`."""
    for product, addend in (item.inputs, reversed(item.inputs)):
        inner = work.only_maker(product, "MatMul")
        if inner is None or work.opset < _GEMM_BROADCASTS:
            continue
        shapes = [work.shape(name) for name in (*inner.inputs, addend, item.output)]
        left, right, added, result = shapes
        if left is None or right is None or added is None or result is None:
            continue
        if len(left) != 2 or len(right) != 2 or len(added) > 2 or len(result) != 2:
            continue
        padded = [*[1] * (2 - len(added)), *added]
        fits = all(a in (1, b) for a, b in zip(padded, result, strict=True))
        if fits and work.dtype(item.output) in (np.float32, np.float64, np.float16):
            names = [*inner.inputs, addend]
            item.become("Gemm")
            work.set_inputs(item, names)
            return True
    return False


@rule("Gemm")
def product_of_a_transpose(work: Work, item: Item) -> bool:
    """A transposition before a product, as an attribute of it."""
    for i, attribute in enumerate(("transA", "transB")):
        inner = work.only_maker(item.inputs[i], "Transpose")
        if inner is not None and list(inner.attribute("perm", (1, 0))) == [1, 0]:
            item.set_attributes(**{attribute: 1 - item.attribute(attribute, 0)})
            names = list(item.inputs)
            names[i] = inner.inputs[0]
            work.set_inputs(item, names)
            return True
    return False


@rule("Conv")
def padded_convolution(work: Work, item: Item) -> bool:
    """Zeros around an image, as those of the convolution."""
    return _padded(work, item, lambda value: value == 0)


@rule("AveragePool", "MaxPool")
def padded_pool(work: Work, item: Item) -> bool:
    """What is around an image, as that of the pool: zeros that count, or what is no maximum. A pool
    takes less of it than its windows are wide."""
    if item.attribute("ceil_mode", 0) or len(item.outputs) > 1:
        return False
    if item.op == "MaxPool":
        return _padded(work, item, lambda value: value == -np.inf)
    counts = bool(item.attribute("count_include_pad", 0))
    return counts and _padded(work, item, lambda value: value == 0)


def _padded(work: Work, item: Item, fits: Callable[[Any], Any]) -> bool:
    """Makes a constant around an image, which `fits`, that of the node that takes it."""
    pad = work.only_maker(item.inputs[0], "Pad")
    shape = work.shape(item.inputs[0])
    if pad is None or shape is None or len(pad.inputs) not in (2, 3):
        return False
    pads = work.constant(pad.inputs[1])
    value = work.constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else np.zeros(1)
    is_plain = pad.attribute("mode", b"constant") == b"constant"
    if pads is None or value is None or not bool(np.all(fits(value))) or not is_plain:
        return False
    around = [int(p) for p in pads]
    rank = len(shape)
    spatial = [*around[2:rank], *around[rank + 2 :]]
    outside = [*around[:2], *around[rank : rank + 2]]
    if item.attribute("auto_pad", b"NOTSET") != b"NOTSET" or any(outside) or min(spatial) < 0:
        return False
    own = item.attribute("pads") or [0] * len(spatial)
    pads_now = [a + b for a, b in zip(own, spatial, strict=True)]
    kernel = item.attribute("kernel_shape", ())
    if item.op != "Conv" and any(p >= k for p, k in zip(pads_now, [*kernel, *kernel], strict=True)):
        return False
    item.set_attributes(pads=pads_now)
    work.set_inputs(item, [pad.inputs[0], *item.inputs[1:]])
    return True


@rule("LSTM", "GRU", "RNN")
def zero_states(work: Work, item: Item) -> bool:
    """A first state of zeros, which is what there is without one."""
    names = list(item.inputs)
    for i in (5, 6):
        if i < len(names) and names[i] and is_zero(work, names[i]):
            names[i] = ""
    if names == list(item.inputs):
        return False
    work.set_inputs(item, names)
    return True


def is_zero(work: Work, name: str, depth: int = 0) -> bool:
    """Whether a tensor is known to be zeros, whatever its shape."""
    numbers = work.constant(name)
    if numbers is not None:
        return not bool(numbers.any())
    item = work.maker(name)
    if item is None or depth == _DEEP:
        return False
    if item.op == "ConstantOfShape":
        value = item.attribute("value")
        return value is None or not any(value.raw_data)
    moves = ("Expand", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Transpose", "Tile", "Split")
    return item.op in moves and is_zero(work, item.inputs[0], depth + 1)
