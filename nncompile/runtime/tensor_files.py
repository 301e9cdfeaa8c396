"""`.safetensors` files beside a model: the first state of a step, and weights that it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nncompile.backends.onnx import ExternalTensor
from nncompile.diagnostics.errors import BackendError, CheckpointError
from nncompile.diagnostics.reading import Path_, open_file
from nncompile.ir.types import Array
from nncompile.runtime.checkpoint import save_state
from nncompile.runtime.feeds import describe
from nncompile.runtime.tensor_header import header_of, read_header


def state_path(path: Path_) -> Path:
    """Where the first state of the step at `path` is: `OUT.state.safetensors` for `OUT.onnx`."""
    return _beside(Path(path), "state")


def weights_path(path: Path_) -> Path:
    """Where the external weights of the model at `path` are: `OUT.weights.safetensors` for
    `OUT.onnx`."""
    return _beside(Path(path), "weights")


def _beside(path: Path, content: str) -> Path:
    stem = path.stem if path.suffix == ".onnx" else path.name
    return path.with_name(f"{stem}.{content}.safetensors")


def metadata_of(file: Path) -> dict[str, str]:
    """The strings in a `.safetensors` file; none where it is another kind of file."""
    try:
        return dict(header_of(file).metadata)
    except CheckpointError:
        return {}


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
    with open_file(file, "the weights") as opened:
        tensors = read_header(opened, file).tensors
        start = opened.tell()
    located: dict[str, ExternalTensor] = {}
    for name, x in weights.items():
        entry = tensors.get(name)
        if entry is None or entry.dtype.numpy != x.dtype or entry.shape != x.shape:
            raise CheckpointError(
                f"{file} does not hold the weight {name}",
                rows=[
                    ("expected", describe(x.dtype, x.shape)),
                    ("got", describe(entry.dtype.numpy, entry.shape) if entry else "nothing"),
                ],
            )
        located[name] = ExternalTensor(
            entry.dtype, entry.shape, location, start + entry.first, entry.end - entry.first
        )
    return located


def placed(
    file: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> dict[str, tuple[str, int, int]]:
    """Writes tensors to a file beside a model: the name of the file, and of each tensor its first
    byte there and how many it has."""
    save_state(file, tensors, metadata)
    located = external_tensors(file, file.parent, tensors)
    return {name: (x.location, x.offset, x.length) for name, x in located.items()}
