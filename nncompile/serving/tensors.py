"""Tensors as the Open Inference Protocol writes them: in JSON, or as bytes behind it.

The protocol: https://github.com/kserve/open-inference-protocol, of bytes Triton's "binary tensor
data extension".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nncompile.ir.types import Array, is_real
from nncompile.runtime.open_inference import DATATYPE_NAMES, DATATYPES
from nncompile.serving.problems import RequestError

_MOST_AXES = 64  # of numpy
_MOST_ELEMENTS = 2**59  # of 16 bytes each, also where an axis has none


def shape_of(name: str, sizes: Any) -> tuple[int, ...]:
    """The shape of a tensor in a request. Raises `RequestError`."""
    is_list = isinstance(sizes, list) and len(sizes) <= _MOST_AXES
    if not is_list or not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise RequestError(f"the shape of input {name!r} is not a list of sizes, such as [1, 4]")
    if math.prod(max(1, size) for size in sizes) > _MOST_ELEMENTS:
        raise RequestError(f"the shape {sizes!r:.80} of input {name!r} is that of no tensor")
    return tuple(sizes)


def dtype_of(name: str, datatype: Any) -> np.dtype[Any]:
    """The element type of a tensor in a request. Raises `RequestError`."""
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise RequestError(
            f"input {name!r} has the datatype {datatype!r:.40}",
            hint=f"choose one of {', '.join(DATATYPES)}",
        )
    return DATATYPES[datatype]


def from_bytes(name: str, content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """A tensor of its bytes: little-endian, row by row. Raises `RequestError` for another number of
    them."""
    needed = math.prod(shape) * dtype.itemsize
    if len(content) != needed:
        raise RequestError(
            f"input {name!r} has {len(content):,} bytes, but {DATATYPE_NAMES[dtype]} of shape "
            f"{list(shape)} takes {needed:,}"
        )
    if dtype.kind == "b" and any(content.translate(None, b"\x00\x01")):
        raise RequestError(f"input {name!r} has bytes that are neither 0 nor 1, but is BOOL")
    return np.frombuffer(content, dtype).reshape(shape)


def from_json(name: str, data: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """A tensor of JSON's numbers, in lists of its shape or in one list. Raises `RequestError`."""
    try:
        found = np.asarray(data)
    except (ValueError, TypeError, OverflowError):  # rows of several lengths
        found = np.asarray(None)
    kinds = {"b": "b", "i": "iu", "u": "iu"}.get(dtype.kind, "iuf")
    datatype = DATATYPE_NAMES[dtype]
    if found.size and found.dtype.kind not in kinds:
        what = {"b": "true and false", "i": "whole numbers", "u": "whole numbers"}
        raise RequestError(
            f"the data of input {name!r} are not {what.get(dtype.kind, 'numbers')} "
            f"that {datatype} has, in lists of equal lengths"
        )
    if found.size != math.prod(shape) or (found.ndim > 1 and found.shape != shape):
        raise RequestError(
            f"the data of input {name!r} have the shape {list(found.shape)}, "
            f"but its shape is said to be {list(shape)}"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array = found.astype(dtype)
        is_kept = np.isfinite(array) | ~np.isfinite(found) if is_real(dtype) else array == found
    if not is_kept.all():
        raise RequestError(f"the data of input {name!r} have numbers that {datatype} has not")
    return array.reshape(shape)


def to_json(array: Array) -> list[Any]:
    """The elements row by row. NaN and infinities are written as JavaScript does, which JSON has no
    numbers for."""
    wide = array.astype(np.float32) if is_real(array.dtype) and array.itemsize == 2 else array
    numbers: list[Any] = wide.reshape(-1).tolist()
    return numbers
