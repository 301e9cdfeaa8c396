"""Models that were loaded from a file, written as that file with other weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from nncompile.compiler.weights import ParameterSet, weights_of
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.types import Array
from nncompile.program.adaptation import without_low_rank
from nncompile.program.model import Model


@runtime_checkable
class OfFile(Protocol):
    """A model that was loaded from a file."""

    def differs_from_file(self) -> str | None:
        """Why its file cannot have other weights; None where it can."""

    def in_its_file(self, weights: Mapping[str, Array]) -> bytes:
        """The file with these weights."""


def inference_target(model: Model) -> tuple[str, str | None]:
    """As what an inference model is written that is to stay what it was: "original" where it was
    loaded from a file which it still computes, else "onnx", and why."""
    if not isinstance(model, OfFile):
        return "onnx", None
    plain = without_low_rank(model) if model.adapters else model
    reason = plain.differs_from_file()
    return ("original", None) if reason is None else ("onnx", reason)


def original_content(model: Model, parameters: ParameterSet | None, seed: int) -> bytes:
    """The file of the model with its weights. Raises `ModelError` where it has none, or computes
    something else."""
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
    return model.in_its_file(weights_of(model, model.inference(), parameters, seed))
