"""What files say of the training they are of: those that are loaded together are of one.

Names and shapes alone do not tell: a network with another activation has the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import CheckpointError, ModelWarning, warn
from nncompile.diagnostics.version import VERSION
from nncompile.program.model import Model
from nncompile.program.step import Step
from nncompile.runtime.checkpoint import load_state

RECIPE = "nncompile.recipe"
"""The key under which steps and states say of which recipe they are: what `Step.digest` is."""

MODEL = "nncompile.model"
"""The key under which states say the name of their model."""

_PREDICTS = "nncompile.predicts"
"""The key under which states say what their model predicts, see `Model.prediction_digests`, and
the version that said so: JSON."""


def origin_of(step: Step) -> dict[str, str]:
    """What a state of the step says of where it comes from."""
    predicts = {"version": VERSION, "outputs": step.model.prediction_digests}
    return {MODEL: step.model.name, RECIPE: step.digest, _PREDICTS: json.dumps(predicts)}


@dataclass(frozen=True)
class FirstState:
    """The state that a step begins with, and the file that it comes from, with the recipe that this
    says it is of; None where it does not."""

    arrays: Mapping[str, Any]
    file: Path | None = None
    recipe: str | None = None

    @classmethod
    def of(cls, file: str | os.PathLike[str]) -> FirstState:
        """That in a checkpoint or beside an exported step. Raises as `load_state`."""
        arrays, about = load_state(file)
        return cls(arrays, Path(file), about.get(RECIPE))

    def check_of(self, name: str, recipe: str | None) -> None:
        """Raises `CheckpointError` where the file is of another recipe than the step of that name:
        its state may have the same names and shapes, and mean something else."""
        if None not in (recipe, self.recipe) and recipe != self.recipe:
            raise CheckpointError(
                f"{name} and {self.file} are not of one recipe: the steps that they are of compute "
                "something else",
                rows=[(name, f"recipe {recipe}"), (str(self.file), f"recipe {self.recipe}")],
                hint="export both again; or StepRunner(step, load_state(file)[0]) takes the arrays "
                "as they are",
            )


def tell_of_another(file: str, about: Mapping[str, str], model: Model) -> None:
    """Warns where the state in a file, which says `about` itself, was trained in a model of the
    same name that predicted in another way. What another version said is not comparable."""
    try:
        predicts = json.loads(about.get(_PREDICTS, "{}"))
        version, outputs = predicts.get("version"), dict(predicts.get("outputs", {}))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"what {file} says of its model cannot be read") from None
    if version != VERSION or about.get(MODEL) != model.name:
        return
    now = model.prediction_digests
    changed = [name for name in now if outputs.get(name, now[name]) != now[name]]
    if changed:
        warn(
            f"the weights in {file} are of a {model.name} that computed "
            f"{', '.join(changed)} in another way, such as with another activation: names and "
            "shapes fit, but the predictions may not be those of the training",
            ModelWarning,
        )
