"""Weights of ONNX models that lie in other files: which these may be.

A model names them by a path from its own directory. onnxruntime before 1.24 takes any path, and an
address of memory, so that a model could read any file of the user, or crash.
"""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs

from nncompile.diagnostics.errors import BackendError, CheckpointError
from nncompile.diagnostics.reading import Path_, open_file, problem_of
from nncompile.runtime.tensor_header import content_id

WEIGHTS = "nncompile.weights"
"""The key under which a model says which weights it was written for: JSON, an id of the content of
each file by its path from the model."""

_WINDOW = 2**24  # bytes of a file that are looked through at a time: whole pages


def check_external_data(model: Path_ | bytes) -> None:
    """Raises `BackendError` where a weight of the model, a file or its bytes, lies anywhere but in
    a file in the directory of the model, or below it, also by links; those of bytes are in the
    current directory."""
    if isinstance(model, bytes):
        # The key of a path is this text in the file, whatever else it holds.
        if b"location" in model:
            _check(model, Path(), "the model")
        return
    with open_file(model, "model") as file:
        if not os.fstat(file.fileno()).st_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if _has_locations(content):
                _check(content[:], Path(model).parent, os.fspath(model))


def _has_locations(content: mmap.mmap) -> bool:
    """Whether the file has the key of a path. What was looked at leaves the memory of the process
    where the system can: it is there once, and not beside what the model takes."""
    key = b"location"
    for start in range(0, len(content), _WINDOW):
        if content.find(key, start, start + _WINDOW + len(key) - 1) >= 0:
            return True
        if hasattr(mmap, "MADV_DONTNEED"):
            content.madvise(mmap.MADV_DONTNEED, start, min(_WINDOW, len(content) - start))
    return False


def _check(content: bytes, directory: Path, name: str) -> None:
    try:
        proto = onnx.ModelProto.FromString(content)
    except DecodeError:
        return  # it is no model, as onnxruntime says
    locations: set[str] = set()
    problems: dict[str, list[str]] = {}  # with files: the weights that have each
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            fields = {entry.key: entry.value for entry in tensor.external_data}
            problem = _problem(fields, directory)
            if problem is not None:
                text = f"in {fields.get('location', '')!r}: {problem}"
                problems.setdefault(text, []).append(tensor.name)
            else:
                locations.add(fields["location"])
    if problems:
        (first, names), *others = problems.items()
        raise BackendError(
            f"{name} has the weight {names[0]!r} {first}",
            rows=[("and", _listed(names), where) for where, names in others[:_SHOWN]],
            hint="the files of a model are in its directory, or below it",
        )
    for entry in proto.metadata_props:
        if entry.key == WEIGHTS:
            _check_content(entry.value, directory, locations, name)


_SHOWN = 10  # files of a message


def _listed(names: list[str]) -> str:
    return repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _check_content(text: str, directory: Path, locations: Set[str], name: str) -> None:
    """Raises `BackendError` where a file that the model names holds other weights than those that
    were exported with it, as `text` tells: JSON, an id for each location."""
    try:
        expected = dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise BackendError(f"the metadata {WEIGHTS!r} of {name} cannot be read") from None
    for location in sorted(locations & expected.keys()):
        file = directory / location
        try:
            found = content_id(file)
        except CheckpointError as error:
            raise BackendError(error.problem, rows=error.rows, hint=error.hint) from None
        if found != expected[location]:
            raise BackendError(
                f"{name} and {file} are not of one export: the model was written for other weights",
                rows=[(name, f"weights {expected[location]}"), (str(file), f"weights {found}")],
                hint="export both again; copy the two files together",
            )


def _problem(fields: dict[str, str], directory: Path) -> str | None:
    location = fields.get("location", "")
    parts = re.split(r"[/\\]", location)
    if not location or "\0" in location:
        return "no file has such a name"
    if os.path.isabs(location) or parts[0] == "" or ":" in parts[0] or ".." in parts:
        return "it is not a path within the directory of the model"
    file = directory / location
    try:
        if not file.resolve(strict=True).is_relative_to(directory.resolve()):
            return "it is a link to a file that is not in the directory of the model"
        size = file.stat().st_size
        first, length = (int(fields.get(key) or 0) for key in ("offset", "length"))
    except FileNotFoundError:
        return "there is no such file"
    except (OSError, RuntimeError) as error:  # a link to itself
        return f"it cannot be read: {getattr(error, 'strerror', None) or error}".lower()
    except ValueError:
        return "its position is not a number"
    problem = problem_of(file)
    if problem is not None:
        return problem
    if first < 0 or length < 0 or first + length > size:
        return f"{first + length:,} bytes are needed, and it has {size:,}"
    return None


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """All tensors in the message, however deep."""
    waiting = [message]
    while waiting:
        current = waiting.pop()
        if isinstance(current, onnx.TensorProto):
            yield current
        else:
            waiting += [*_messages(current)][::-1]  # in their order


def _messages(message: Any) -> Iterable[Any]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            yield from (value,) if hasattr(value, "ListFields") else value
