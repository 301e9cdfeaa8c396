"""The command line: train, compile, run, show and check model files."""

from __future__ import annotations

import functools
import inspect
import os
import traceback
from collections.abc import Callable, Collection
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nncompile import show as print_out
from nncompile.backends.onnx import OPSET, to_text
from nncompile.check import check as findings
from nncompile.compiler import Report, compile_model
from nncompile.errors import CompileError, FeedError, ModelError
from nncompile.export import TARGETS, export
from nncompile.graph import Graph
from nncompile.load import load
from nncompile.passes import PASSES, check_passes, optimize
from nncompile.recipe import Minimize, Recipe
from nncompile.report import (
    LINES,
    Counts,
    Epochs,
    Timing,
    columns,
    examples,
    figures,
    first_sentence,
    number,
    peak_memory,
    planned,
    summary,
)
from nncompile.runtime import (
    Session,
    check_writable,
    describe,
    read_array,
    write_arrays,
    written_together,
)
from nncompile.step import compose
from nncompile.train import Callback, CSVLog, EarlyStopping, JSONLog, Trainer, lr_find

app = typer.Typer(
    name="nncompile",
    help="Compiles neural networks and learning rules to standard ONNX, and trains them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
out = Console(highlight=False, markup=False, soft_wrap=True)
SUFFIXES = {"onnx": ".onnx", "torchscript": ".pt"}  # of others, OUT.step.onnx and the like
# Exit codes: a check that fails, what the user can mend, Ctrl-C (as shells have it).
FAILED, MISTAKE, INTERRUPTED = 1, 2, 130

File = Annotated[Path, typer.Argument(metavar="FILE", help="Python file that declares a model.")]
Chosen = Annotated[
    str | None, typer.Option("--model", help="Which model, where the file declares several.")
]
ProviderName = Annotated[
    str, typer.Option(help="Where onnxruntime computes: cpu, cuda, ... It never falls back.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every stage and its cost.")]
Without = Annotated[
    list[str] | None,
    typer.Option(metavar="PASS", help="A pass to leave out (may be repeated), or all."),
]
Target = StrEnum("Target", TARGETS)  # type: ignore[misc]
DEFAULT_TARGET = Target(TARGETS[0])


class Stage(StrEnum):
    model = "model"
    gradient = "gradient"
    step = "step"
    onnx = "onnx"


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command of a function: its mistakes are one message and exit code 2, and `--debug`
    shows where they were found."""

    @functools.wraps(function)
    def run(*, debug: bool, **options: Any) -> None:
        try:
            function(**options)
        except CompileError as error:
            out.file.flush()
            if debug:
                typer.echo(traceback.format_exc(), err=True)
            typer.echo(f"{type(error).__name__}: {error}", err=True)
            raise typer.Exit(MISTAKE) from None

    option = typer.Option("--debug", help="Show the traceback of an error.")
    debug = inspect.Parameter(
        "debug",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, option],
    )
    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values(), debug]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return app.command(no_args_is_help=True)(run)


def main() -> None:
    """Runs the command line."""
    app(prog_name="nncompile")


@command
def train(
    file: File,
    output: Annotated[Path, typer.Option(help="Directory for the results.")] = Path("runs"),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the data, from now on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, from now on.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where all random numbers come from.")] = None,
    provider: ProviderName = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
    resume: Annotated[Path | None, typer.Option(help="A checkpoint to go on from.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after so many epochs without improvement; keep the best."),
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(help="What --patience watches; the held-out loss by default.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Write each epoch's figures: a .csv or .jsonl file.")
    ] = None,
    model: Chosen = None,
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
      nncompile train digits.py --epochs 5 --batch 128 --seed 1
      nncompile train digits.py --resume runs/digits/checkpoint.safetensors --epochs 60
      nncompile train digits.py --epochs 200 --patience 10 --log digits.csv
    """
    declared = load(file, model)
    recipe, data = declared.recipe, declared.data
    if data is None:
        raise ModelError(
            f"{file.name} declares no data to train on",
            hint='data = {"image": x, "label": y}, or a function that returns it',
        )
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
    size = batch or recipe.batch
    length = examples(recipe.model, data.train)
    epochs_left, steps_left = planned(trainer, -(-length // size), epochs, steps)
    before, interrupted = trainer.step, False
    with Timing() as fitting, Epochs(out, steps_left, epochs_left, verbose) as watching:
        try:
            trainer.fit(
                data.train,
                epochs=epochs,
                steps=steps,
                validation=data.validation,
                callbacks=[watching, *watchers],
                batch=batch,
            )
        except KeyboardInterrupt:  # what was learned so far is kept
            interrupted = True
    made = trainer.step - before
    out.print(
        f"{'interrupted after' if interrupted else 'trained'} {made:,} steps of {size} "
        f"in {fitting.seconds:.2f} s on {provider}"
        + (f", {1e3 * fitting.seconds / made:.2f} ms a step" if made else "")
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


@command
def compile(
    file: File,
    to: Annotated[Target, typer.Option(help="What to write.")] = DEFAULT_TARGET,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.")
    ] = None,
    params: Annotated[Path | None, typer.Option(help="Checkpoint with the weights.")] = None,
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators.")] = OPSET,
    external_data: Annotated[
        bool, typer.Option("--external-data", help="Weights in OUT.weights.safetensors.")
    ] = False,
    without: Without = None,
    model: Chosen = None,
    verbose: Verbose = False,
) -> None:
    """Write a model or its training step as ONNX or TorchScript.

    onnx: the inference model, with its weights. step: one training step, with its first state in
    OUT.state.safetensors. gradient, update: the two halves of the step. torchscript: the inference
    model for torch.jit.load. Weights are initial ones unless a checkpoint is given.

    \b
    Examples:
      nncompile compile digits.py -o digits.onnx --params runs/digits/checkpoint.safetensors
      nncompile compile digits.py --to step -o step.onnx --verbose
      nncompile compile digits.py --to torchscript -o digits.pt
    """
    declared = load(file, model)
    source = declared.recipe if declared.recipes else declared.model
    if output is None:
        output = Path(file.stem + SUFFIXES.get(to, f".{to}.onnx"))
    counts, report = Counts(), Report()
    with Timing() as timing:
        written = export(
            source,
            output,
            to,
            params,
            opset,
            external_data or None,
            without=left_out(without),
            observe=counts,
            report=report,
        )
    if verbose:
        rows = [
            (name, f"{before:,}", "→", f"{after:,} nodes", f"{1e3 * seconds:.1f} ms")
            for name, before, after, seconds in counts.rows
        ]
        out.print(columns(rows, (1, 3, 4)))
        print_costs(report)
        out.print(f"in all {timing.seconds:.2f} s, peak memory {peak_memory()}")
    print_files(*written)


@command
def run(
    file: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX model.")],
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="Data (may be repeated)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory, or FILE.npz, for the outputs.")
    ] = None,
    provider: ProviderName = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of an operator.")] = None,
) -> None:
    """Run an ONNX model on arrays, and print its outputs.

    \b
    Examples:
      nncompile run model.onnx --input image=images.npy
      nncompile run model.onnx -i image=images.npy --output predictions.npz --provider cuda
    """
    session = Session(file, provider, threads)
    feeds = {}
    for text in given or []:
        name, _, path = text.partition("=")
        if not name or not path:
            raise FeedError(f"--input {text!r} is not NAME=FILE.npy")
        feeds[name] = read_array(path)
    with Timing() as timing:
        results = session.run(feeds)
    rows = [(name, describe(x.dtype, x.shape), summary(x)) for name, x in results.items()]
    out.print(columns(rows))
    out.print(f"{timing.seconds * 1e3:.1f} ms on {provider}")
    if output is not None:
        print_files(*write_arrays(output, results))


@command
def show(
    file: Annotated[Path | None, typer.Argument(help="Python file that declares a model.")] = None,
    stage: Annotated[Stage, typer.Option(help="Which graph.")] = Stage.model,
    passes: Annotated[
        list[str] | None, typer.Option("--pass", help="Print before and after this pass.")
    ] = None,
    without: Without = None,
    list_passes: Annotated[bool, typer.Option("--list-passes", help="What --pass takes.")] = False,
    model: Chosen = None,
) -> None:
    """Print a graph, one line a node.

    Each node has its type, your line, and the layer it belongs to. model: as it is written.
    gradient: the loss, metrics and slopes. step: all of one training step, optimizer included.
    onnx: the text of the inference model in ONNX. All but the first are shown after the passes.

    \b
    Examples:
      nncompile show digits.py
      nncompile show digits.py --stage step
      nncompile show digits.py --stage gradient --pass gemm
      nncompile show --list-passes
    """
    if list_passes:
        out.print(columns([(name, first_sentence(change)) for name, change in PASSES.items()]))
        return
    if file is None:
        raise ModelError("show needs the FILE of a model", hint="or --list-passes")
    skipped = left_out(without)
    check_passes((*(passes or ()), *skipped))
    declared = load(file, model)
    graph = {
        Stage.model: lambda: declared.model.graph,
        Stage.gradient: lambda: compose(declared.recipe).gradient,
        Stage.step: lambda: compose(declared.recipe).step,
        Stage.onnx: lambda: declared.model.inference(),
    }[stage]()
    if passes:
        print_passes(graph, passes, skipped)
    elif stage is Stage.onnx:
        out.print(to_text(compile_model(declared.model, skipped).model))
    else:
        if stage is not Stage.model:
            graph = optimize(graph, without=skipped)
        out.print(print_out.text(graph), end="")


@command
def check(
    file: File,
    seed: Annotated[int, typer.Option(help="Where the random directions come from.")] = 0,
    model: Chosen = None,
) -> None:
    """Check gradients, the ONNX form, and whether it learns.

    Gradients are compared with finite differences in double precision, ONNX with numpy, and
    training steps on one batch must bring the loss down. The batch is of the data that the file
    declares, or random. Exit code 1 where a check fails.

    \b
    Example:
      nncompile check digits.py
    """
    declared = load(file, model)
    recipe = declared.recipe if declared.recipes else None
    data = declared.data
    failed = 0
    for finding in findings(declared.model, recipe, data.train if data else None, seed):
        mark = {True: "pass", False: "FAIL", None: "  - "}[finding.holds]
        failed += finding.holds is False
        out.print(f"{mark}  {finding.what}: {finding.figures}")
    if failed:
        raise typer.Exit(FAILED)


@command
def rate(
    file: File,
    lowest: Annotated[float, typer.Option(help="The rate of the first step.")] = 1e-7,
    highest: Annotated[float, typer.Option(help="The rate of the last step.")] = 10.0,
    steps: Annotated[int, typer.Option(min=3, help="Steps of the sweep.")] = 100,
    batch: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Where all random numbers come from.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the sweep: a .png, .svg or .pdf file.")
    ] = None,
    model: Chosen = None,
) -> None:
    """Suggest a learning rate for the recipe of FILE.

    Trains for a few steps at rates that grow from one to the next, and names the one at which the
    loss falls fastest (L. N. Smith 2017). Nothing of it is kept.

    \b
    Examples:
      nncompile rate digits.py
      nncompile rate digits.py --lowest 1e-5 --highest 1 --plot rates.png
    """
    declared = load(file, model)
    if declared.data is None:
        raise ModelError(
            f"{file.name} declares no data to train on",
            hint='data = {"image": x, "label": y}, or a function that returns it',
        )
    found = lr_find(declared.recipe, declared.data.train, lowest, highest, steps, batch, seed=seed)
    shown = range(0, len(found.rates), max(1, len(found.rates) // LINES))
    rows = [("rate", found.loss, "trend")]
    rows += [
        (f"{found.rates[i]:.2e}", number(found.losses[i]), number(found.trend[i])) for i in shown
    ]
    out.print(columns(rows, (0, 1, 2)))
    if found.suggestion is None:
        out.print(f"{found.loss} falls at no rate up to {found.rates[-1]:.2g}")
    else:
        out.print(f"{found.loss} falls fastest at a rate of {found.suggestion:.2g}")
    if plot is not None:
        print_files(found.plot(plot))


def watched_by_default(recipe: Recipe, held_out: bool) -> str:
    """The first loss that is minimized, on held-out data where there are some."""
    losses = [u.loss for u in recipe.updates if isinstance(u, Minimize)]
    if not losses:
        raise ModelError("--patience needs to know what to watch", hint="--monitor NAME")
    return f"val_{losses[0]}" if held_out else losses[0]


def log_of(path: Path, append: bool) -> CSVLog | JSONLog:
    """The log that the name of the file asks for."""
    if path.suffix == ".csv":
        return CSVLog(path, append=append)
    if path.suffix == ".jsonl":
        return JSONLog(path, append=append)
    raise ModelError(f"a log is a .csv or a .jsonl file, got {os.fspath(path)!r}")


def left_out(without: Collection[str] | None) -> tuple[str, ...]:
    return tuple(PASSES) if without and "all" in without else tuple(without or ())


def print_passes(graph: Graph, names: Collection[str], without: Collection[str]) -> None:
    """Prints the graph before and after each of the passes that are named."""

    def observe(name: str, before: Graph, after: Graph) -> None:
        if name in names:
            for label, shown in (("before", before), ("after", after)):
                out.print(f"--- {label} {name}: {len(shown.nodes)} nodes")
                out.print(print_out.text(shown))

    optimize(graph, without=without, observe=observe)


def print_costs(report: Report) -> None:
    """Prints the seconds and the node counts of a compilation."""
    out.print(columns([(stage, f"{s * 1e3:.1f} ms") for stage, s in report.seconds.items()], (1,)))
    out.print(columns([(name, f"{n:,} nodes") for name, n in report.nodes.items()], (1,)))


def print_files(*paths: Path) -> None:
    for path in paths:
        out.print(f"wrote {path}  {path.stat().st_size:,} bytes")
