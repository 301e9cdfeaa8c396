"""Writes a model file that loads an ONNX file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.report import LINES
from nncompile.cli.shared import out, print_files
from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.tables import columns
from nncompile.frontends.onnx.loading import ImportedModel, load_onnx, with_open_batch
from nncompile.frontends.onnx.source import source_of
from nncompile.ir.dims import product
from nncompile.ir.op import Value
from nncompile.program.summary import memory
from nncompile.runtime import write_atomically

OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX model.")]


def import_(
    file: OnnxFile,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.py", help="The file to write."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing FILE.py.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print all tensors, not the first of each kind.")
    ] = False,
) -> Outcome:
    """Print what an ONNX file holds, and write a model file that loads it.

    Operators, inputs, outputs and sizes; what is trained, state and constant, which tensors are one
    parameter, what was assumed and renamed. The model file declares inputs of the same names and
    types, a loss that fits the output, and a recipe: edit it, then check and train it. An existing
    file is not replaced without --overwrite.

    \b
    Examples:
      nncompile import resnet.onnx
      nncompile import resnet.onnx -o tuning.py
    """
    model = load_onnx(file)
    target = output or Path(f"{_module_name(file)}.py")
    if target.suffix != ".py":
        raise FileError(
            f"{target} is not the name of a Python file", hint=f"-o {target.with_suffix('.py')}"
        )
    if target.exists() and not overwrite:
        raise FileError(
            f"{target} exists already", hint="--overwrite replaces it, -o FILE.py writes another"
        )
    found = inventory(model)
    print_inventory(model, found, None if verbose else LINES)
    batch, sizes = with_open_batch(model, file)
    path = write_atomically(target, source_of(batch, file, target, sizes).encode())
    print_files(path)
    next_ = [f"nncompile check {path}", f"nncompile train {path}"]
    out.print("\nedit it (its comments say what), then:")
    for line in next_:
        out.print(f"  {line}")
    return Outcome({**found, "files": described_files([path]), "next": next_})


def inventory(model: ImportedModel) -> dict[str, Any]:
    """What an ONNX file holds: its report, the types of inputs and outputs, and its numbers."""
    assert model.report is not None
    described = dict(vars(model.report))
    for title, values in (("inputs", model.inputs), ("outputs", model.outputs)):
        described[title] = {name: str(value.type) for name, value in values.items()}
    described["parameters"] = _numbers(model.parameters)[0]
    described["parameter_bytes"] = _numbers(model.parameters)[1]
    described["state_numbers"] = _numbers(model.states)[0]
    return described


def print_inventory(model: ImportedModel, found: dict[str, Any], most: int | None) -> None:
    """Prints what a file holds, with at most so many lines of each part."""
    assert model.report is not None
    head, _, rest = model.report.text(most).partition("\n")
    out.print(head)
    count = len(model.parameters)
    size = f"{found['parameters']:,} in {count} tensors, {memory(found['parameter_bytes'])}"
    operators = ", ".join(f"{name} {n}" for name, n in model.report.operators.items())
    rows = [
        *((("input" if not i else ""), n, t) for i, (n, t) in enumerate(found["inputs"].items())),
        *((("output" if not i else ""), n, t) for i, (n, t) in enumerate(found["outputs"].items())),
    ]
    out.print(columns(rows))
    out.print(f"operators: {operators}")
    out.print(f"parameters: {size}")
    if rest:
        out.print(rest)


def _numbers(leaves: dict[str, Value]) -> tuple[int, int]:
    """How many numbers the leaves have, and how many bytes."""
    counts = [(int(product(x.shape)), x.dtype.numpy.itemsize) for x in leaves.values()]
    return sum(n for n, _ in counts), sum(n * size for n, size in counts)


def _module_name(file: Path) -> str:
    """The name of the file as that of a module."""
    plain = re.sub(r"\W+", "_", file.stem).strip("_") or "model"
    return plain if plain.isidentifier() else f"model_{plain}"
