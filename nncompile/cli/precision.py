"""Options of files of fewer bits: what their ranges are measured on, and what they have lost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nncompile.cli.shared import data_in_memory, out
from nncompile.compiler.inference_files import examples_in
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.model_file import Declared
from nncompile.train.sources.blocks import whole
from nncompile.train.sources.declared import arrays_of
from nncompile.train.sources.files import KINDS
from nncompile.verify.precision_report import PrecisionReport, precision_report

EXAMPLES = 512  # that ranges are measured on

Precision = Annotated[
    str | None,
    typer.Option(
        help="Of the inference model: f16, int8 or int4. Of a step: f32, bf16 or f16.",
        show_default="f32, and that of the recipe",
    ),
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="Examples to measure ranges on for int8: a .csv, .parquet or .npz file, for instance.",
        show_default="the training data of FILE",
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(metavar="LAYER", help="A layer that stays in float32 (may be repeated)."),
]


def calibration_of(declared: Declared, file: Path | None) -> dict[str, Array] | None:
    """Examples of the file, or of the data for training; None where there are none."""
    if file is not None:
        source: Any = file if file.suffix in KINDS else whole(file)
        (arrays,) = arrays_of(declared.model, source)
    else:
        data = data_in_memory(declared)
        arrays = None if data is None else data.train
    return None if arrays is None else _some(declared.model, arrays)


def _some(model: Model, arrays: dict[str, Array]) -> dict[str, Array]:
    """Examples from all over, as data may be in order of their classes; the same each time."""
    count = examples_in(model, arrays)
    if count <= EXAMPLES:
        return arrays
    rows = np.sort(np.random.default_rng(0).choice(count, EXAMPLES, replace=False))
    return {n: np.asarray(x)[rows] if n in model.cut else x for n, x in arrays.items()}


def print_report(
    declared: Declared, file: Path, params: Any, calibration: dict[str, Array] | None
) -> PrecisionReport | None:
    """Prints what the file has lost on the data that are held out, or trained on, or that ranges
    were measured on; nothing where there are none."""
    data = data_in_memory(declared)
    if data is None:
        held_out = calibration
    else:
        held_out = data.train if data.validation is None else data.validation
    if held_out is None:
        return None
    report = precision_report(declared.model, file, held_out, params)
    out.print(str(report))
    return report
