"""Checks gradients, the ONNX form, and whether a model learns."""

from __future__ import annotations

from typing import Annotated

import typer

from nncompile.cli.onnx_models import left_out
from nncompile.cli.outcome import FAILED, Outcome
from nncompile.cli.settings import Set, load_file
from nncompile.cli.shared import Chosen, File, data_in_memory, out, print_findings
from nncompile.verify.check import check as findings


def check(
    file: File,
    seed: Annotated[int, typer.Option(help="Seed of all inputs and parameters.")] = 0,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Check gradients, the ONNX form, and whether it learns.

    Gradients are compared with finite differences in double precision, onnxruntime with numpy as
    in `verify --quick`, and training steps on one batch must bring the loss down. The inputs are
    like the data that the file declares, or random. Exit code 1 where a check fails.

    \b
    Example:
      nncompile check digits.py
    """
    declared = load_file(file, model, settings)
    recipe = declared.recipe_if_any
    data = data_in_memory(declared)
    found = print_findings(findings(declared.model, recipe, data.train if data else None, seed))
    note = left_out(declared)
    if note:
        out.print(f"  -   {note}")
    failed = any(finding.holds is False for finding in found)
    listed = [vars(finding) for finding in found]
    return Outcome({"findings": listed, "left_out": note}, FAILED if failed else 0)
