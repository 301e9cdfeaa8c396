"""The command line: train, compile, run, show, check and verify model files."""

from __future__ import annotations

import typer

from nncompile.commands.check import check
from nncompile.commands.compile import compile
from nncompile.commands.rate import rate
from nncompile.commands.run import run
from nncompile.commands.shared import command
from nncompile.commands.show import show
from nncompile.commands.train import train
from nncompile.commands.verify import verify

app = typer.Typer(
    name="nncompile",
    help="Compiles neural networks and learning rules to standard ONNX, and trains them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for function in (train, compile, run, show, check, verify, rate):  # in the order of the help
    app.command(no_args_is_help=True)(command(function))


def main() -> None:
    """Runs the command line."""
    app(prog_name="nncompile")
