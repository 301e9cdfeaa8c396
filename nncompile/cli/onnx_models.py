"""ONNX files where a command takes a model file: a model, without a loss, a recipe or data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.frontends.onnx.loading import load_onnx
from nncompile.program.model_file import Declared

SUFFIX = ".onnx"


def declared_by_onnx(file: Path, model: str | None, settings: Mapping[str, Any]) -> Declared:
    """What an ONNX file declares: one model, of the name of the file. Raises what `load_onnx` does,
    and `ModelError` for options, which it has none of."""
    edited = f"nncompile import {file} writes a Python file"
    if settings:
        raise ModelError(
            f"{file.name} has no option {next(iter(settings))!r}: it is an ONNX file",
            hint=f"{edited}, where options can be declared: width = option(64)",
        )
    loaded = load_onnx(file)
    way_out = f"{edited} with a loss and a recipe; nncompile finetune {file} --data ... trains it"
    return Declared(file, ModuleType(loaded.name), {loaded.name: loaded}, {}, model, {}, way_out)


def left_out(declared: Declared) -> str | None:
    """What of an ONNX file cannot be compared, and the way out; None of a model file, which says
    itself what is trained."""
    if declared.path.suffix != SUFFIX:
        return None
    return (
        f"gradients and training steps: not compared, {declared.path.name} has no loss; "
        f"{declared.way_out}"
    )
