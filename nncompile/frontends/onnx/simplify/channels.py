"""A number for each channel, as part of the weights of what is before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.work import Item, Work
from nncompile.ir.types import Array


@rule("BatchNormalization", rounds=True)
def normalized_product(work: Work, item: Item) -> bool:
    """Batch normalization by stored statistics, as part of the product before it."""
    if item.attribute("training_mode", 0) or len(item.outputs) > 1 or work.opset < 7:
        return False
    numbers = [work.constant(name) for name in item.inputs[1:5]]
    if any(n is None for n in numbers):
        return False
    scale, shift, mean, variance = (np.asarray(n, np.float64) for n in numbers)
    factor = scale / np.sqrt(variance + item.attribute("epsilon", 1e-5))
    return _folded(work, item, item.inputs[0], factor, shift - mean * factor, item.inputs[2])


@rule("Mul", "Add", rounds=True)
def scaled_product(work: Work, item: Item) -> bool:
    """A factor or a sum for each channel, as part of the product before it."""
    for name, other in (item.inputs, reversed(item.inputs)):
        numbers, shape = work.constant(other), work.shape(name)
        if numbers is None or shape is None or len(shape) < 2 or numbers.dtype.kind != "f":
            continue
        padded = [*[1] * (len(shape) - numbers.ndim), *numbers.shape]
        if padded != [1, shape[1], *[1] * (len(shape) - 2)]:
            continue
        vector = np.asarray(numbers, np.float64).reshape(-1)
        zero, one = np.zeros_like(vector), np.ones_like(vector)
        factor, shift = (vector, zero) if item.op == "Mul" else (one, vector)
        return _folded(work, item, name, factor, shift, other)
    return False


def _convolution(item: Item, weight: Array, factor: Array) -> Array | None:
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


def _transposed(item: Item, weight: Array, factor: Array) -> Array | None:
    """Of weights [inputs, outputs of a group, ...]."""
    groups = item.attribute("group", 1)
    inputs, outputs, *window = weight.shape
    if inputs % groups or groups * outputs != len(factor):
        return None
    parts = weight.reshape(groups, inputs // groups, outputs, *window)
    scaled: Array = parts * factor.reshape(groups, 1, outputs, *[1] * len(window))
    return scaled.reshape(weight.shape)


def _matrix(item: Item, weight: Array, factor: Array) -> Array | None:
    return weight * (factor[:, None] if item.attribute("transB", 0) else factor)


# What scales the weights of an operator, which are its second input; its third is the addend.
_SCALED: dict[str, Callable[[Item, Array, Array], Array | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _matrix,
    "BatchNormalization": _convolution,
}


def _folded(work: Work, item: Item, name: str, factor: Array, shift: Array, like: str) -> bool:
    """Multiplies the channels of what made `name` by the factors, adds the shifts, and removes the
    node. `like` names a constant that the addend may be called after."""
    product = work.only_maker(name, *_SCALED)
    if product is None or len(product.outputs) > 1 or product.attribute("training_mode", 0):
        return False
    weight = work.constant(product.inputs[1])
    has_addend = len(product.inputs) > 2 and bool(product.inputs[2])
    addend = work.constant(product.inputs[2]) if has_addend else np.zeros(len(factor))
    shape = work.shape(name)
    if weight is None or addend is None or shape is None or shape[1] != len(factor):
        return False
    if addend.size not in (1, len(factor)) or addend.ndim > 1 + (product.op == "Gemm"):
        return False
    if product.op == "Gemm":
        addend = addend * product.attribute("beta", 1.0)
    scaled = _SCALED[product.op](product, weight, factor)
    shifted = np.asarray(addend, np.float64).reshape(-1) * factor + shift
    if scaled is None or scaled.shape != weight.shape or not np.isfinite(scaled).all():
        return False
    names = [*product.inputs[:2], product.inputs[2] if has_addend else like, *product.inputs[3:]]
    if (factor != 1).any():
        names[1] = work.store_instead(names[1], scaled.astype(weight.dtype), product)
    owner = product if has_addend else item
    names[2] = work.store_instead(names[2], shifted.astype(weight.dtype), owner)
    if product.op == "Gemm":
        product.set_attributes(beta=1.0)
    work.set_inputs(product, names)
    work.take_output(product, item)
    return True
