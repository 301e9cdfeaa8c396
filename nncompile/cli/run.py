"""Runs a model on arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.report import Timing, summary
from nncompile.cli.shared import ProviderName, out, print_files
from nncompile.diagnostics.errors import FeedError, FileError
from nncompile.diagnostics.tables import columns
from nncompile.runtime import Session, TorchSession, describe, read_array, write_arrays
from nncompile.runtime.torch_session import SUFFIXES


def run(
    file: Annotated[Path, typer.Argument(metavar="MODEL", help="Any .onnx, .pt or .pt2 model.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="Data (may be repeated)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory, or FILE.npz, for the outputs.")
    ] = None,
    provider: ProviderName = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
) -> None:
    """Run a model on arrays, and print its outputs.

    onnxruntime runs .onnx files; torch runs .pt (TorchScript) and .pt2 (torch.export).

    \b
    Examples:
      nncompile run model.onnx --input image=images.npy
      nncompile run model.onnx -i image=images.npy --output predictions.npz --provider cuda
      nncompile run model.pt -i image=images.npy
    """
    if file.suffix == ".py" and file.is_file():
        raise FileError(
            f"{file} is a model file in Python: compile it first",
            hint=f"nncompile compile {file}",
        )
    kind = TorchSession if file.suffix in SUFFIXES else Session
    session = kind(file, provider, threads)
    if isinstance(session, TorchSession) and session.note is not None:
        out.print(session.note)
    feeds = {}
    for text in inputs or []:
        name, _, path = text.partition("=")
        if not name or not path:
            raise FeedError(f"--input {text!r} is not NAME=FILE.npy")
        feeds[name] = read_array(path)
    with Timing() as timing:
        results = session.run(feeds)
    rows = [(name, describe(x.dtype, x.shape), summary(x)) for name, x in results.items()]
    out.print(columns(rows))
    out.print(f"{timing.seconds * 1e3:.1f} ms on {provider}")
    if output is not None:
        print_files(*write_arrays(output, results))
