"""The command line: train, compile, run, show, check and verify model files."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from nncompile.diagnostics.version import VERSION
from nncompile.ir.gc_pause import kept

with kept():
    from nncompile.cli.check import check
    from nncompile.cli.compile import compile
    from nncompile.cli.diff import diff
    from nncompile.cli.doctor import doctor
    from nncompile.cli.evaluate import evaluate
    from nncompile.cli.finetune import finetune
    from nncompile.cli.import_ import import_
    from nncompile.cli.init import init
    from nncompile.cli.lr_find import lr_find
    from nncompile.cli.optimize import optimize
    from nncompile.cli.predict import predict
    from nncompile.cli.run import run
    from nncompile.cli.serve import serve
    from nncompile.cli.settings import Command
    from nncompile.cli.shared import command
    from nncompile.cli.show import show
    from nncompile.cli.sweep import sweep
    from nncompile.cli.train import ResumableCommand, train
    from nncompile.cli.verify import verify
    from nncompile.cli.workers import tell_exit_code

app = typer.Typer(
    name="nncompile",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
# In the order of the help.
for function in (
    *(init, import_, train, finetune, sweep, evaluate, predict, compile, run, serve),
    *(optimize, diff, show, check, verify, lr_find, doctor),
):
    kind = ResumableCommand if function in (train, finetune) else Command
    name = function.__name__.strip("_").replace("_", "-")
    app.command(name, cls=kind, no_args_is_help=function is not doctor)(command(function))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nncompile {VERSION}")
        raise typer.Exit


@app.callback()
def nncompile(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Compiles neural networks and learning rules to standard ONNX, and trains them."""


def main() -> None:
    """Runs the command line."""
    try:
        app(prog_name="nncompile")
    except SystemExit as ended:
        tell_exit_code(ended)
        raise
    finally:
        gc.freeze()  # Python would search all that was imported for cycles, which takes 0.3 s
