"""Files beside an ONNX model, which it refers to: its weights, or the first state of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nncompile.diagnostics.errors import FileError
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.runtime import save_state, written_together
from nncompile.runtime.origin import MODEL
from nncompile.runtime.tensor_files import metadata_of

CONTENT = "nncompile.holds"
"""The key under which a file beside a model says what it holds: `weights` or `state`."""


@contextmanager
def companion(path: Path, file: Path, content: str) -> Iterator[tuple[Path, Path]]:
    """Where the block writes `path` and `file`, which is beside it: both are replaced at once.

    Raises `FileError` where `file` is there and no export wrote it: its name follows from that
    of the model, so the caller did not ask to replace it.
    """
    if file.exists() and metadata_of(file).get(CONTENT) != content:
        raise FileError(
            f"{file} already exists, and no export wrote it",
            hint="give the model another name, or move that file away",
        )
    with written_together(path.parent) as directory:
        yield directory / path.name, directory / file.name


def save_beside(
    file: Path,
    tensors: Mapping[str, Array],
    model: Model,
    content: str,
    about: Mapping[str, str] | None = None,
) -> None:
    """Writes tensors of a model to a file that says what it holds."""
    save_state(file, tensors, {MODEL: model.name, CONTENT: content, **(about or {})})
