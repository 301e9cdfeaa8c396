"""Trains a model file with many combinations of its options."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.outcome import INTERRUPTED, Outcome
from nncompile.cli.proposals import Listed, Optuna, Proposals
from nncompile.cli.settings import Set, load_file
from nncompile.cli.shared import Chosen, File, ProviderName, data_of, out
from nncompile.cli.trials import Record, Training, Trial
from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.diagnostics.files import make_directory, remove_directory
from nncompile.diagnostics.tables import columns
from nncompile.program.model_file import Declared
from nncompile.program.option_values import assignments, written
from nncompile.program.search_space import Space, draws, grid, label, spaces
from nncompile.train.directions import Mode, better
from nncompile.train.figures import duration, number
from nncompile.train.run_config import watched_by_default
from nncompile.train.run_lock import Lock
from nncompile.train.run_places import directory_name

_LOOK = 0.05  # seconds between two looks at the trainings


def sweep(
    file: File,
    grid_: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="NAME=V,...", help="Every combination of these values."),
    ] = None,
    random: Annotated[
        list[str] | None,
        typer.Option(metavar="N [NAME=SPACE...]", help="N combinations at random."),
    ] = None,
    trials: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N [NAME=SPACE...]", help="N that Optuna proposes; it ends hopeless ones."
        ),
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(help="What is compared; the held-out loss by default.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Trainings at a time.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory of the runs; runs/MODEL/sweep by default."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing sweep.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many epochs without improvement.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws; trainings have their own.")] = 0,
    provider: ProviderName = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of an operator; the cores, shared by the jobs."),
    ] = None,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Train FILE with many combinations of its options.

    A space is values (32,64), numbers between bounds (1..9, 0.1..0.5) or such by ratio
    (log:1e-4..1e-1); --random and --trials take the bounds and choices that the file declares where
    none is given. Each training is a run; at the end there is a table, sorted by the best value of
    --monitor. The same command goes on where a sweep ended: what is finished is not repeated.

    \b
    Examples:
      nncompile sweep digits.py --grid width=32,64 lr=1e-2,1e-3
      nncompile sweep digits.py --random 20 lr=log:1e-4..1e-1 width=16..128 --jobs 2
      nncompile sweep digits.py --trials 50 --monitor val_accuracy --epochs 10
    """
    declared = load_file(file, model, settings)
    watched = monitored(declared, monitor)
    mode = better(watched)
    kind, count, texts = asked_for(grid_, random, trials)
    space = spaces(declared.options, texts, file.name)
    fixed = assignments(settings or (), "--set")
    twice = next((name for name in fixed if name in space), None)
    if twice is not None:
        raise ModelError(f"{twice!r} is tried and set: leave --set {twice}=... out")
    place = output or Path("runs") / directory_name(declared.recipe.model.name) / "sweep"
    if overwrite and (place / "sweep.json").is_file():
        remove_directory(place)
    options = {
        "--model": model,
        "--epochs": epochs,
        "--steps": steps,
        "--batch-size": batch_size,
        "--patience": patience,
        "--provider": provider,
        "--threads": threads or (None if jobs == 1 else max(1, (os.cpu_count() or 1) // jobs)),
        "--monitor": watched,
    }
    command = ["train", str(file.resolve())]
    for name, x in options.items():
        command += [] if x is None else [name, str(x)]
    command += ["--set", *(f"{n}={x}" for n, x in fixed.items())] if fixed else []
    of = {
        "file": hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest(),
        "set": fixed,
        **{n.strip("-"): x for n, x in options.items() if n not in ("--threads", "--provider")},
    }
    make_directory(place)
    lock = Lock(place)
    try:
        record = Record.opened(place, of)
        proposals = proposed(kind, count, space, mode, seed, record)
        interrupted = run_trials(record, proposals, command, watched, mode, jobs)
    finally:
        lock.release()
    by_rank = ranked(list(record.trials.values()), mode)
    print_table(by_rank, watched, place)
    described = [{**vars(trial), "run": place / trial.run} for trial in by_rank]
    outcome = {"monitor": watched, "mode": mode, "directory": place, "trials": described}
    all_failed = bool(by_rank) and all(trial.state == "failed" for trial in by_rank)
    return Outcome(outcome, INTERRUPTED if interrupted else int(all_failed))


def monitored(declared: Declared, monitor: str | None) -> str:
    """The metric that is compared. Raises `ModelError` where the model has none of that name."""
    held_out = data_of(declared).validation is not None
    recipe = declared.recipe
    name = monitor or watched_by_default(recipe, held_out)
    known = [*recipe.model.metrics]
    known += [f"val_{metric}" for metric in known] if held_out else []
    if name is None:
        raise ModelError("a sweep needs a metric to compare", hint="--monitor NAME")
    if name not in known:
        raise ModelError(
            f"{recipe.model.name} has no metric {name!r} to monitor", hint=did_you_mean(name, known)
        )
    return name


def asked_for(
    grid_: Sequence[str] | None, random: Sequence[str] | None, trials: Sequence[str] | None
) -> tuple[str, int, dict[str, str]]:
    """How combinations are chosen, how many, and the spaces by name. Raises `ModelError` where
    that is not said in one way."""
    ways = [(n, x) for n, x in (("grid", grid_), ("random", random), ("trials", trials)) if x]
    if len(ways) != 1:
        raise ModelError(
            "say what to try in one way: --grid, --random or --trials",
            hint="--grid width=32,64 lr=1e-2,1e-3, or --random 20 lr=log:1e-4..1e-1",
        )
    ((kind, texts),) = ways
    if kind == "grid":
        return kind, 10**9, assignments(texts, "--grid")
    counts = [text for text in texts if "=" not in text]
    if len(counts) != 1 or not counts[0].isdecimal() or not int(counts[0]):
        raise ModelError(f"--{kind} needs the number of trainings", hint=f"--{kind} 20 lr=...")
    return kind, int(counts[0]), assignments([x for x in texts if "=" in x], f"--{kind}")


def proposed(
    kind: str, count: int, space: dict[str, Space], mode: Mode, seed: int, record: Record
) -> Proposals:
    """Where the trials come from, without those that are done."""
    done = [trial for trial in record.trials.values() if trial.is_done]
    if kind == "trials":
        fitting = [x for x in done if x.settings.keys() == space.keys() and x.value is not None]
        return Optuna(space, count, mode, seed, fitting)
    return Listed(grid(space) if kind == "grid" else draws(space, seed), count, done)


def run_trials(
    record: Record, proposals: Proposals, command: list[str], monitor: str, mode: Mode, jobs: int
) -> bool:
    """Runs the trials, `jobs` at a time, and writes each result into the record. Whether Ctrl-C
    ended it: the trainings then write their states first, a second one does not wait for them."""
    done = sum(trial.is_done for trial in record.trials.values())
    if done:
        out.print(f"{done} trainings are done already, in {record.place}")
    running: list[Training] = []
    try:
        while True:
            while len(running) < jobs and (settings := proposals.next()) is not None:
                trial = Trial(settings)
                trial = record.trials.get(trial.run, trial)
                running.append(Training(trial, record.place, command))
            if not running:
                return False
            time.sleep(_LOOK)
            for training in [x for x in running if x.has_ended]:
                running.remove(training)
                _take(record, training, proposals, monitor, mode)
            for training in running:
                _prune(training, proposals, monitor)
    except KeyboardInterrupt:
        typer.echo("interrupted: the trainings write their states", err=True)
        for training in running:
            training.interrupt()
        try:
            for training in running:
                _take(record, training, proposals, monitor, mode)
        except KeyboardInterrupt:
            typer.echo("ended at once", err=True)
        return True
    finally:
        for training in running:
            training.kill()


def _prune(training: Training, proposals: Proposals, monitor: str) -> None:
    """Ends a training whose values since the last look promise too little."""
    for epoch, value in training.new_values(monitor):
        if proposals.should_prune(training.trial.settings, epoch, value):
            training.prune()
            return


def _take(
    record: Record, training: Training, proposals: Proposals, monitor: str, mode: Mode
) -> None:
    """The result of a training that ended, or is about to."""
    trial = training.close(monitor, mode)
    record.trials[trial.run] = trial
    record.write()
    proposals.tell(trial)
    ordinal = f"{len(record.trials)}/{proposals.count}"
    value = "" if trial.value is None else f"{monitor} {number(trial.value)}  "
    reason = f": {trial.error}" if trial.error else ""
    out.print(f"{ordinal}  {label(trial.settings)}  {value}{trial.state}{reason}")


def ranked(trials: list[Trial], mode: Mode) -> list[Trial]:
    """The best first; those without a value last."""
    sign = -1.0 if mode == "max" else 1.0
    return sorted(trials, key=lambda x: (x.value is None, sign * (x.value or 0.0)))


def print_table(trials: list[Trial], monitor: str, place: Path) -> None:
    """Prints the trials, the best first."""
    if not trials:
        out.print("no training has ended")
        return
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    rows: list[tuple[str, ...]] = [("", *names, monitor, "epoch", "time", "state", "run")]
    for rank, trial in enumerate(trials, start=1):
        values = [written(trial.settings[n]) if n in trial.settings else "" for n in names]
        value = "-" if trial.value is None else number(trial.value)
        epoch = "-" if trial.epoch is None else str(trial.epoch)
        state = trial.state or ""
        rows.append((str(rank), *values, value, epoch, duration(trial.seconds), state, trial.run))
    out.print()
    out.print(columns(rows, (0, len(names) + 1, len(names) + 2, len(names) + 3)))
    out.print(f"runs in {place}")
