"""A model without the numbers of its weights, which stay where they lie in the file.

What protobuf reads it copies, and what it copied is freed late. So the bytes of initializers are
left out of what it is given, by the wire format: fields of a number, a type and a content
(https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nncompile.backends.onnx.serialized import prefix

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH = 7 << 3 | _BYTES  # the tags of fields: of a model,
_INITIALIZER = 5 << 3 | _BYTES  # of a graph,
_NAME, _RAW_DATA = 8 << 3 | _BYTES, 9 << 3 | _BYTES  # and of a tensor
_LEAST = 1 << 12  # bytes of weights that are left out

Field = tuple[int, int, int, int]
"""The tag of a field, its number and type, where it begins, and where its content does and ends."""


def without_weights(content: memoryview) -> tuple[bytes, Mapping[str, memoryview]]:
    """The bytes of a model without those of large initializers, and these by name. What is not as
    exporters write it stays whole: protobuf says what is wrong with it."""
    try:
        fields = list(_fields(content, 0, len(content)))
        graphs = [field for field in fields if field[0] == _GRAPH]
        if len(graphs) != 1:
            return bytes(content), {}
        weights: dict[str, memoryview] = {}
        pieces = [
            _message(_GRAPH, _graph(content, field, weights))
            if field[0] == _GRAPH
            else bytes(content[field[1] : field[3]])
            for field in fields
        ]
    except (ValueError, IndexError):
        return bytes(content), {}
    return b"".join(pieces), weights


def _graph(content: memoryview, graph: Field, weights: dict[str, memoryview]) -> bytes:
    pieces: list[bytes] = []
    begin = graph[2]  # of what is not taken over yet
    for tag, start, first, end in _fields(content, graph[2], graph[3]):
        if tag == _INITIALIZER and end - first > _LEAST:
            tensor = list(_fields(content, first, end))
            names = [bytes(content[f[2] : f[3]]).decode() for f in tensor if f[0] == _NAME]
            raw = [f for f in tensor if f[0] == _RAW_DATA]
            if len(raw) != 1 or len(names) != 1:
                continue
            if names[0] in weights:
                raise ValueError(f"two initializers are called {names[0]!r}")
            weights[names[0]] = content[raw[0][2] : raw[0][3]]
            rest = bytes(content[first : raw[0][1]]) + bytes(content[raw[0][3] : end])
            pieces += [bytes(content[begin:start]), _message(_INITIALIZER, rest)]
            begin = end
    pieces.append(bytes(content[begin : graph[3]]))
    return b"".join(pieces)


def _fields(content: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of a message. Raises `ValueError` where it is none."""
    while start < end:
        tag, first = _varint(content, start)
        kind = tag & 7
        if kind == _BYTES:
            length, first = _varint(content, first)
            last = first + length
        elif kind == _VARINT:
            _, last = _varint(content, first)
        elif kind in (_FIXED64, _FIXED32):
            last = first + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"a field of the type {kind}")
        if last > end:
            raise ValueError("a field ends behind its message")
        yield tag, start, first, last
        start = last


def _varint(content: memoryview, start: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for i in range(10):
        byte = content[start + i]
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, start + i + 1
    raise ValueError("a number of more than ten bytes")


def _message(tag: int, content: bytes) -> bytes:
    """A field of bytes."""
    return prefix(tag >> 3, len(content)) + content
