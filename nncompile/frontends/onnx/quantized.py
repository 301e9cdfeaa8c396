"""Quantized weights that can be trained: floats of which the file's integers are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from nncompile.frontends.onnx.registry import attributes_of
from nncompile.frontends.onnx.roles import Stored, Use
from nncompile.ir.types import Array

_KINDS = frozenset({"int8", "uint8", "int16", "uint16", "int32"})


def with_masters(
    stored: Sequence[Stored], by: Mapping[str, list[Use]]
) -> Iterator[tuple[Stored, Array]]:
    """The quantized tensors that only one node takes, which dequantizes them by numbers that the
    file stores, and their floats: `(q − zero point)·scale`, which are quantized to the same q."""
    arrays = {s.name: s.array for s in stored}
    for s in stored:
        uses = by.get(s.name, [])
        if s.array.dtype.name not in _KINDS or s.array.size < 2 or len(uses) != 1:
            continue
        node, i = uses[0]
        if node.op_type != "DequantizeLinear" or i or not set(node.input[1:]) - {""} <= set(arrays):
            continue
        floats = _dequantized(node, s.array, [arrays.get(name) for name in node.input[1:]])
        if floats is not None:
            yield s, floats


def _dequantized(node: onnx.NodeProto, q: Array, numbers: Sequence[Any]) -> Array | None:
    """The floats, where there is one scale for all or one for each index of an axis."""
    scale, zero = numbers[0], numbers[1] if len(numbers) > 1 else None
    if scale is None or any(a.ref_attr_name for a in node.attribute):  # each call has its own
        return None
    attributes = attributes_of(node, None, {})
    if scale.ndim > 1 or scale.dtype != np.float32 or attributes.get("block_size"):
        return None
    shape: tuple[int, ...] = ()
    if scale.size > 1:
        axis = attributes.get("axis", 1)
        if not isinstance(axis, int) or not -q.ndim <= axis < q.ndim:
            return None
        axis %= q.ndim
        if q.shape[axis] != scale.size:
            return None
        shape = (scale.size, *(1,) * (q.ndim - axis - 1))
    if zero is not None and zero.size != scale.size:
        return None
    wide = q.astype(np.int64)
    if zero is not None:
        wide = wide - zero.astype(np.int64).reshape(shape)
    floats = wide.astype(np.float32) * scale.reshape(shape)
    return floats if _is_exact(floats, q, scale.reshape(shape), zero) else None


def _is_exact(floats: Array, q: Array, scale: Array, zero: Any) -> bool:
    """Whether quantizing the floats gives the integers again."""
    if q.dtype == np.int32:
        return True
    back = np.rint(floats / scale)
    if zero is not None:
        back = back + zero.astype(np.float32).reshape(scale.shape)
    return bool(np.array_equal(back, q.astype(np.float32)))


def quantized_again(
    node: onnx.NodeProto, floats: Array, dtype: np.dtype[Any], numbers: Sequence[Any]
) -> Array:
    """The integers of which `node` makes these floats, or those nearest to them."""
    scale, zero = numbers[0], numbers[1] if len(numbers) > 1 else None
    shape: tuple[int, ...] = ()
    if scale.size > 1:
        axis = attributes_of(node, None, {}).get("axis", 1) % floats.ndim
        shape = (scale.size, *(1,) * (floats.ndim - axis - 1))
    whole = np.rint(floats / scale.reshape(shape)).astype(np.float64)
    if zero is not None:
        whole = whole + zero.astype(np.float64).reshape(shape)
    limits = np.iinfo(dtype)
    result: Array = np.clip(whole, limits.min, limits.max).astype(dtype)
    return result
