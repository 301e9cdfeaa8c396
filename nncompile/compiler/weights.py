"""The weights that a file is written with: those given, or the first ones of a model or a step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CheckpointError, CompileError, ModelError
from nncompile.ir.graph import Graph, input_of
from nncompile.ir.types import Array, Type, check_unmasked, i64
from nncompile.optim.schedules import TRAINING
from nncompile.program.initialization import initial_values
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.quantization_aware import warn_of_unknown_ranges
from nncompile.program.step import Step
from nncompile.runtime import check_state, load_state
from nncompile.runtime.origin import tell_of_another

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class ParameterSet:
    """Arrays from the caller, with the name and the class of the error about them."""

    tensors: dict[str, Array]
    about: Mapping[str, str]  # what their file says of itself
    name: str
    error: type[CompileError]

    @classmethod
    def of(cls, params: Mapping[str, Any] | Path_) -> ParameterSet:
        """The weights in a dict of arrays by path, or in a checkpoint.

        Raises `ModelError` for anything else, `FileError` or `CheckpointError` for the file.
        """
        if isinstance(params, str | os.PathLike):
            return cls(*load_state(params), os.fspath(params), CheckpointError)
        if not isinstance(params, Mapping):
            raise ModelError(
                f"params must be a dict of arrays by path, or a file, got {type(params).__name__}",
                hint="trainer.state holds those of a trainer",
            )
        for name, x in params.items():
            check_unmasked(x, name, ModelError)
        tensors = {name: np.asarray(x) for name, x in params.items()}
        return cls(tensors, {}, "params", ModelError)

    def fitted(self, required: Mapping[str, Type], allowed: Mapping[str, Type]) -> dict[str, Array]:
        """The tensors: all that are `required`, and none that is not `allowed`."""
        expected = {n: t for n, t in allowed.items() if n in required or n in self.tensors}
        check_state(self.tensors, expected, self.name, self.error)
        return self.tensors


_SHOWN = 8  # names that an error lists
_RANDOM = dict.fromkeys(sorted(RANDOM_STATE), i64[()])


def weights_of(
    model: Model, graph: Graph, parameters: ParameterSet | None, seed: int
) -> dict[str, Array]:
    """The parameters and states that the graph needs: those of `parameters`, or drawn."""
    types = {n: v.type for n, v in graph.leaves.items() if input_of(v).kind != "input"}
    random = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    if parameters is None:
        arrays = {**initial_values(model, seed, shared=True), **random}
        return {name: arrays[name] for name in types}
    model_types = {n: v.type for n, v in (*model.parameters.items(), *model.states.items())}
    required = {n: t for n, t in types.items() if n not in _RANDOM}
    allowed = {**model_types, **types, **_RANDOM}
    missing = [name for name in required if name not in parameters.tensors]
    if missing and all(name in model.states for name in missing):
        raise parameters.error(
            f"{parameters.name} holds the parameters of {model.name}, but not all of its state",
            rows=[("missing", name, str(required[name])) for name in missing[:_SHOWN]],
            hint="trainer.state holds both, trainer.params the parameters alone",
        )
    # Where nothing is missing, nothing is misspelt: other names belong to the training, or to a
    # larger model that this one is part of. Otherwise an unknown name that is not a slot may be
    # the missing one.
    slots = {n for n in parameters.tensors if any(n.startswith(f"{path}.") for path in model_types)}
    slots |= {n for n in parameters.tensors if n.startswith(TRAINING)}
    if required.keys() <= parameters.tensors.keys():
        slots |= parameters.tensors.keys() - allowed.keys()
    tensors = {n: x for n, x in parameters.tensors.items() if n in allowed or n not in slots}
    parameters = replace(parameters, tensors=tensors)
    arrays = {**random, **parameters.fitted(required, allowed)}
    tell_of_another(parameters.name, parameters.about, model)
    warn_of_unknown_ranges(arrays)
    return {name: arrays[name] for name in types}


def first_state(step: Step, parameters: ParameterSet | None, seed: int | None) -> dict[str, Array]:
    """The state that a step begins with: that of `parameters`, or drawn."""
    state = step.initial(seed)
    if parameters is not None:
        names = (*step.model.parameters, *step.model.states)
        required = {name: step.state[name] for name in names if name not in _RANDOM}
        state |= parameters.fitted(required, step.state)
        tell_of_another(parameters.name, parameters.about, step.model)
    return state


def weights_for(
    model: Model, graph: Graph, params: Mapping[str, Any] | Path_ | None = None, seed: int = 0
) -> dict[str, Array]:
    """The parameters and states that a graph of the model needs, as `export` takes them: of
    `params`, or drawn from `seed`."""
    return weights_of(model, graph, None if params is None else ParameterSet.of(params), seed)
