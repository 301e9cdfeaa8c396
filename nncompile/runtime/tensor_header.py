"""The header of a `.safetensors` file: strings, and the type and position of each tensor. All of
it is checked before anything is read by it."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from nncompile.diagnostics.errors import CheckpointError
from nncompile.diagnostics.reading import Path_, open_file
from nncompile.ir.names import check_printable
from nncompile.ir.types import DTYPES, DType

CHECKSUM = "nncompile.checksum"
"""The key of the checksum of all that a file holds."""
_BLOCK, _BLOCKS = 2**20, 64  # bytes of a block, and how many stand for the data of a large file
_LIMIT = 100 * 10**6  # bytes, as safetensors itself has it
_BY_NAME = {{"bool": "BOOL", "bfloat16": "BF16"}.get(d.name, d.short.upper()): d for d in DTYPES}
_SHORT = {dtype: short for short, dtype in _BY_NAME.items()}


@dataclass(frozen=True)
class Entry:
    """A tensor in the file: its type, and its first byte and that behind its last one."""

    dtype: DType
    shape: tuple[int, ...]
    first: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file holds: the tensors in the order of their bytes, and strings."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]


def header_of(path: Path_) -> Header:
    """The header of the file. Raises `FileError` where it cannot be read, `CheckpointError` where
    it is no complete `.safetensors` file."""
    with open_file(path, "checkpoint") as file:
        return read_header(file, path)


def read_header(file: BinaryIO, path: Path_) -> Header:
    """The header of the opened file, which then stands behind it. Raises `CheckpointError` unless
    the tensors fill the file: each byte is one's, and none is two's."""
    size = os.fstat(file.fileno()).st_size
    try:
        return _header(file, size)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{os.fspath(path)} is not a complete safetensors file: {error}",
            rows=[("size", f"{size:,} bytes")],
            hint="it was truncated, or another program wrote it",
        ) from None


def content_id(path: Path_) -> str:
    """What tells files apart that hold something else: a digest of the header, where that has a
    checksum of the data, and else of 64 blocks of them, too. Raises as `header_of`."""
    with open_file(path, "the weights") as file:
        header = read_header(file, path)
        start = file.tell()
        file.seek(0)
        digest = hashlib.blake2b(file.read(start), digest_size=16)
        if CHECKSUM not in header.metadata:
            size = os.fstat(file.fileno()).st_size
            stride = max(_BLOCK, (size - start) // _BLOCKS)
            for position in range(start, size, stride):
                file.seek(position)
                digest.update(file.read(_BLOCK))
        return digest.hexdigest()


def header_for(
    tensors: Mapping[str, tuple[DType, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The header of a file of tensors of these types and shapes, and their names in the order in
    which their bytes follow it: the widest elements first, so that none begins within another."""
    widths = {name: dtype.numpy.itemsize for name, (dtype, _) in tensors.items()}
    ordered = sorted(tensors, key=lambda name: (-widths[name], name))
    fields: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in ordered:
        dtype, shape = tensors[name]
        first, end = end, end + math.prod(shape) * widths[name]
        short = _SHORT[dtype]
        fields[name] = {"dtype": short, "shape": list(shape), "data_offsets": [first, end]}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text, ordered


def _header(file: BinaryIO, size: int) -> Header:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError("its header is longer than the file" if size >= 8 else "it has no header")
    if length > _LIMIT:
        raise ValueError(f"its header has {length:,} bytes")
    fields = json.loads(file.read(length).decode(), object_pairs_hook=_without_repeats)
    if not isinstance(fields, dict):
        raise ValueError("its header names no tensors")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise ValueError("its metadata are not strings")
    tensors = {name: _entry(name, fields[name]) for name in fields}
    ordered = sorted(tensors.items(), key=lambda item: (item[1].first, item[1].end))
    end = 0
    for name, entry in ordered:
        if entry.first != end:
            raise ValueError(f"{name!r} begins at byte {entry.first:,} of the data, not {end:,}")
        end = entry.end
    if end != size - 8 - length:
        raise ValueError(f"its tensors need {end:,} bytes, it has {size - 8 - length:,}")
    return Header(dict(ordered), metadata)


def _entry(name: str, fields: Any) -> Entry:
    check_printable(name)
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} has no type, shape and position")
    shape, offsets, dtype = fields["shape"], fields["data_offsets"], fields["dtype"]
    if not isinstance(dtype, str) or dtype not in _BY_NAME:
        raise ValueError(f"{name!r} is of the element type {dtype!r}, which is unknown")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name!r} has no type, shape and position")
    first, end = offsets
    needed = math.prod(shape) * _BY_NAME[dtype].numpy.itemsize
    if end - first != needed:
        raise ValueError(f"{name!r} needs {needed:,} bytes, and {end - first:,} are given")
    return Entry(_BY_NAME[dtype], tuple(shape), first, end)


def _are_sizes(x: Any) -> bool:
    return isinstance(x, list) and all(type(n) is int and 0 <= n < 2**63 for n in x)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is in its header twice")
    return fields
