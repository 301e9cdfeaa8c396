"""Measures a trained model on data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nncompile.cli.outcome import Outcome
from nncompile.cli.settings import Set
from nncompile.cli.shared import Chosen, ProviderName, data_of, out
from nncompile.cli.trained import opened
from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.diagnostics.tables import columns
from nncompile.train import Trainer
from nncompile.train.figures import number
from nncompile.train.sources.blocks import whole


def evaluate(
    target: Annotated[
        Path, typer.Argument(metavar="RUN|FILE", help="A run directory, or a model file.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="A .csv, .tsv, .parquet, .feather or .npz file; what is held out by default.",
        ),
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="Weights for FILE: a checkpoint, or a run.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="The best state of the run, in place of the last.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples at a time.")] = None,
    provider: ProviderName = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Measure a trained model on data.

    Each metric of the model over all examples: those that the file holds out, or those of --data,
    whose columns are the inputs by name; the words of a vocabulary are encoded. A run is evaluated
    with the options that it was trained with.

    \b
    Examples:
      nncompile evaluate runs/digits/latest
      nncompile evaluate runs/digits/3 --best --data test.csv
      nncompile evaluate digits.py --params checkpoint.safetensors
    """
    if target.suffix == ".onnx":
        raise FileError(
            f"{target} is an exported model, which has no metrics",
            hint="evaluate its run or its model file, or: nncompile predict MODEL.onnx",
        )
    declared, checkpoint = opened(target, model, settings, params, best)
    recipe = declared.recipe
    if data is not None:
        source: Any = whole(data, recipe.model.vocabularies)
        of = str(data)
    else:
        held = data_of(declared)
        source = held.train if held.validation is None else held.validation
        of = "the training data" if held.validation is None else "the held-out data"
    trainer = Trainer(recipe, provider, threads=threads)
    if checkpoint is not None:
        trainer.load(checkpoint)
    elif recipe.model.parameters:
        typer.echo("the weights are initial: --params CHECKPOINT evaluates trained ones", err=True)
    if not recipe.model.metrics:
        raise ModelError(f"model {recipe.model.name} has no metrics")
    metrics = trainer.evaluate(source, batch_size=batch_size)
    weights = "initial weights" if checkpoint is None else str(checkpoint)
    out.print(f"{recipe.model.name} on {of}, {weights}")
    rows = [(name, number(x)) for name, x in metrics.items() if np.ndim(x) == 0]
    out.print(columns(rows, (1,)))
    for name, table in metrics.items():
        if np.ndim(table):
            out.print(f"{name}\n{np.array2string(np.asarray(table), max_line_width=100)}")
    found = {"model": recipe.model.name, "data": of, "checkpoint": checkpoint, "step": trainer.step}
    return Outcome({**found, "metrics": metrics})
