"""Examines this installation."""

from __future__ import annotations

from nncompile.cli.outcome import FAILED, Outcome
from nncompile.cli.shared import out, print_findings
from nncompile.verify.doctor import examine


def doctor() -> Outcome:
    """Examine this installation: versions, wheels, providers.

    Each execution provider that onnxruntime has runs a model, and three training steps are compared
    with numpy. Exit code 1 where something is wrong, with how to mend it.

    \b
    Example:
      nncompile doctor
    """
    found = print_findings(examine(), passed="ok  ")
    failed = [finding.what for finding in found if finding.holds is False]
    out.print(f"wrong: {', '.join(failed)}" if failed else "all is well")
    return Outcome({"findings": [vars(finding) for finding in found]}, FAILED if failed else 0)
