"""Examines this installation."""

from __future__ import annotations

from typing import Annotated

import typer

from nncompile.cli.outcome import FAILED, Outcome
from nncompile.cli.shared import out, print_findings
from nncompile.verify.doctor import examine


def doctor(
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A provider that must be there.", show_default="all"),
    ] = None,
) -> Outcome:
    """Examine this installation: versions, wheels, providers.

    Each execution provider that onnxruntime has runs a model, and three training steps are compared
    with numpy. Exit code 1 where something is wrong, with how to mend it. With --provider a
    provider that this onnxruntime has not is wrong, too.

    \b
    Examples:
      nncompile doctor
      nncompile doctor --provider cuda
    """
    found = print_findings(examine(provider), passed="ok  ")
    failed = [finding.what for finding in found if finding.holds is False]
    out.print(f"wrong: {', '.join(failed)}" if failed else "all is well")
    return Outcome({"findings": [vars(finding) for finding in found]}, FAILED if failed else 0)
