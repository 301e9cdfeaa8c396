"""Trains an ONNX model further, on new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nncompile.cli.outcome import Outcome
from nncompile.cli.shared import ProviderOfRun, Verbose, out
from nncompile.cli.training import (
    BatchSize,
    CheckpointEvery,
    LogFile,
    MetricsEvery,
    Monitor,
    Overwrite,
    Patience,
    Quiet,
    Resume,
    RunName,
    RunPath,
    Seed,
    Steps,
    Threads,
    Training,
)
from nncompile.compiler.originals import inference_target
from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.finetuning.plan import Plan, title_of, tuned
from nncompile.program.model_file import Declared
from nncompile.train import run_config, run_places
from nncompile.train.run_places import CONFIG, LATEST

_NEEDED = {"data": "FILE", "label": "NAME", "loss": "cross_entropy"}
Patterns = list[str] | None


def finetune(
    file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to train further.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Examples: a .npz file, or a table (.csv, .parquet)."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME", help="The array or column of the labels.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="Of prediction and label: cross_entropy, mean_squared_error, ..."),
    ] = None,
    head: Annotated[
        int | None, typer.Option(min=1, help="A new last layer, of so many results.")
    ] = None,
    lora: Annotated[
        int | None, typer.Option(min=1, metavar="RANK", help="Low-rank factors beside the weights.")
    ] = None,
    lora_params: Annotated[
        Patterns,
        typer.Option(metavar="PATTERN", help="Beside which (may be repeated); all by default."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="That of the factors, by default their rank.")
    ] = None,
    train: Annotated[
        Patterns,
        typer.Option(
            metavar="PATTERN",
            help="What is trained (may be repeated): the head and the factors by default, or all "
            "where there are none.",
        ),
    ] = None,
    freeze: Annotated[
        Patterns, typer.Option(metavar="PATTERN", help="What is not trained (may be repeated).")
    ] = None,
    predict: Annotated[
        str | None,
        typer.Option(metavar="OUTPUT", help="What the loss compares, if there are several."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Examples that are held out, as --data.")
    ] = None,
    validation_split: Annotated[
        float | None,
        typer.Option(metavar="FRACTION", help="Hold out the last examples, such as 0.2 of all."),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adamw, adam, sgd, ...", show_default="adamw")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="The learning rate; 1e-3 for a head or factors alone, 1e-4 for what was trained "
            "before."
        ),
    ] = None,
    output: RunPath = None,
    name: RunName = None,
    overwrite: Overwrite = False,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the data, from now on.", show_default="3"),
    ] = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    provider: ProviderOfRun = None,
    threads: Threads = None,
    resume: Resume = None,
    checkpoint_every: CheckpointEvery = None,
    metrics_every: MetricsEvery = None,
    patience: Patience = None,
    monitor: Monitor = None,
    log: LogFile = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Outcome:
    """Train an ONNX model further, on new data, and export it.

    The model gets an input for the label and a loss of one of its outputs; model.onnx, at the end,
    is the file with other weights, by the same names. What is trained is the whole model, or
    with --head a new last layer and with --lora the factors, which are merged into model.onnx and
    have a file of their own, adapter.safetensors. Labels of cross_entropy are class numbers from 0.
    Otherwise it is as train: a run directory, which --resume goes on with; evaluate and predict
    take it.

    \b
    Examples:
      nncompile finetune resnet.onnx --data d.npz --label y --loss cross_entropy --head 5
      nncompile finetune bert.onnx -d d.npz --label y --loss cross_entropy --lora 8 --lr 3e-4
      nncompile finetune net.onnx -d d.csv --label price --loss mse --freeze "stem.*" --epochs 20
      nncompile finetune resnet.onnx --resume --epochs 3
    """
    if output is not None and output.suffix == ".onnx":
        raise FileError(
            f"--output is the directory of the run, in which model.onnx is, got {output}",
            hint=f"--output {output.with_suffix('')}",
        )
    given = {
        "data": _absolute(data),
        "label": label,
        "loss": loss,
        "head": head,
        "lora": lora,
        "lora_params": tuple(lora_params) if lora_params else None,
        "alpha": alpha,
        "train": tuple(train) if train else None,
        "freeze": tuple(freeze) if freeze else None,
        "predict": predict,
        "validation": _absolute(validation),
        "validation_split": validation_split,
        "optimizer": optimizer,
        "lr": lr,
    }
    given = {option: x for option, x in given.items() if x is not None}
    flags = {
        "batch_size": batch_size,
        "patience": patience,
        "monitor": monitor,
        "checkpoint_every": checkpoint_every,
        "metrics_every": metrics_every,
        "provider": provider,
        "threads": threads,
        "log": _absolute(log),
    }

    def declaring(
        saved: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[Declared, dict[str, Any]]:
        before = saved.get("finetune") or {}
        if saved and not before:
            raise ModelError(
                f"the run that is resumed was begun by train, with {saved.get('file')}",
                hint="nncompile train FILE.py --resume goes on with it",
            )
        for option, example in _NEEDED.items():
            if option not in given and option not in before:
                raise ModelError(
                    f"finetune needs --{option}",
                    hint=f"--{option} {example}; see nncompile finetune --help",
                )
        chosen = {**before, **given, "file": str(file.resolve())}
        plan = replace(Plan.of(chosen), batch_size=options.get("batch_size", 32))
        made = tuned(plan)
        for note in made.notes:
            out.print(note)
        _, reason = inference_target(made.recipe.model)
        if reason is not None:
            out.print(f"model.onnx is not the file with other weights, but written anew: {reason}")
        return made.declared, {"file": plan.file, "finetune": plan.described()}

    if resume == LATEST and output is None and name is None:
        resume = _latest_of_finetune(file) or resume
    training = Training(
        *(output, name, overwrite, resume, epochs, steps, seed, flags), quiet=quiet, verbose=verbose
    )
    return training.run(title_of(file), declaring)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _latest_of_finetune(file: Path) -> str | None:
    """The name of the last run of that model that `finetune` began: `train` has runs of the same
    name where a program that `import` wrote trains the file, too."""
    parent = Path("runs") / run_places.directory_name(title_of(file))
    last = run_places.latest(parent)
    others = sorted(run_places.runs(parent), key=lambda x: -(x / CONFIG).stat().st_mtime_ns)
    found = [x for x in (last, *others) if x is not None and run_config.read(x).get("finetune")]
    return found[0].name if found else None
