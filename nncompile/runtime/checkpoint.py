"""Checkpoints: named tensors and a few strings in one safetensors file."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nncompile.diagnostics.errors import CheckpointError, CompileError, FileError, Row, closest
from nncompile.diagnostics.files import write_atomically
from nncompile.diagnostics.reading import open_file, unreadable
from nncompile.ir.types import Array, Type, boolean, dtype_of
from nncompile.runtime.feeds import Port, describe
from nncompile.runtime.tensor_header import CHECKSUM, Entry, header_for, read_header

FORMAT = 1
"""The version of what checkpoints hold, and how; a later one may hold what this code does not
know. Files of other programs have none, and are read too."""

CALLBACK = "callback:"
"""What the names of tensors begin with that are not of the state, but of callbacks; no path has a
colon."""

_FORMAT = "nncompile.format"
_SHOWN = 8  # names of one kind that an error lists


def save_state(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Writes the tensors and strings to `path`, whole or not at all, with the version of their
    format and a checksum. Raises `FileError`."""
    # order="C" and not ascontiguousarray, which makes a vector of a 0-d array.
    arrays = {name: np.asarray(x, order="C") for name, x in tensors.items()}
    about = {**(metadata or {}), _FORMAT: str(FORMAT)}
    about[CHECKSUM] = checksum(arrays, about)
    types = {name: (dtype_of(x), x.shape) for name, x in arrays.items()}
    header, ordered = header_for(types, about)

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            file.write(header)
            for name in ordered:  # one after the other, without a copy of them all
                file.write(arrays[name].reshape(-1).view(np.uint8).data)

    return write_atomically(path, write)


def load_state(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The state and the strings in a checkpoint; see `load_checkpoint`."""
    checkpoint = load_checkpoint(path)
    return checkpoint.state, checkpoint.metadata


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: the state, arrays of callbacks, and strings."""

    state: dict[str, Array]
    callbacks: dict[str, Array]
    metadata: dict[str, str]


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """What a checkpoint holds; its format and its checksum are checked where it has them.

    Raises `FileError` where there is no such file or it does not fit in memory, `CheckpointError`
    where it is truncated, damaged, of a later version or no safetensors file.
    """
    with open_file(path, "checkpoint") as file:
        header = read_header(file, path)
        _check_format(header.metadata.get(_FORMAT), path)
        try:
            # They are in the order of the file, without gaps.
            tensors = {name: _tensor(file, entry) for name, entry in header.tensors.items()}
        except OSError as error:
            raise unreadable(path, error, "checkpoint") from None
        except MemoryError:
            raise FileError(f"the tensors of {os.fspath(path)} do not fit in memory") from None
    about = dict(header.metadata)
    expected = about.pop(CHECKSUM, None)
    if expected is not None and checksum(tensors, about) != expected:
        raise CheckpointError(
            f"{os.fspath(path)} is damaged: its checksum is not that of what it holds",
            rows=[("written", expected), ("got", checksum(tensors, about))],
            hint="copy it again, or use another checkpoint",
        )
    about.pop(_FORMAT, None)
    state = {name: x for name, x in tensors.items() if not name.startswith(CALLBACK)}
    beside = {name: x for name, x in tensors.items() if name not in state}
    return Checkpoint(state, beside, about)


def checksum(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """What changes with any byte of the tensors, their names and types, and the strings; as fast
    as memory, and against accidents alone."""
    total = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        x = tensors[name]
        total = zlib.crc32(f"{name} {x.dtype} {x.shape}".encode(), total)
        total = zlib.crc32(x.reshape(-1).view(np.uint8).data, total)
    return f"crc32:{total:08x}"


def _check_format(version: str | None, path: str | os.PathLike[str]) -> None:
    """Raises `CheckpointError` for a format of a later nncompile; files of others have none."""
    if version is None:
        return
    if not version.isascii() or not version.isdigit():
        raise CheckpointError(f"{os.fspath(path)} is of the unknown format {version!r}")
    if int(version) > FORMAT:
        raise CheckpointError(
            f"{os.fspath(path)} was written by a later nncompile: its format is {version}, and "
            f"this one reads up to {FORMAT}",
            hint="pip install --upgrade nncompile",
        )


def _tensor(file: BinaryIO, entry: Entry) -> Array:
    flat = np.fromfile(file, np.uint8, entry.end - entry.first)
    if entry.dtype is boolean:
        flat = np.minimum(flat, 1)  # numpy computes wrong of any other byte
    return flat.view(entry.dtype.numpy).reshape(entry.shape)


def check_state(
    tensors: Mapping[str, Array],
    expected: Mapping[str, Type | Port],
    source: str | os.PathLike[str] = "the state",
    error: type[CompileError] = CheckpointError,
) -> None:
    """Raises `error`, with all names that differ, unless `tensors` are exactly those that are
    expected: none missing, none unknown, each of its element type and shape."""
    rows: list[Row] = []
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    rows += _listed([("missing", name, _shown(expected[name])) for name in missing])
    rows += _listed(
        [("unknown", name, describe(tensors[name].dtype, tensors[name].shape)) for name in unknown]
    )
    different = [
        (
            "differs",
            name,
            f"{describe(tensors[name].dtype, tensors[name].shape)}, expected {_shown(type_)}",
        )
        for name, type_ in expected.items()
        if name in tensors and not _fits(tensors[name], type_)
    ]
    rows += _listed(different)
    if rows:
        counts = {
            "missing": len(missing),
            "unknown": len(unknown),
            "of another type": len(different),
        }
        summary = ", ".join(f"{n} {problem}" for problem, n in counts.items() if n)
        near = ((name, closest(name, unknown)) for name in missing)
        renamed = next(((name, other) for name, other in near if other is not None), None)
        raise error(
            f"{os.fspath(source)} does not fit this model: {summary}; expected {len(expected)}",
            rows=rows,
            hint=f"{renamed[1]!r} may be {renamed[0]!r} renamed"
            if renamed
            else "it belongs to another model or optimizer",
        )


def _listed(rows: Sequence[Row]) -> list[Row]:
    omitted = len(rows) - _SHOWN
    return [*rows[:_SHOWN], *([("", f"and {omitted} more")] if omitted > 0 else [])]


def _fits(array: Array, type_: Type | Port) -> bool:
    dtype: np.dtype[Any] = type_.dtype.numpy if isinstance(type_, Type) else type_.dtype
    return (
        array.dtype == dtype
        and array.ndim == len(type_.shape)
        and all(
            size == actual
            for size, actual in zip(type_.shape, array.shape, strict=True)
            if isinstance(size, int)
        )
    )


def _shown(type_: Type | Port) -> str:
    return type_.type if isinstance(type_, Port) else str(type_)
