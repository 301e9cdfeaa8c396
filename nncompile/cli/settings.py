"""`--set NAME=VALUE ...`: options of the model file, set on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from nncompile.cli.onnx_models import SUFFIX, declared_by_onnx
from nncompile.cli.outcome import MISTAKE, Outcome, print_json
from nncompile.cli.shared import out
from nncompile.diagnostics.tables import columns
from nncompile.program.model_file import Declared, load
from nncompile.program.option_values import assignments, option_rows

# Options that take all that follow in the form NAME=VALUE.
SEVERAL = ("--set", "--grid", "--random", "--trials")

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE...", help="Options of FILE: --set width=128 lr=1e-2"),
]


_UsageError: Any = typer.BadParameter.__base__  # click's, or typer's own copy of it


class Command(TyperCommand):
    """A command in which one `--set` takes several values: `--set width=128 lr=0.01`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments, with the option repeated before each of its values. What is wrong
        with them is an outcome of the command, too: `--json` prints it."""
        is_json = "--json" in args  # parsing takes them away
        try:
            return super().parse_args(ctx, spread(args))
        except _UsageError as error:
            if is_json:
                described = {"type": type(error).__name__, "message": error.format_message()}
                print_json(Outcome({"error": described}, MISTAKE))
            raise


def spread(args: Sequence[str]) -> list[str]:
    """`--set a=1 b=2` as `--set a=1 --set b=2`.

    >>> spread(["net.py", "--set", "a=1", "b=2", "--seed", "3"])
    ['net.py', '--set', 'a=1', '--set', 'b=2', '--seed', '3']
    """
    repeated: list[str] = []
    taking: str | None = None
    for arg in args:
        option = arg.partition("=")[0]
        if option in SEVERAL:
            taking = option
        elif taking is not None and repeated[-1] != taking:
            if re.match(r"[^\W\d]\w*=", arg):
                repeated.append(taking)
            else:
                taking = None
        repeated.append(arg)
    return repeated


def load_file(file: Path, model: str | None, settings: Sequence[str] | None) -> Declared:
    """Loads a model file with the values that `--set` gives, or an ONNX file; raises what `load`
    and `load_onnx` do."""
    values = assignments(settings or (), "--set")
    if file.suffix == SUFFIX:
        return declared_by_onnx(file, model, values)
    return load(file, model, values)


def print_options(declared: Declared) -> None:
    """Prints the options of a model file, their values and what they may be."""
    if not declared.options:
        out.print(f"{declared.path.name} has no options; one is declared as: width = option(64)")
        return
    out.print(columns(option_rows(declared.options)))
