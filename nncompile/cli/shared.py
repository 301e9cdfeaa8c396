"""What commands share: options, the answer to a mistake, and what they print."""

from __future__ import annotations

import functools
import inspect
import traceback
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from nncompile.compiler.compile import Report
from nncompile.diagnostics.errors import CompileError, ModelError, ModelWarning
from nncompile.diagnostics.tables import columns
from nncompile.passes import PASSES
from nncompile.program.model_file import Data, Declared
from nncompile.train.monitor import TrainingWarning

out = Console(highlight=False, markup=False, soft_wrap=True)
# Exit codes: a check that fails, what the user can mend, Ctrl-C (as shells have it).
FAILED, MISTAKE, INTERRUPTED = 1, 2, 130

File = Annotated[Path, typer.Argument(metavar="FILE", help="Python file that declares a model.")]
Chosen = Annotated[
    str | None, typer.Option("--model", help="Which model, if the file declares several.")
]
ProviderName = Annotated[
    str, typer.Option(help="Execution provider of onnxruntime: cpu, cuda, ... It never falls back.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every stage and its cost.")]
Without = Annotated[
    list[str] | None,
    typer.Option(metavar="PASS", help="A pass to skip (may be repeated), or all."),
]


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command of a function: its mistakes are one message and exit code 2, and `--debug`
    shows where they were found."""

    @functools.wraps(function)
    def run(*, debug: bool, **options: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _shown(warnings.showwarning)
                function(**options)
        except (CompileError, ModelWarning) as error:
            out.file.flush()
            if debug:
                typer.echo(traceback.format_exc(), err=True)
            typer.echo(f"{type(error).__name__}: {error}", err=True)
            raise typer.Exit(getattr(error, "exit_code", MISTAKE)) from None

    option = typer.Option("--debug", help="Show the traceback of an error.")
    debug = inspect.Parameter(
        "debug",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, option],
    )
    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values(), debug]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    return run


def _shown(fallback: Callable[..., None]) -> Callable[..., None]:
    """Shows what the compiler warns of in one line with its place, and others as before."""

    def show(
        message: Warning, category: type[Warning], filename: str, lineno: int, *arguments: Any
    ) -> None:
        if issubclass(category, ModelWarning | TrainingWarning):
            location = f"{Path(filename).name}:{lineno}"
            typer.echo(f"{category.__name__}: {message}, at {location}", err=True)
        else:
            fallback(message, category, filename, lineno, *arguments)

    return show


def data_of(declared: Declared) -> Data:
    """The data that the file declares; raises `ModelError` without any."""
    if declared.data is None:
        raise ModelError(
            f"{declared.path.name} declares no data to train on",
            hint='data = {"image": x, "label": y}, or a function that returns it',
        )
    return declared.data


def skipped_passes(without: Collection[str] | None) -> tuple[str, ...]:
    """The names of the passes to skip: all of them for "all"."""
    return tuple(PASSES) if without and "all" in without else tuple(without or ())


def print_costs(report: Report) -> None:
    """Prints the seconds and the node counts of a compilation."""
    out.print(columns([(stage, f"{s * 1e3:.1f} ms") for stage, s in report.seconds.items()], (1,)))
    out.print(columns([(name, f"{n:,} nodes") for name, n in report.nodes.items()], (1,)))


def print_files(*paths: Path) -> None:
    """Prints the name and the size of each file written."""
    for path in paths:
        out.print(f"wrote {path}  {path.stat().st_size:,} bytes")
