"""Models that were loaded from a file, written as that file with other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from nncompile.compiler.companions import CONTENT, companion
from nncompile.compiler.weights import ParameterSet, weights_of
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.types import Array
from nncompile.program.adaptation import without_low_rank
from nncompile.program.model import Model
from nncompile.runtime import write_atomically
from nncompile.runtime.origin import MODEL
from nncompile.runtime.tensor_files import placed, weights_path


@runtime_checkable
class OfFile(Protocol):
    """A model that was loaded from a file."""

    def differs_from_file(self) -> str | None:
        """Why its file cannot have other weights; None where it can."""

    @property
    def fits_in_its_file(self) -> bool:
        """Whether its weights fit in one file with its nodes."""

    def in_its_file(
        self, weights: Mapping[str, Array], place: Any = None
    ) -> Callable[[Path], None]:
        """A function that writes the file with these weights; those in other files `place` puts
        into another one."""


def inference_target(model: Model) -> tuple[str, str | None]:
    """As what an inference model is written that is to stay what it was: "original" where it was
    loaded from a file which it still computes, else "onnx", and why."""
    if not isinstance(model, OfFile):
        return "onnx", None
    plain = without_low_rank(model) if model.adapters else model
    reason = plain.differs_from_file()
    return ("original", None) if reason is None else ("onnx", reason)


def original_content(
    model: Model, parameters: ParameterSet | None, seed: int, place: Any = None
) -> Callable[[Path], None]:
    """What writes the file of the model with its weights, those in other files by `place`. Raises
    `ModelError` where it has none, or computes something else."""
    if not isinstance(model, OfFile):
        raise ModelError(
            f"model {model.name} was not loaded from an ONNX file", hint='to="onnx" writes one'
        )
    reason = model.differs_from_file()
    if reason is not None:
        raise ModelError(
            f"{model.name} cannot be written as the file that it was loaded from: {reason}",
            hint='to="onnx" writes it anew',
        )
    weights = weights_of(model, model.inference(), parameters, seed)
    return model.in_its_file(weights, place)


def export_original(
    model: Model, path: Path, parameters: ParameterSet | None, seed: int
) -> tuple[Path, ...]:
    """Writes the file that a model was loaded from, with its weights; those that do not fit in it
    beside it."""
    if not isinstance(model, OfFile) or model.fits_in_its_file:
        return (write_atomically(path, original_content(model, parameters, seed)),)
    with companion(path, weights_path(path), "weights") as (model_file, file):
        about = {MODEL: model.name, CONTENT: "weights"}
        content = original_content(model, parameters, seed, partial(placed, file, metadata=about))
        write_atomically(model_file, content)
    return weights_path(path), path
