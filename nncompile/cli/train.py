"""Trains a model, and exports it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.report import Timing
from nncompile.cli.settings import Set, load_file
from nncompile.cli.shared import (
    INTERRUPTED,
    Chosen,
    File,
    ProviderName,
    Verbose,
    data_of,
    out,
    print_costs,
    print_files,
)
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import ModelError
from nncompile.program.recipe import Recipe, minimize
from nncompile.runtime import check_writable, written_together
from nncompile.train import Callback, CSVLog, EarlyStopping, JSONLog, Trainer
from nncompile.train.display import Display
from nncompile.train.figures import figures


def train(
    file: File,
    output: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("runs"),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data, from now on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, from now on.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    provider: ProviderName = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
    resume: Annotated[Path | None, typer.Option(help="A checkpoint to resume from.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after this many epochs without improvement; keep the best."),
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(help="What --patience watches; the held-out loss by default.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Write each epoch's figures: a .csv or .jsonl file.")
    ] = None,
    model: Chosen = None,
    settings: Set = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Verbose = False,
) -> None:
    """Train the model of FILE, and export it.

    The data are those that the file declares. Writes model.onnx (inference), step.onnx with
    step.state.safetensors (a training step that any onnxruntime can run) and
    checkpoint.safetensors. Options stand in for what the file says; after --resume, --epochs and
    --steps count from there.

    \b
    Examples:
      nncompile train digits.py --output runs/digits
      nncompile train digits.py --epochs 5 --batch-size 128 --seed 1
      nncompile train digits.py --resume runs/digits/checkpoint.safetensors --epochs 60
      nncompile train digits.py --epochs 200 --patience 10 --log digits.csv
    """
    declared = load_file(file, model, settings)
    recipe, data = declared.recipe, data_of(declared)
    check_writable(output)
    watchers: list[Callback] = []
    if patience is not None:
        held_out = data.validation is not None
        watchers.append(EarlyStopping(monitor or watched_by_default(recipe, held_out), patience))
    elif monitor is not None:
        raise ModelError("--monitor needs --patience", hint="--patience 10")
    if log is not None:
        watchers.append(log_of(log, resume is not None))
    with Timing() as building:
        trainer = Trainer(recipe, provider, seed, threads)
        if resume is not None:
            trainer.load(resume)
    parameters = trainer.params
    out.print(
        f"{recipe.model.name}: {sum(x.size for x in parameters.values()):,} parameters in "
        f"{len(parameters)} tensors, a step of {len(trainer.compiled.step_model.graph.node)} "
        f"nodes, compiled in {building.seconds:.2f} s"
    )
    if verbose:
        print_costs(trainer.compiled.report)
    size = batch_size or recipe.batch_size
    before, interrupted = trainer.step, False
    display = Display(0 if quiet else 1, out.file, every=verbose)
    with Timing() as fitting:
        try:
            trainer.fit(
                data.train,
                epochs=epochs,
                steps=steps,
                validation_data=data.validation,
                callbacks=[display, *watchers],
                batch_size=batch_size,
            )
        except KeyboardInterrupt:  # what was learned so far is kept
            interrupted = True
    made_steps = trainer.step - before
    out.print(
        f"{'interrupted after' if interrupted else 'trained'} {made_steps:,} steps of {size} "
        f"in {fitting.seconds:.2f} s on {provider}"
        + (f", {1e3 * fitting.seconds / made_steps:.2f} ms a step" if made_steps else "")
    )
    if recipe.model.metrics:
        out.print(f"training    {figures(trainer.evaluate(data.train))}")
        if data.validation is not None:
            out.print(f"held out    {figures(trainer.evaluate(data.validation))}")
    state = trainer.state
    with written_together(output) as directory:  # a full disk leaves all that was there
        files = (
            *export(recipe, directory / "model.onnx", "onnx", state),
            *export(recipe, directory / "step.onnx", "step", seed=seed),
            trainer.save(directory / "checkpoint.safetensors"),
        )
    print_files(*(output / file.name for file in files))
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def watched_by_default(recipe: Recipe, held_out: bool) -> str:
    """The first loss that is minimized, on held-out data where there are some."""
    losses = [u.loss for u in recipe.updates if isinstance(u, minimize)]
    if not losses:
        raise ModelError("--patience needs a metric to watch", hint="--monitor NAME")
    return f"val_{losses[0]}" if held_out else losses[0]


def log_of(path: Path, append: bool) -> CSVLog | JSONLog:
    """The log that the name of the file asks for."""
    if path.suffix == ".csv":
        return CSVLog(path, append=append)
    if path.suffix == ".jsonl":
        return JSONLog(path, append=append)
    raise ModelError(f"a log must be a .csv or .jsonl file, got {os.fspath(path)!r}")
