"""Prints graphs."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nncompile.backends.onnx import to_text
from nncompile.cli.outcome import Outcome, described_files
from nncompile.cli.report import first_sentence
from nncompile.cli.settings import Set, load_file, print_options
from nncompile.cli.shared import (
    Chosen,
    OptionalFile,
    Without,
    data_of,
    out,
    print_files,
    skipped_passes,
)
from nncompile.compiler.compile import compile_model
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.tables import columns
from nncompile.ir import printer as print_out
from nncompile.ir.graph import Graph
from nncompile.passes import PASSES, check_passes, optimize
from nncompile.program.composition import compose
from nncompile.program.model_file import Declared
from nncompile.train import Trainer, profile


class Stage(StrEnum):
    """The graphs that `show` can print."""

    model = "model"
    gradient = "gradient"
    step = "step"
    onnx = "onnx"


def show(
    file: OptionalFile = None,
    stage: Annotated[Stage, typer.Option(help="Which graph.")] = Stage.model,
    passes: Annotated[
        list[str] | None, typer.Option("--pass", help="Print before and after this pass.")
    ] = None,
    without: Without = None,
    list_passes: Annotated[bool, typer.Option("--list-passes", help="What --pass takes.")] = False,
    options: Annotated[
        bool, typer.Option("--options", help="Print what --set takes, in place of a graph.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the model as it is written: an .svg file.")
    ] = None,
    summarized: Annotated[
        bool, typer.Option("--summary", help="Print a table of the layers, in place of a graph.")
    ] = False,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Print which lines the time of a step goes to.")
    ] = False,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Print a graph, one line a node.

    Each node has its type, your line, and the layer it belongs to. model: as it is written.
    gradient: the loss, metrics and gradients. step: all of one training step, optimizer included.
    onnx: the text of the inference model in ONNX. All but the first are shown after the passes.

    \b
    Examples:
      nncompile show digits.py
      nncompile show digits.py --stage step
      nncompile show digits.py --stage gradient --pass gemm
      nncompile show digits.py --summary
      nncompile show digits.py --plot digits.svg
      nncompile show digits.py --profile
      nncompile show --list-passes
      nncompile show digits.py --options
    """
    if list_passes:
        listed = {name: first_sentence(change) for name, change in PASSES.items()}
        out.print(columns([*listed.items()]))
        return Outcome({"passes": listed})
    if file is None:
        raise ModelError("show needs the FILE of a model", hint="or --list-passes")
    skipped = skipped_passes(without)
    check_passes((*(passes or ()), *skipped))
    declared = load_file(file, model, settings)
    if options:
        print_options(declared)
        return Outcome({"options": [vars(option) for option in declared.options.values()]})
    if plot is not None:
        path = declared.model.plot(plot)
        print_files(path)
        return Outcome({"model": declared.model.name, "files": described_files([path])})
    if summarized:
        summary = str(declared.model.summary())
        out.print(summary)
        return Outcome({"model": declared.model.name, "summary": summary})
    if profiled:
        return profile_of(declared)
    graph = {
        Stage.model: lambda: declared.model.graph,
        Stage.gradient: lambda: compose(declared.recipe).gradient,
        Stage.step: lambda: compose(declared.recipe).step,
        Stage.onnx: lambda: declared.model.inference(),
    }[stage]()
    if passes:
        text = text_of_passes(graph, passes, skipped)
    elif stage is Stage.onnx:
        text = to_text(compile_model(declared.model, skipped).model)
    else:
        if stage is not Stage.model:
            graph = optimize(graph, without=skipped)
        text = print_out.text(graph)
    out.print(text.rstrip("\n"))
    return Outcome({"model": declared.model.name, "stage": stage, "text": text})


def profile_of(declared: Declared) -> Outcome:
    """Prints the lines of the model with what they take of a training step."""
    measured = profile(Trainer(declared.recipe), data_of(declared).train)
    out.print(str(measured))
    lines = [{**vars(line), "total": line.total} for line in measured.lines]
    figures = {name: getattr(measured, name) for name in ("step", "update", "other", "between")}
    return Outcome({"model": declared.model.name, "microseconds": figures, "lines": lines})


def text_of_passes(graph: Graph, names: Collection[str], without: Collection[str]) -> str:
    """The graph before and after each of the passes that are named."""
    parts: list[str] = []

    def observe(name: str, before: Graph, after: Graph) -> None:
        if name in names:
            for label, shown in (("before", before), ("after", after)):
                parts.append(f"--- {label} {name}: {len(shown.nodes)} nodes")
                parts.append(print_out.text(shown))

    optimize(graph, without=without, observe=observe)
    return "\n".join(parts)
