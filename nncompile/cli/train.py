"""Trains a model in a run directory, and exports it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import typer

from nncompile.cli.launching import run_workers
from nncompile.cli.outcome import Outcome
from nncompile.cli.settings import Command, Set, load_file
from nncompile.cli.shared import Chosen, File, ProviderOfRun, StrictDevice, Verbose
from nncompile.cli.training import (
    AverageEvery,
    BatchSize,
    CheckpointEvery,
    Elastic,
    Emulate,
    Epochs,
    LogFile,
    MetricsEvery,
    Monitor,
    Overlap,
    Overwrite,
    Patience,
    PrecisionOfRun,
    Quiet,
    Resume,
    RunName,
    RunPath,
    Seed,
    ShardOptimizer,
    Steps,
    Threads,
    Training,
    Workers,
)
from nncompile.cli.workers import Place, Whereabouts, in_processes, launched
from nncompile.program.model_file import Declared
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
    output: RunPath = None,
    name: RunName = None,
    overwrite: Overwrite = False,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    provider: ProviderOfRun = None,
    strict_device: StrictDevice = False,
    threads: Threads = None,
    precision: PrecisionOfRun = None,
    emulate: Emulate = False,
    resume: Resume = None,
    checkpoint_every: CheckpointEvery = None,
    metrics_every: MetricsEvery = None,
    patience: Patience = None,
    monitor: Monitor = None,
    log: LogFile = None,
    workers: Workers = None,
    shard_optimizer: ShardOptimizer = False,
    average_every: AverageEvery = None,
    overlap: Overlap = None,
    elastic: Elastic = False,
    model: Chosen = None,
    settings: Set = None,
    quiet: Quiet = False,
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
      nncompile train digits.py --provider cuda --precision bf16
      nncompile train digits.py --workers 4 --elastic
      mpirun -n 4 nncompile train digits.py
    """
    if workers is not None and workers > 1 and launched() is None and Place.here() is None:
        # The first of them says what there is to say; one that is left alone is the first, too.
        raise typer.Exit(run_workers(workers, elastic))
    flags = {
        "batch_size": batch_size,
        "patience": patience,
        "monitor": monitor,
        "checkpoint_every": checkpoint_every,
        "metrics_every": metrics_every,
        "settings": settings or None,
        "provider": provider,
        "strict_device": strict_device or None,
        "threads": threads,
        "precision": precision,
        "emulate": emulate or None,
        "log": None if log is None else str(log.resolve()),
    }

    def declaring(
        declared: Declared, saved: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Declared, dict[str, Any]]:
        chosen = declared
        if not settings and options.get("settings"):  # a run goes on with the options of its file
            chosen = load_file(file, model, options["settings"])
        return chosen, {
            "file": str(file.resolve()),
            "choice": model,
            "hyperparameters": chosen.settings,
            "class_names": chosen.class_names,
        }

    def work(parallel: Any, whereabouts: Whereabouts) -> Outcome:
        declared = load_file(file, model, settings)
        training = Training(
            *(output, name, overwrite, resume, epochs, steps, seed, flags),
            quiet=quiet,
            verbose=verbose,
            parallel=parallel,
            whereabouts=whereabouts,
        )
        return training.run(declared.recipe.model.name, partial(declaring, declared))

    options = {"shard_optimizer": shard_optimizer, "every": average_every, "overlap": overlap}
    return in_processes(work, workers, elastic, **options)
