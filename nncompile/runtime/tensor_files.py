"""The header of a `.safetensors` file: the type and position of each tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nncompile.backends.onnx import ExternalTensor
from nncompile.diagnostics.errors import BackendError, CheckpointError, FileError
from nncompile.ir.types import DTYPES, Array


def metadata_of(file: Path) -> dict[str, Any]:
    """The strings in a `.safetensors` file; none where it is another kind of file."""
    try:
        _, header = _header(file)
    except CheckpointError:
        return {}
    return dict(header.get("__metadata__", {}))


def external_tensors(
    file: Path, directory: Path, weights: Mapping[str, Array]
) -> dict[str, ExternalTensor]:
    """Where each of the weights lies in a `.safetensors` file, for a model in `directory`.

    Raises `FileError` where the file cannot be read, `CheckpointError` where it is not such a file
    or a weight in it is missing or of another type, `BackendError` where it is not below
    `directory`, as ONNX demands.
    """
    try:
        location = file.resolve().relative_to(directory.resolve()).as_posix()
    except ValueError:
        raise BackendError(
            f"the weights {file} must be in the directory of the model, {directory}, or below it",
            hint="ONNX finds weights by a path that starts there",
        ) from None
    start, header = _header(file)
    by_name = {_SAFETENSORS[d.name]: d for d in DTYPES}
    tensors: dict[str, ExternalTensor] = {}
    for name, x in weights.items():
        entry = header.get(name)
        shape = tuple(entry["shape"]) if entry else ()
        dtype = by_name.get(entry["dtype"]) if entry else None
        if entry is None or dtype is None or dtype.numpy != x.dtype or shape != x.shape:
            got = f"{entry['dtype']}{entry['shape']}" if entry else "nothing"
            raise CheckpointError(
                f"{file} does not hold the weight {name}",
                rows=[("expected", f"{x.dtype}{list(x.shape)}"), ("got", got)],
            )
        first, end = entry["data_offsets"]
        if start + end > file.stat().st_size:
            raise CheckpointError(
                f"{file} is truncated: the weight {name} lies beyond its end",
                rows=[("size", f"{file.stat().st_size} bytes, {start + end} needed")],
            )
        tensors[name] = ExternalTensor(dtype, shape, location, start + first, end - first)
    return tensors


_SAFETENSORS = {
    d.name: {"bool": "BOOL", "bfloat16": "BF16"}.get(d.name, d.short.upper()) for d in DTYPES
}


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a `.safetensors` file begin, and the entry of each tensor."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(min(length, file.stat().st_size))
        header = json.loads(text)
        if len(text) == length and isinstance(header, dict):
            return 8 + length, header
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError:
        pass  # the error below covers every malformed file
    raise CheckpointError(f"{file} is not a safetensors file", hint="it may be truncated")
