"""Trains a model in a run directory, and exports it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nncompile.cli.outcome import INTERRUPTED, Outcome, described_files
from nncompile.cli.report import Timing
from nncompile.cli.settings import Command, Set, load_file
from nncompile.cli.shared import (
    Chosen,
    File,
    ProviderOfRun,
    Verbose,
    data_of,
    out,
    print_costs,
    print_files,
)
from nncompile.diagnostics.errors import ModelError
from nncompile.program.model_file import Data
from nncompile.program.recipe import Recipe
from nncompile.train import Callback, CSVLog, EarlyStopping, JSONLog, RunDirectory, Trainer
from nncompile.train.display import Display
from nncompile.train.figures import figures
from nncompile.train.run_config import watched_by_default
from nncompile.train.run_places import LATEST


class ResumableCommand(Command):
    """A command whose option `--resume` may stand without a value: for the latest run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        completed = []
        for i, arg in enumerate(args):
            completed.append(arg)
            following = args[i + 1] if i + 1 < len(args) else "-"
            # A run is not called like an option or a model file.
            if arg == "--resume" and (following.startswith("-") or following.endswith(".py")):
                completed.append(LATEST)
        return super().parse_args(ctx, completed)


def train(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory of the run; runs/MODEL/NUMBER by default."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run, in place of its number.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data, from now on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, from now on.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    provider: ProviderOfRun = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Go on with a run: its number or name, its directory or one of its checkpoints; "
            "the latest by default.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        str | None,
        typer.Option(help="How often the state is written: 5m (the default), 500steps, 2epochs."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after this many epochs without improvement; keep the best."),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            help="What tells the best epoch, and --patience watches; the held-out loss by default."
        ),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Write each epoch's figures: a .csv or .jsonl file.")
    ] = None,
    model: Chosen = None,
    settings: Set = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Verbose = False,
) -> Outcome:
    """Train the model of FILE, and export it.

    The data are those that the file declares. A run directory has config.json, log.csv, the last
    and the best state in checkpoints/ and best/, and at the end model.onnx (inference), step.onnx
    with step.state.safetensors (a training step that any onnxruntime can run),
    checkpoint.safetensors and report.html. Options stand in for what the file says; after
    --resume, those of the run do, and --epochs and --steps count from there.

    \b
    Examples:
      nncompile train digits.py
      nncompile train digits.py --output runs/digits --overwrite
      nncompile train digits.py --epochs 5 --batch-size 128 --seed 1
      nncompile train digits.py --resume
      nncompile train digits.py --resume 3 --epochs 60
      nncompile train digits.py --epochs 200 --patience 10 --log digits.csv
    """
    out.outlives_its_reader = True
    declared = load_file(file, model, settings)
    recipe, data = declared.recipe, data_of(declared)
    if resume is not None and overwrite:
        raise ModelError("--resume continues a run, --overwrite replaces it: give one of them")
    place = partial(RunDirectory, output, name=name, overwrite=overwrite, resume=resume or False)
    saved = place().find(recipe.model.name) or {}
    flags = {
        "batch_size": batch_size,
        "patience": patience,
        "monitor": monitor,
        "checkpoint_every": checkpoint_every,
        "settings": settings or None,
        "provider": provider,
        "threads": threads,
        "log": None if log is None else str(log.resolve()),
    }
    options = {**(saved.get("options") or {}), **{k: x for k, x in flags.items() if x is not None}}
    if not settings and options.get("settings"):  # a run goes on with the options of its file
        declared = load_file(file, model, options["settings"])
        recipe, data = declared.recipe, data_of(declared)
    run = place(
        checkpoint_every=options.get("checkpoint_every", "5m"),
        monitor=options.get("monitor"),
        about={
            "file": str(file.resolve()),
            "choice": model,
            "hyperparameters": declared.settings,
            "options": options,
            "class_names": declared.class_names,
        },
        measure=True,
    )
    watchers = watchers_of(recipe, data, options, resume is not None)
    provider, threads = options.get("provider", "cpu"), options.get("threads")
    with Timing() as building:
        trainer = Trainer(recipe, provider, saved.get("seed") if seed is None else seed, threads)
        run.restore(trainer)
    earlier = {name: x for name, x in options.items() if flags.get(name) is None}
    if earlier:
        out.print(f"continuing {run.path} with the options it began with: {_words(earlier)}")
    if saved and epochs is None and steps is None:
        epochs, steps = _remaining(trainer, saved["until"])
        if 0 in (epochs, steps):
            out.print(f"the run {run.path} is at its end: --epochs N trains on")
    parameters = trainer.params
    out.print(
        f"{recipe.model.name}: {sum(x.size for x in parameters.values()):,} parameters in "
        f"{len(parameters)} tensors, a step of {len(trainer.compiled.step_model.graph.node)} "
        f"nodes, compiled in {building.seconds:.2f} s"
    )
    if verbose:
        print_costs(trainer.compiled.report)
    size = options.get("batch_size", recipe.batch_size)
    before = trainer.step
    display = Display(0 if quiet else 1, out.file, every=verbose)
    fit = partial(trainer.fit, epochs=epochs, steps=steps, batch_size=size)
    with Timing() as fitting:
        code = _ended(partial(fit, callbacks=[display, *watchers, run]), data)
    made_steps = trainer.step - before
    seconds = fitting.seconds - run.export_seconds
    out.print(
        f"{'interrupted after' if code else 'trained'} {made_steps:,} steps of {size} "
        f"in {seconds:.2f} s on {provider}"
        + (f", {1e3 * seconds / made_steps:.2f} ms a step" if made_steps else "")
    )
    # Who ends a training does not wait for figures.
    evaluated = _evaluated(trainer, data) if recipe.model.metrics and not code else {}
    print_files(*run.files)
    described = {"run": run.path, "step": trainer.step, "epoch": trainer.epoch, **evaluated}
    return Outcome({**described, "files": described_files(run.files)}, code)


