"""Measures a trained model on data."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nncompile.cli.outcome import Outcome
from nncompile.cli.predict import Predictions
from nncompile.cli.settings import Set
from nncompile.cli.shared import Chosen, ProviderName, StrictDevice, data_of, out
from nncompile.cli.trained import opened
from nncompile.diagnostics.errors import FeedError, FileError, ModelError, did_you_mean
from nncompile.diagnostics.tables import columns
from nncompile.program.recipe import in_precision
from nncompile.runtime import Session
from nncompile.runtime.providers import Provider, on_device
from nncompile.train import Trainer
from nncompile.train.figures import number
from nncompile.train.measures import measured
from nncompile.train.sources.blocks import whole
from nncompile.train.sources.files import KINDS
from nncompile.train.sources.tables import column_names
from nncompile.train.sources.words import encoded


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE|MODEL.onnx", help="A run directory, a model file, or an ONNX model."
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="A .csv, .tsv, .parquet, .feather or .npz file; what is held out by default.",
        ),
    ] = None,
    compared: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="COLUMN[=OUTPUT]", help="Of an .onnx file: what it is to predict."
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
    strict_device: StrictDevice = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Measure a trained model on data.

    Each metric of the model over all examples: those that the file holds out, or those of --data,
    whose columns are the inputs by name; the words of a vocabulary are encoded. A run is evaluated
    with the options that it was trained with. An exported model has no metrics: its output is
    compared with a column of --data, as classes, probabilities or numbers.

    \b
    Examples:
      nncompile evaluate runs/digits/latest
      nncompile evaluate runs/digits/3 --best --data test.csv
      nncompile evaluate digits.py --params checkpoint.safetensors
      nncompile evaluate model.onnx --data test.csv --target label
    """
    chosen = on_device(provider, strict_device)
    if target.suffix == ".onnx":
        if data is None or compared is None:
            raise FileError(
                f"{target} is an exported model, which has neither metrics nor data",
                hint="--data FILE --target COLUMN, or evaluate its run or its model file",
            )
        return of_exported(target, data, compared, chosen, threads, batch_size or 1024)
    if compared is not None:
        raise FileError("--target is for an .onnx file: a run and a model file have metrics")
    declared, checkpoint = opened(target, model, settings, params, best)
    recipe = in_precision(declared.recipe, "f32")  # no step is made: any device will do
    if data is not None:
        source: Any = data if data.suffix in KINDS else whole(data)
        of = str(data)
    else:
        held = data_of(declared)
        source = held.train if held.validation is None else held.validation
        of = "the training data" if held.validation is None else "the held-out data"
    trainer = Trainer(recipe, chosen, threads=threads)
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
    described = {
        "model": recipe.model.name,
        "data": of,
        "checkpoint": checkpoint,
        "step": trainer.step,
    }
    return Outcome({**described, "metrics": metrics})


def of_exported(
    model: Path, data: Path, compared: str, provider: Provider, threads: int | None, size: int
) -> Outcome:
    """How good an output of an ONNX model is, by a column of the data. Raises `FeedError` where
    there is no such column or output, and for a pair that cannot be compared."""
    column, _, output = compared.partition("=")
    session = Session(model, provider, threads)
    names = [port.name for port in session.outputs]
    output = output or names[0]
    if output not in names:
        raise FeedError(f"the model has no output {output!r}", hint=did_you_mean(output, names))
    table = whole(data)
    columns_there = list(table) if isinstance(table, dict) else column_names(table)
    if column not in columns_there:
        raise FeedError(f"{data} has no {column!r}", hint=did_you_mean(column, columns_there))
    predictions = Predictions(session, [], [column])
    with closing(predictions.of(data, size)) as blocks:
        predicted = np.concatenate([block[output] for block in blocks])
    expected = encoded(table[column], session.vocabularies.get(column))
    metrics = measured(predicted, np.asarray(expected))
    out.print(f"{output} of {model} against {column!r} of {data}")
    out.print(columns([(name, number(x)) for name, x in metrics.items()], (1,)))
    described = {"model": model, "data": data, "output": output, "target": column}
    return Outcome({**described, "examples": predictions.count, "metrics": metrics})
