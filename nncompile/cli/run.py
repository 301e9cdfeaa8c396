"""Runs a model on arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.report import Timing, summary
from nncompile.cli.shared import ProviderName, StrictDevice, out, print_files
from nncompile.cli.trained import is_run
from nncompile.diagnostics.errors import FeedError, FileError
from nncompile.diagnostics.tables import columns
from nncompile.ir.types import Array
from nncompile.runtime import (
    Session,
    TorchSession,
    describe,
    read_array,
    read_arrays,
    write_arrays,
)
from nncompile.runtime.child import in_child
from nncompile.runtime.providers import on_device
from nncompile.runtime.torch_session import SUFFIXES

HOUR = 3600.0


def run(
    file: Annotated[Path, typer.Argument(metavar="MODEL", help="Any .onnx, .pt or .pt2 model.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="NAME=FILE.npy", help="Data (may be repeated), or FILE.npz."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory, or FILE.npz, for the outputs.")
    ] = None,
    provider: ProviderName = "cpu",
    strict_device: StrictDevice = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Longest time of a run; 0: any time.")
    ] = HOUR,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the program that a .pt or .pt2 file is.")
    ] = False,
) -> Outcome:
    """Run a model on arrays, and print its outputs.

    onnxruntime runs .onnx files; torch runs .pt (TorchScript) and .pt2 (torch.export), which are
    programs that may do anything: they need --trust. The model runs in a process of its own. If
    that crashes or takes too long, the exit code says so: 124 for the time, 128 and the signal for
    a crash.

    \b
    Examples:
      nncompile run model.onnx --input image=images.npy
      nncompile run model.onnx -i image=images.npy --output predictions.npz --provider cuda
      nncompile run model.onnx -i test.npz --timeout 60
      nncompile run model.pt -i image=images.npy --trust
    """
    if file.suffix == ".py" and file.is_file():
        raise FileError(
            f"{file} is a model file in Python: compile it first",
            hint=f"nncompile compile {file}",
        )
    if is_run(file):
        raise FileError(f"{file} is a run", hint=f"its model is {file / 'model.onnx'}")
    call = Call(file, _feeds(inputs or []), output, provider, threads, trust, strict_device)
    ran = in_child(call.run, what=f"the run of {file}", timeout=timeout or None)
    if ran.note is not None:
        out.print(ran.note)
    out.print(columns(ran.rows))
    out.print(f"{ran.seconds * 1e3:.1f} ms on {provider}")
    print_files(*ran.files)
    outputs = [dict(zip(("name", "type", "summary"), row, strict=True)) for row in ran.rows]
    return Outcome(
        {
            "provider": provider,
            "seconds": ran.seconds,
            "outputs": outputs,
            "files": described_files(ran.files),
        }
    )


@dataclass(frozen=True)
class Ran:
    """What a run says: of the file, of each output, how long it took, and what it wrote."""

    note: str | None
    rows: list[tuple[str, ...]]
    seconds: float
    files: list[Path]


@dataclass(frozen=True)
class Call:
    """A run of a model, as a child process does it: outputs of any size stay there."""

    file: Path
    feeds: dict[str, Array]
    output: Path | None
    provider: str
    threads: int | None
    trust: bool
    strict_device: bool = False

    def run(self) -> Ran:
        """Loads the model, runs it, and writes the outputs."""
        session: Session | TorchSession
        if self.file.suffix in SUFFIXES:
            session = TorchSession(self.file, self.provider, self.threads, trust=self.trust)
        else:
            device = on_device(self.provider, self.strict_device)
            session = Session(self.file, device, self.threads)
        with Timing() as timing:
            results = session.run(self.feeds)
        rows: list[tuple[str, ...]] = [
            (name, describe(x.dtype, x.shape), summary(x)) for name, x in results.items()
        ]
        files = [] if self.output is None else write_arrays(self.output, results)
        note = session.note if isinstance(session, TorchSession) else None
        return Ran(note, rows, timing.seconds, files)


def _feeds(inputs: list[str]) -> dict[str, Array]:
    """The arrays by the names of inputs. Raises `FeedError` for what names no file, or names an
    input twice."""
    feeds: dict[str, Array] = {}
    for text in inputs:
        name, is_named, path = text.partition("=")
        if not is_named and text.endswith(".npz"):
            arrays = read_arrays(text)
        elif name and path:
            arrays = {name: read_array(path)}
        else:
            raise FeedError(f"--input {text!r} is neither NAME=FILE.npy nor FILE.npz")
        for name in arrays.keys() & feeds.keys():
            raise FeedError(f"input {name!r} is given twice")
        feeds |= arrays
    return feeds
