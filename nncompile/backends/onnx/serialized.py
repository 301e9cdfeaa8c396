"""Models as the bytes of their files, piece by piece: protobuf itself makes a copy of all weights
on their way into a model, and another one of the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.unknown_fields import (  # type: ignore[import-untyped]  # it has no stubs
    UnknownFieldSet,
)

from nncompile.diagnostics.reading import unload
from nncompile.ir.types import Array

Elements = Mapping[str, Array | memoryview]
"""What tensors hold, by name: arrays, or their bytes as they lie in a file that is mapped."""

_LARGE = 2**20  # bytes of a file that do not stay in memory when they were written
_LENGTH_DELIMITED = 2  # protobuf's wire type of messages and bytes
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


def write(model: onnx.ModelProto, file: Path, weights: Elements | None = None) -> None:
    """Writes what `SerializeToString` of the model gives, in which the initializers of these names
    have these elements: in the model itself they need none."""
    with file.open("wb") as opened:
        for piece in pieces(model, weights or {}):
            opened.write(piece)


def pieces(model: onnx.ModelProto, weights: Elements) -> Iterator[Any]:
    """The bytes that `write` writes, one after the other."""
    if any(len(UnknownFieldSet(part)) for part in (model, model.graph)):  # they have no order
        yield _filled(model, weights).SerializeToString()
        return
    tensors = [_tensor(t, weights.get(t.name)) for t in model.graph.initializer]
    before, after = _around(model.graph, _INITIALIZER)
    lengths = [sum(map(_size, tensor)) for tensor in tensors]
    inner = len(before) + len(after)
    inner += sum(n + len(prefix(_INITIALIZER, n)) for n in lengths)
    first, last = _around(model, _GRAPH)
    yield first + prefix(_GRAPH, inner) + before
    for tensor, length in zip(tensors, lengths, strict=True):
        yield prefix(_INITIALIZER, length)
        for part in tensor:
            if isinstance(part, onnx.TensorProto):
                yield part.SerializeToString()
            elif isinstance(part, bytes):
                yield part
            else:
                yield _bits(part)
                if isinstance(part, memoryview) and part.nbytes > _LARGE:
                    unload(part)
    yield after + last


def without_weights(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The model as it is checked, with these initializers as inputs."""
    apart = {*names}
    result = deepcopy(model)
    del result.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.name in apart:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            result.graph.input.append(info)
        else:
            result.graph.initializer.append(tensor)
    return result


def _tensor(tensor: onnx.TensorProto, array: Array | memoryview | None) -> list[Any]:
    """The parts of a tensor: itself, or what it says of itself and its elements."""
    if array is None:
        return [tensor]
    return [tensor.SerializeToString() + prefix(_RAW_DATA, array.nbytes), array]


def _size(part: Any) -> int:
    if isinstance(part, onnx.TensorProto):
        return int(part.ByteSize())
    return len(part) if isinstance(part, bytes) else int(part.nbytes)


def _bits(array: Array | memoryview) -> memoryview:
    """The elements in order, copied only where they lie in another."""
    if isinstance(array, memoryview):
        return array
    return np.asarray(array, order="C").reshape(-1).view(np.uint8).data


def _filled(model: onnx.ModelProto, weights: Elements) -> onnx.ModelProto:
    result = deepcopy(model)
    for tensor in result.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = bytes(_bits(weights[tensor.name]))
    return result


def _around(message: Any, number: int) -> tuple[bytes, bytes]:
    """The bytes of a message before its field of that number, and those behind it."""
    parts = type(message)(), type(message)()
    for field, content in message.ListFields():
        if field.number == number:
            continue
        part = parts[field.number > number]
        if isinstance(content, str | bytes | int | float):
            setattr(part, field.name, content)
        else:  # a message, or several
            getattr(part, field.name).MergeFrom(content)
    before, after = (bytes(part.SerializeToString()) for part in parts)
    return before, after


def prefix(number: int, length: int) -> bytes:
    """What stands before that many bytes of a field."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    """A number as protobuf has it: seven bits a byte, the lowest first."""
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
