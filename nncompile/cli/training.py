"""What commands that train share: the run directory, the options that a run keeps, progress."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nncompile.cli.outcome import INTERRUPTED, Outcome, described_files
from nncompile.cli.report import Timing
from nncompile.cli.shared import data_of, out, print_costs, print_files
from nncompile.cli.workers import Whereabouts, threads_of_each
from nncompile.diagnostics.errors import ModelError
from nncompile.program.model_file import Data, Declared
from nncompile.program.recipe import Recipe, in_precision
from nncompile.runtime.providers import on_device
from nncompile.train import Callback, CSVLog, EarlyStopping, JSONLog, RunDirectory, Trainer
from nncompile.train.display import Display
from nncompile.train.figures import figures
from nncompile.train.run_config import watched_by_default

RunPath = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Directory of the run; runs/MODEL/NUMBER by default."),
]
RunName = Annotated[str | None, typer.Option(help="Name of the run, in place of its number.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the data, from now on.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps, from now on.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples in a step.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")]
PrecisionOfRun = Annotated[
    str | None,
    typer.Option(
        help="Element type of matrix products and convolutions: f32, bf16 or f16.",
        show_default="that of the recipe",
    ),
]
Emulate = Annotated[
    bool,
    typer.Option(
        "--emulate", help="Compute in float32 what kernels of 16 bits would, rounded: for tests."
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="[RUN]",
        help="Go on with a run: its number or name, its directory or one of its checkpoints; "
        "the latest by default.",
    ),
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(help="How often the state is written: 5m (the default), 500steps, 2epochs."),
]
MetricsEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Steps between two reads of the metrics on a GPU: 16 by default, 1 if the state is "
        "large.",
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(min=1, help="Stop after this many epochs without improvement; keep the best."),
]
Monitor = Annotated[
    str | None,
    typer.Option(
        help="What tells the best epoch, and --patience watches; the held-out loss by default."
    ),
]
LogFile = Annotated[
    Path | None, typer.Option(help="Write each epoch's figures: a .csv or .jsonl file.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes that train together, on this machine.")
]
ShardOptimizer = Annotated[
    bool,
    typer.Option(
        "--shard-optimizer",
        help="Each process updates its part of the parameters, and holds no other state of the "
        "optimizer.",
    ),
]
AverageEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Each process makes so many steps with its own rows before their states are averaged.",
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="BYTES",
        help="Reduce gradients in buckets of so many bytes while others are computed.",
    ),
]
Elastic = Annotated[
    bool,
    typer.Option(
        "--elastic",
        help="Go on where a process is killed: begin again from the last state, at most ten times; "
        "under mpirun --with-ft ulfm, with the others.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

# Of a step.
_GRAPHS = ("step", "gradient", "gradient_of_batch", "following", "following_of_sums")

Declaring = Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Declared, dict[str, Any]]]
"""From what `config.json` of a resumed run says and the options that hold now to what is trained,
and what `config.json` is to say of it."""


@dataclass(frozen=True)
class Training:
    """A training in a run directory. `flags` are options that a run which goes on takes over from
    where it began, unless they are given again; None where they are not."""

    output: Path | None
    name: str | None
    overwrite: bool
    resume: str | None
    epochs: int | None
    steps: int | None
    seed: int | None
    flags: Mapping[str, Any]
    quiet: bool
    verbose: bool
    parallel: Any = None  # the processes that train together
    whereabouts: Whereabouts = field(default_factory=Whereabouts)

    @property
    def _is_first(self) -> bool:
        """Whether this process writes and shows; one that is alone does."""
        return self.parallel is None or self.parallel.is_first

    @property
    def _together(self) -> str:
        return "" if self.parallel is None else f", {self.parallel.size} processes"

    def _of_first(self, find: Callable[[], Any]) -> Any:
        """What the first process finds."""
        if self.parallel is None:
            return find()
        return self.parallel.of_first(find() if self._is_first else None)

    def run(self, model: str, declaring: Declaring) -> Outcome:
        """Trains what is declared, in a run of the model of that name, and exports it; goes on with
        the run that an earlier attempt began."""
        begun = self._of_first(lambda: self.whereabouts.begun)
        if begun is not None:
            anew: dict[str, Any] = dict.fromkeys(("output", "name", "epochs", "steps"))
            rest = replace(self, resume=begun, overwrite=False, **anew)
            return rest._run(model, declaring, goes_on=True)
        return self._run(model, declaring)

    def _run(self, model: str, declaring: Declaring, goes_on: bool = False) -> Outcome:
        out.outlives_its_reader = True
        if self.resume is not None and self.overwrite:
            raise ModelError("--resume continues a run, --overwrite replaces it: give one of them")
        place = partial(
            RunDirectory,
            self.output,
            name=self.name,
            overwrite=self.overwrite,
            resume=self.resume or False,
        )
        saved = self._of_first(lambda: place().find(model)) or {}
        given = {k: x for k, x in self.flags.items() if x is not None}
        kept = dict(saved.get("options") or {})
        if given.get("precision") not in (None, kept.get("precision")):
            kept.pop("emulate", None)  # it was asked for with the other one
        options = {**kept, **given}
        declared, about = declaring(saved, options)
        recipe, data = in_precision_of(declared.recipe, options), data_of(declared)
        run = place(
            checkpoint_every=options.get("checkpoint_every", "5m"),
            monitor=options.get("monitor"),
            about={**about, "options": options},
            measure=True,
        )
        to_be = None if self.resume else run.place(model)
        whereabouts = self.whereabouts.of(run, self.parallel, to_be)
        log = {} if self._is_first else {"log": None}
        watchers = watchers_of(recipe, data, {**options, **log}, self.resume is not None)
        if log and options.get("log") is not None:  # a log is a file as soon as it is made
            watchers.append(self.parallel.absent(_log_class(Path(options["log"]))))
        provider, threads = options.get("provider", "cpu"), self._threads(options)
        seed = saved.get("seed") if self.seed is None else self.seed
        with Timing() as building:
            device = on_device(provider, options.get("strict_device", False))
            every = options.get("metrics_every")
            more: dict[str, Any] = {"parallel": self.parallel, "metrics_every": every}
            trainer = Trainer(recipe, device, seed, threads, **more)
            self._restore(run, trainer)
        if goes_on:
            out.print(f"{run.path} goes on from step {trainer.step:,}")
        earlier = {name: x for name, x in options.items() if name not in given}
        if earlier:
            out.print(f"continuing {run.path} with the options it began with: {_words(earlier)}")
        epochs, steps = self._length(trainer, saved, run)
        counts = [x.size for x in trainer.params.values()]
        nodes = trainer.compiled.report.nodes
        parts = [n for n in _GRAPHS if f"{n}, ONNX" in nodes]
        how = "from the compile cache" if trainer.compiled.report.is_cached else "compiled"
        out.print(
            f"{recipe.model.name}: {sum(counts):,} parameters in {len(counts)} tensors, "
            f"a step of {sum(nodes[f'{part}, ONNX'] for part in parts)} nodes, "
            f"{how} in {building.seconds:.2f} s"
        )
        if self.verbose:
            print_costs(trainer.compiled.report)
        size = options.get("batch_size", recipe.batch_size)
        before = trainer.step
        display = Display(0 if self.quiet else 1, out.file, every=self.verbose)
        fit = partial(trainer.fit, epochs=epochs, steps=steps, batch_size=size)
        with Timing() as fitting:
            code = _ended(partial(fit, callbacks=[display, *watchers, whereabouts, run]), data)
        if not self._is_first:
            return Outcome()
        made_steps = trainer.step - before
        seconds = fitting.seconds - run.export_seconds
        out.print(
            f"{'interrupted after' if code else 'trained'} {made_steps:,} steps of {size} "
            f"in {seconds:.2f} s on {provider}{_read_every(trainer)}{self._together}"
            + (f", {1e3 * seconds / made_steps:.2f} ms a step" if made_steps else "")
        )
        # Who ends a training does not wait for figures.
        evaluated = _evaluated(trainer, data) if recipe.model.metrics and not code else {}
        print_files(*run.files)
        described = {"run": run.path, "step": trainer.step, "epoch": trainer.epoch, **evaluated}
        return Outcome({**described, "files": described_files(run.files)}, code)

    def _threads(self, options: Mapping[str, Any]) -> int | None:
        """The threads of an operator; without a number, those of a process that shares cores."""
        if self.parallel is not None and options.get("threads") is None:
            return threads_of_each()
        return options.get("threads")

    def _restore(self, run: RunDirectory, trainer: Trainer) -> None:
        """Goes on from the state of the run that is resumed, in all processes."""
        if self._is_first:
            run.restore(trainer)
        if self.parallel is not None and self.resume is not None:
            self.parallel.follow_first(trainer)

    def _length(
        self, trainer: Trainer, saved: Mapping[str, Any], run: RunDirectory
    ) -> tuple[int | None, int | None]:
        """The epochs and steps from now on: those given, or up to the end that the run was to
        have."""
        epochs, steps = self.epochs, self.steps
        if saved and epochs is None and steps is None:
            epochs, steps = _remaining(trainer, saved["until"])
            if 0 in (epochs, steps):
                out.print(f"the run {run.path} is at its end: --epochs N trains on")
        return epochs, steps


def _read_every(trainer: Trainer) -> str:
    """How many steps are made before their metrics are read, where it is more than one."""
    ahead = trainer.steps_ahead
    return f" (metrics every {ahead} steps)" if ahead > 1 else ""


def in_precision_of(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The recipe in the precision that the options ask for, if they do."""
    if not options.get("precision") and not options.get("emulate"):
        return recipe
    precision = options.get("precision") or recipe.precision
    return in_precision(recipe, precision, bool(options.get("emulate") or recipe.emulate))


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
        arguments = [] if x is True else x if isinstance(x, list) else [x]
        words += [option, *map(str, arguments)]
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
    return _log_class(path)(path, append=append)


def _log_class(path: Path) -> type[CSVLog | JSONLog]:
    if path.suffix == ".csv":
        return CSVLog
    if path.suffix == ".jsonl":
        return JSONLog
    raise ModelError(f"a log must be a .csv or .jsonl file, got {os.fspath(path)!r}")
