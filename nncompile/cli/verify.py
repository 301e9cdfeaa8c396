"""Compares every backend with numpy."""

from __future__ import annotations

from typing import Annotated

import typer

from nncompile.cli.onnx_models import left_out
from nncompile.cli.outcome import FAILED, Outcome
from nncompile.cli.settings import Set, load_file
from nncompile.cli.shared import Chosen, File, data_in_memory, out
from nncompile.diagnostics.errors import FeedError
from nncompile.verify import verify as compared


def verify(
    file: File,
    seed: Annotated[int, typer.Option(help="Seed of all inputs and parameters.")] = 0,
    sizes: Annotated[
        str | None, typer.Option(metavar="NAME=N,...", help="Sizes to use in place of small ones.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of random sets of inputs.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer inputs, levels and numbers of threads.")
    ] = False,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Check that all backends agree, to a few roundings.

    onnxruntime at every level of its optimizations and several numbers of threads, TorchScript
    where torch is installed, and the passes of the compiler are compared with numpy in float64, on
    random and edge inputs of several sizes: outputs, gradients, and the state after ten training
    steps. Where one mismatches, the first node that does so is named. Exit code 1 if any does.

    \b
    Examples:
      nncompile verify digits.py
      nncompile verify digits.py --quick --seed 7
      nncompile verify char_gpt.py --sizes batch=2,time=33
    """
    declared = load_file(file, model, settings)
    source = declared.recipe_if_any or declared.model
    declared_data = data_in_memory(declared)
    data = declared_data.train if declared_data else None
    report = compared(source, data, seed, sizes_of(sizes), rounds, quick)
    out.print(report.text(str(file)))
    note = left_out(declared)
    if note:
        out.print(note)
    return Outcome({**report.described(), "left_out": note}, 0 if report.agrees else FAILED)


def sizes_of(text: str | None) -> dict[str, int]:
    """`batch=2,time=33` as a dict. Raises `FeedError` for another form."""
    sizes = {}
    for entry in text.split(",") if text else ():
        name, equals, size = entry.partition("=")
        if not equals or not size.strip().isdecimal():
            raise FeedError(f"--sizes {text!r} is not NAME=N,NAME=N", hint="--sizes batch=3,time=8")
        sizes[name.strip()] = int(size)
    return sizes
