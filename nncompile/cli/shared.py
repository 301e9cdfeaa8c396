"""What commands share: options, the answer to a mistake, and what they print."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from nncompile.cli.outcome import (
    INTERRUPTED,
    MISTAKE,
    Command,
    Outcome,
    for_people_on,
    of_error,
    print_json,
)
from nncompile.compiler.cache_files import CacheWarning
from nncompile.compiler.cache_place import without_cache
from nncompile.compiler.stages import Report
from nncompile.diagnostics.errors import CompileError, ModelError, ModelWarning
from nncompile.diagnostics.tables import columns
from nncompile.passes import PASSES
from nncompile.program.model_file import Data, Declared
from nncompile.train.monitor import TrainingWarning
from nncompile.train.sources.arrays import StoredArray, is_stored, rows_of
from nncompile.train.sources.declared import arrays_of
from nncompile.train.sources.notes import DataNote
from nncompile.verify.check import Finding


class Output(Console):
    """Standard output. A command that `outlives_its_reader` goes on where nobody reads it any
    more, or the disk it is written to is full, and says so once."""

    outlives_its_reader = False

    def print(self, *args: Any, **options: Any) -> None:
        try:
            super().print(*args, **options)
        except OSError as error:
            if not self.outlives_its_reader:
                raise
            self._close(error.strerror or str(error))

    def on_broken_pipe(self) -> None:
        if not self.outlives_its_reader:
            super().on_broken_pipe()
        self._close("it is closed")

    def _close(self, reason: str) -> None:
        self.quiet = True
        with contextlib.suppress(OSError):  # or Python complains of it once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with contextlib.suppress(OSError):
            typer.echo(f"cannot write to the standard output: {reason.lower()}; going on", err=True)


_PACKAGE = Path(__file__).parent.parent
out = Output(highlight=False, markup=False, soft_wrap=True)
_FILE = "Python file that declares a model, or an .onnx file."
File = Annotated[Path, typer.Argument(metavar="FILE", help=_FILE)]
OptionalFile = Annotated[Path | None, typer.Argument(metavar="[FILE]", help=_FILE)]
Chosen = Annotated[
    str | None, typer.Option("--model", help="Which model, if the file declares several.")
]
_PROVIDER = "Execution provider of onnxruntime: cpu, cuda, ... It never falls back."
ProviderName = Annotated[str, typer.Option(help=_PROVIDER)]
StrictDevice = Annotated[
    bool,
    typer.Option("--strict-device", help="Refuse what a provider would leave to the CPU (cuda)."),
]
ProviderOfRun = Annotated[str | None, typer.Option(help=_PROVIDER, show_default="cpu")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print every stage and its cost.")]
Without = Annotated[
    list[str] | None,
    typer.Option(metavar="PASS", help="A pass to skip (may be repeated), or all."),
]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; text for people goes to stderr.")
]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Compile anew what was compiled before.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(function: Command) -> Callable[..., None]:
    """A command that calls the function: a mistake of the user is one message and exit code 2,
    `--debug` adds the traceback, `--json` prints the outcome as an object on the standard output,
    and `--no-cache` leaves the compile cache alone."""

    @functools.wraps(function)
    def run(*, debug: bool, json: bool, no_cache: bool, **options: Any) -> None:
        cached = without_cache() if no_cache else contextlib.nullcontext()
        with for_people_on(out, elsewhere=json), cached:
            outcome = _outcome(function, options, debug)
        if json:
            print_json(outcome)
        if outcome.exit_code:
            raise typer.Exit(outcome.exit_code)

    signature = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("no_cache", NoCache), ("json", Json), ("debug", Debug))
    ]
    parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    return run


def _outcome(function: Command, options: Mapping[str, Any], debug: bool) -> Outcome:
    """Runs the function, and prints the error that ends it."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _shown(warnings.showwarning)
            return function(**options) or Outcome()
    except (CompileError, ModelWarning) as error:
        out.file.flush()
        if debug:
            typer.echo(traceback.format_exc(), err=True)
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        return of_error(error, getattr(error, "exit_code", MISTAKE))
    except KeyboardInterrupt as error:
        typer.echo("interrupted", err=True)
        return of_error(error, INTERRUPTED)


def _shown(fallback: Callable[..., None]) -> Callable[..., None]:
    """Shows what the compiler warns of in one line with its place, and others as before."""

    def show(
        message: Warning, category: type[Warning], filename: str, lineno: int, *arguments: Any
    ) -> None:
        if issubclass(category, DataNote | ModelWarning | TrainingWarning | CacheWarning):
            # Notes are of data, and a line of ours says nothing to a user.
            is_theirs = not Path(filename).is_relative_to(_PACKAGE)
            has_line = is_theirs and not issubclass(category, DataNote | CacheWarning)
            location = f", at {Path(filename).name}:{lineno}" if has_line else ""
            typer.echo(f"{category.__name__}: {message}{location}", err=True)
        else:
            fallback(message, category, filename, lineno, *arguments)

    return show


def data_of(declared: Declared) -> Data:
    """The data that the file declares, as arrays by input; raises `ModelError` without any."""
    data = data_or_none(declared)
    if data is None:
        raise ModelError(
            f"{declared.path.name} declares no data to train on",
            hint=declared.way_out
            or 'data = {"image": x, "label": y}, data = "train.csv", or a function that returns it',
        )
    return data


def data_or_none(declared: Declared) -> Data | None:
    """The data that the file declares, as arrays by input, of its only or chosen model. Of arrays
    in files rows are read when they are needed."""
    if declared.data is None:
        return None
    return Data(*(_given(declared, part) for part in vars(declared.data).values()))


def _given(declared: Declared, part: Any) -> Any:
    if isinstance(part, dict):
        return {n: x if is_stored(x) else rows_of(n, x) for n, x in part.items()}
    return arrays_of(declared.model, part)[0]


def data_in_memory(declared: Declared) -> Data | None:
    """The same, with arrays in files read whole."""
    data = data_or_none(declared)
    if data is None:
        return None
    parts = vars(data).values()
    return Data(*(x and {name: _whole(array) for name, array in x.items()} for x in parts))


def _whole(array: Any) -> Any:
    if not is_stored(array):
        return array
    return StoredArray(array)[:] if array.shape else np.asarray(array[()])


def skipped_passes(without: Collection[str] | None) -> tuple[str, ...]:
    """The names of the passes to skip: all of them for "all"."""
    return tuple(PASSES) if without and "all" in without else tuple(without or ())


def print_findings(findings: Iterable[Finding], passed: str = "pass") -> list[Finding]:
    """Prints the findings one by one as they come, and returns them."""
    found = []
    for finding in findings:
        found.append(finding)
        mark = {True: passed, False: "FAIL", None: "  - "}[finding.holds]
        out.print(f"{mark}  {finding.what}: {finding.figures}")
        for line in finding.details:
            out.print(f"      {line}")
    return found


def print_costs(report: Report) -> None:
    """Prints the seconds and the node counts of a compilation."""
    out.print(columns([(stage, f"{s * 1e3:.1f} ms") for stage, s in report.seconds.items()], (1,)))
    out.print(columns([(name, f"{n:,} nodes") for name, n in report.nodes.items()], (1,)))


def print_files(*paths: Path) -> None:
    """Prints the name and the size of each file written."""
    for path in paths:
        out.print(f"wrote {path}  {path.stat().st_size:,} bytes")
