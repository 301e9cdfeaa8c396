"""What is made of an ONNX file: directories for NVIDIA Triton and MLServer, and the format of
onnxruntime."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

from nncompile.diagnostics.errors import BackendError, FileError
from nncompile.ir.types import bf16
from nncompile.program.model import Model
from nncompile.program.rows import METADATA_KEY
from nncompile.runtime import Port, Session, write_atomically
from nncompile.runtime.open_inference import DATATYPE_NAMES, described
from nncompile.runtime.ort_format import write_ort

_MODEL = "model.onnx"
_MOST_ROWS = 64  # that Triton computes together
_Write = Callable[[Path], tuple[Path, ...]]


def export_repository(to: str, directory: Path, model: Model, write: _Write) -> tuple[Path, ...]:
    """Makes the model of its name in `directory` for a server: `write` writes the ONNX file to the
    path that it is given, and what the server needs beside it follows from the file. Gives all
    files.

    Raises `FileError` where one of these others is there and differs: somebody changed it.
    `BackendError` for element types that the server has not, before anything is written.
    """
    name, inference = model.name, model.inference()
    fed = {n: x for n, x in inference.leaves.items() if n in model.inputs}
    for port, value in {**fed, **inference.outputs}.items():
        if value.type.dtype is bf16:
            raise BackendError(
                f"{port}: {value.type}: Triton's onnxruntime and MLServer have no bfloat16",
                hint="declare it as f32, and convert it in the model: cast(x, bf16)",
            )
    place = directory / name
    version = place / "1" if to == "triton" else place
    written = write(version / _MODEL)
    session = Session(version / _MODEL, threads=1, optimization="none")
    texts = {"triton": triton_files, "mlserver": mlserver_files}[to](name, session)
    for file, text in texts.items():
        target = place / file
        if target.is_file() and target.read_bytes() != text.encode():
            raise FileError(
                f"{target} is not what this export would write: it was changed, or is of another "
                f"model. {version / _MODEL} is written",
                hint="remove it to have it written anew",
            )
        written = (*written, write_atomically(target, text.encode()))
    return written


def export_ort(path: Path, write: _Write) -> Path:
    """Writes an inference model in the format of onnxruntime; `write` writes it as an ONNX file.
    Raises `BackendError` where its weights are too large for one file."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / _MODEL
        if len(write(file)) > 1:
            raise BackendError(f"the weights do not fit in one file, which {path} would have to be")
        content = file.read_bytes()
    return write_atomically(path, lambda target: write_ort(content, target))


def triton_files(name: str, session: Session) -> dict[str, str]:
    """The configuration of a model for Triton: where its rows are apart, requests are computed
    together. Triton has no tensors of rank 0 without the batch: its clients send numbers of one
    each, `[batch, 1]`, which it reshapes to `[batch]`. Source: its guide "Model Configuration"."""
    rows = METADATA_KEY in session.metadata
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {_MOST_ROWS if rows else 0}",
        *(_tensor("input", port, rows) for port in session.inputs),
        *(_tensor("output", port, rows) for port in session.outputs),
        *(["dynamic_batching { }"] if rows else []),
        "# The first request of each size is slow; this one is made when the model is loaded.",
        "model_warmup {",
        '  name: "zeros"',
        "  batch_size: 1",
        *(_warm_up(port, rows) for port in session.inputs),
        "}",
    ]
    return {"config.pbtxt": "\n".join(lines) + "\n"}


def _tensor(kind: str, port: Port, rows: bool) -> str:
    shape = [size if isinstance(size, int) else -1 for size in port.shape[1 if rows else 0 :]]
    # Where nothing is batched, Triton knows a number by its shape [1] itself.
    reshape = "\n  reshape { shape: [ ] }" if rows and not shape else ""
    return (
        f"{kind} {{\n  name: {json.dumps(port.name)}\n  data_type: {_type(port)}\n"
        f"  dims: {shape or [1]}{reshape}\n}}"
    )


def _warm_up(port: Port, rows: bool) -> str:
    shape = [size if isinstance(size, int) else 1 for size in port.shape[1 if rows else 0 :]]
    return (
        f"  inputs {{\n    key: {json.dumps(port.name)}\n    value {{\n"
        f"      data_type: {_type(port)}\n      dims: {shape or [1]}\n"
        "      zero_data: true\n    }\n  }"
    )


def _type(port: Port) -> str:
    return f"TYPE_{DATATYPE_NAMES[port.dtype]}"


def mlserver_files(name: str, session: Session) -> dict[str, str]:
    """The settings of a model for MLServer, and the program that runs it there."""
    settings: Mapping[str, object] = {
        "name": name,
        "implementation": "onnx_runtime.OnnxRuntime",
        "platform": "onnxruntime_onnx",
        "inputs": described(session.inputs),
        "outputs": described(session.outputs),
        "parameters": {"uri": f"./{_MODEL}"},
    }
    program = files("nncompile") / "templates" / "mlserver_runtime.py"
    return {
        "onnx_runtime.py": program.read_text(encoding="utf-8"),
        "model-settings.json": json.dumps(settings, indent=1, ensure_ascii=False) + "\n",
    }