def _ended(fit: Callable[..., object], data: Data) -> int:
    """Trains on the data, and says with which exit code: that of a signal that ended it, or 0."""
    try:
        fit(data.train, validation_data=data.validation)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as ended:  # by another signal
        return int(ended.code or 0)
    return 0


def _evaluated(trainer: Trainer, data: Data) -> dict[str, Any]:
    """The metrics of what was trained, which are printed."""
    evaluated = {"training": trainer.evaluate(data.train)}
    out.print(f"training    {figures(evaluated['training'])}")
    if data.validation is not None:
        evaluated["held_out"] = trainer.evaluate(data.validation)
        out.print(f"held out    {figures(evaluated['held_out'])}")
    return evaluated


def _words(options: Mapping[str, Any]) -> str:
    """Options as they are written on a command line."""
    words: list[str] = []
    for name, x in options.items():
        option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
        words += [option, *(map(str, x) if isinstance(x, list) else (str(x),))]
    return shlex.join(words)


def _remaining(trainer: Trainer, until: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The epochs and steps up to the end that a run was to have."""
    epoch, step = until["epoch"], until["step"]
    return (
        None if epoch is None else max(0, epoch - trainer.epoch),
        None if step is None else max(0, step - trainer.step),
    )


def watchers_of(
    recipe: Recipe, data: Data, options: Mapping[str, Any], append: bool
) -> list[Callback]:
    """The callbacks that options ask for, apart from the run directory."""
    watchers: list[Callback] = []
    if options.get("patience") is not None:
        watched = options.get("monitor") or watched_by_default(recipe, data.validation is not None)
        if watched is None:
            raise ModelError("--patience needs a metric to watch", hint="--monitor NAME")
        watchers.append(EarlyStopping(watched, options["patience"]))
    if options.get("log") is not None:
        watchers.append(log_of(Path(options["log"]), append))
    return watchers


def log_of(path: Path, append: bool) -> CSVLog | JSONLog:
    """The log that the name of the file asks for."""
    if path.suffix == ".csv":
        return CSVLog(path, append=append)
    if path.suffix == ".jsonl":
        return JSONLog(path, append=append)
    raise ModelError(f"a log must be a .csv or .jsonl file, got {os.fspath(path)!r}")
