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
from nncompile.program.step import Step
from nncompile.runtime import check_state, load_state

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class Given:
    """Weights that the caller gave, what they are called in an error, and its class."""

    tensors: dict[str, Array]
    name: str
    error: type[CompileError]

    @classmethod
    def of(cls, params: Mapping[str, Any] | Path_) -> Given:
        """The weights in a dict of arrays by path, or in a checkpoint.

        Raises `ModelError` for anything else, `FileError` or `CheckpointError` for the file.
        """
        if isinstance(params, str | os.PathLike):
            return cls(load_state(params)[0], os.fspath(params), CheckpointError)
        if not isinstance(params, Mapping):
            raise ModelError(
                f"params must be a dict of arrays by path, or a file, got {type(params).__name__}",
                hint="trainer.state holds those of a trainer",
            )
        for name, x in params.items():
            check_unmasked(x, name, ModelError)
        tensors = {name: np.asarray(x) for name, x in params.items()}
        return cls(tensors, "params", ModelError)

    def fitted(self, needed: Mapping[str, Type], known: Mapping[str, Type]) -> dict[str, Array]:
        """The tensors, which are all that are needed, and others that are known."""
        expected = {n: t for n, t in known.items() if n in needed or n in self.tensors}
        check_state(self.tensors, expected, self.name, self.error)
        return self.tensors


_RANDOM = dict.fromkeys(sorted(RANDOM_STATE), i64[()])


def weights_of(model: Model, graph: Graph, given: Given | None, seed: int) -> dict[str, Array]:
    """The parameters and states that the graph needs: those given, or drawn."""
    wanted = {n: v.type for n, v in graph.leaves.items() if input_of(v).kind != "input"}
    random = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    if given is None:
        found = {**initial_values(model, seed), **random}
        return {name: found[name] for name in wanted}
    own = {n: v.type for n, v in (*model.parameters.items(), *model.states.items())}
    needed = {n: t for n, t in wanted.items() if n not in _RANDOM}
    known = {**own, **wanted, **_RANDOM}
    # Where all that is needed is there, nothing is misspelt: what else there is belongs to the
    # training, or to a larger model that this one is part of. Where something is not, the names
    # that nobody knows may be its; those of slots are known.
    slots = {n for n in given.tensors if any(n.startswith(f"{path}.") for path in own)}
    slots |= {n for n in given.tensors if n.startswith(TRAINING)}
    if needed.keys() <= given.tensors.keys():
        slots |= given.tensors.keys() - known.keys()
    tensors = {n: x for n, x in given.tensors.items() if n in known or n not in slots}
    given = replace(given, tensors=tensors)
    found = {**random, **given.fitted(needed, known)}
    return {name: found[name] for name in wanted}


def first_state(step: Step, given: Given | None, seed: int | None) -> dict[str, Array]:
    """The state that a step begins with: parameters and states that are given, or drawn."""
    state = step.initial(seed)
    if given is not None:
        own = (*step.model.parameters, *step.model.states)
        needed = {name: step.state[name] for name in own if name not in _RANDOM}
        state |= given.fitted(needed, step.state)
    return state


def weights_for(
    model: Model, graph: Graph, params: Mapping[str, Any] | Path_ | None = None, seed: int = 0
) -> dict[str, Array]:
    """The parameters and states that a graph of the model needs, as `export` takes them: of
    `params`, or drawn from `seed`."""
    return weights_of(model, graph, None if params is None else Given.of(params), seed)
