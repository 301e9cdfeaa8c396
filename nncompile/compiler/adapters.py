"""Low-rank adaptation in files: factors of their own, and merged into the weights."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from nncompile.compiler.weights import ParameterSet, Path_, weights_of
from nncompile.diagnostics.errors import (
    CheckpointError,
    ModelError,
    ModelWarning,
    did_you_mean,
    warn,
)
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import const, stored
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.program.adaptation import with_changes, without_low_rank
from nncompile.program.initialization import initial_values
from nncompile.program.low_rank import LowRank
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.runtime import check_state, load_state, save_state
from nncompile.runtime.origin import MODEL

_CHANGES = "nncompile.adapters"
"""The key under which a file says which weights its factors change, and how: JSON."""

M = TypeVar("M", bound=Model)


@runtime_checkable
class Trained(Protocol):
    """A recipe and the state that its training has reached, such as a `Trainer`."""

    recipe: Recipe

    @property
    def state(self) -> dict[str, Array]: ...


def has_numbers(model: Model) -> bool:
    """Whether its parameters start at given numbers, as those of a file: nothing is drawn."""
    return all(_is_given(model.initial[path]) for path in model.parameters)


@suggests_names
def merge(source: Model | Trained, params: Mapping[str, Any] | Path_ | None = None) -> Model:
    """The model without low-rank factors: each weight starts at W + (alpha/rank)·A·B, and the graph
    is that of the model which `lora` was given.

    `source` is a trainer, or a model with `params`, its weights by path or the file of a
    checkpoint; without them they are those that the model starts with, as one of `load_lora` does.

    Raises `ModelError` where there is nothing to merge or the weights are not known.
    """
    if isinstance(source, Trained):
        params = source.state if params is None else params
        source = source.recipe.model
    if not isinstance(source, Model):
        raise ModelError(f"merge takes a model or a trainer, got {type(source).__name__}")
    _check_adapted(source, "merge")
    starts = [source.initial[path] for path in source.adapters]
    if params is None and not all(map(_is_given, starts)):
        raise ModelError(
            f"the weights of {source.name} are not known, so there is nothing to merge into",
            hint="merge(trainer), or merge(model, params=checkpoint)",
        )
    parameters = None if params is None else ParameterSet.of(params)
    plain, weights = merged(source, parameters, 0)
    given = source.adapters if parameters is None else weights.tensors
    initial = {
        path: stored(np.array(weights.tensors[path], order="C")) if path in given else start
        for path, start in plain.initial.items()
    }
    return replace(plain, initial=initial)


def merged(model: M, parameters: ParameterSet | None, seed: int) -> tuple[M, ParameterSet]:
    """The model without its factors, and all its weights, computed in double; see `merge`."""
    leaves = model.parameters
    changed = {
        path: change.changed(leaves[path], leaves[change.a], leaves[change.b])
        for path, change in model.adapters.items()
    }
    weights = weights_of(model, Graph(model.name, changed), parameters, seed)
    arrays = evaluate(list(changed.values()), weights, precision=np.float64)
    found = {
        path: np.array(x, leaves[path].dtype.numpy, order="C")
        for path, x in zip(changed, arrays, strict=True)
    }
    plain = without_low_rank(model)
    if parameters is None:
        return plain, ParameterSet(initial_values(plain, seed) | found, {}, "params", ModelError)
    gone = {name for change in model.adapters.values() for name in (change.a, change.b)}
    kept = {path: x for path, x in parameters.tensors.items() if path not in gone}
    return plain, replace(parameters, tensors=kept | found, about={})


def save_adapter(model: Model, path: Path, parameters: ParameterSet | None, seed: int) -> Path:
    """Writes the factors of the model to a file of their own. Raises `ModelError` where it has
    none."""
    _check_adapted(model, "an adapter file")
    leaves = model.parameters
    names = [*model.adapters]
    for change in model.adapters.values():
        names += [change.a, change.b]
    needed = Graph(model.name, {name: leaves[name] for name in names})
    arrays = weights_of(model, needed, parameters, seed)
    changes = [
        {**asdict(change), "digest": _digest(arrays[change.path])}
        for change in model.adapters.values()
    ]
    ranks, alphas = (
        ", ".join(dict.fromkeys(f"{change[key]:g}" for change in changes))
        for key in ("rank", "alpha")
    )
    about = {"rank": ranks, "alpha": alphas, "base": model.name, _CHANGES: json.dumps(changes)}
    factors = {name: x for name, x in arrays.items() if name not in model.adapters}
    return save_state(path, factors, {MODEL: model.name, **about})


@suggests_names
def load_lora(model: M, path: Path_) -> M:
    """The model with the low-rank factors that are in a file which `export(trainer, path,
    "adapter")` wrote: as `lora` makes it, and it starts at their numbers.

    A warning says so where the weights of the model are known and others than those that the
    factors were trained beside. Raises `FileError` or `CheckpointError` for the file, and
    `ModelError` where the model lacks a weight that they change.
    """
    if not isinstance(model, Model):
        raise ModelError(f"load_lora takes a model and a file, got {type(model).__name__}")
    tensors, about = load_state(path)
    file = os.fspath(path)
    changes, digests = _changes(file, about)
    weights = model.parameters
    for name in changes:
        if name not in weights:
            raise ModelError(
                f"{file} changes {name}, which model {model.name} does not have",
                rows=[("base", about.get("base", "")), ("model", model.name)],
                hint=did_you_mean(name, weights),
            )
        if name in model.adapters:
            raise ModelError(
                f"{name} of model {model.name} has low-rank factors already",
                hint="load them onto the model that lora was given, or merge those first",
            )
    expected = {
        factor: Type(weights[name].dtype, shape)
        for name, change in changes.items()
        for factor, shape in zip(
            (change.a, change.b), change.shapes(weights[name].shape), strict=True
        )
    }
    check_state(tensors, expected, file)
    others = [
        name
        for name in changes
        if _is_given(model.initial[name])
        and _digest(np.asarray(evaluate(model.initial[name], {}))) != digests[name]
    ]
    if others:
        warn(
            f"the factors in {file} were trained beside other weights than those of {model.name}: "
            f"{', '.join(others)}",
            ModelWarning,
        )
    return with_changes(model, changes.values(), {name: const(x) for name, x in tensors.items()})


def _changes(file: str, about: Mapping[str, str]) -> tuple[dict[str, LowRank], dict[str, str]]:
    """What a file says of its factors: the changes by weight, and digests of the weights."""
    if _CHANGES not in about:
        raise CheckpointError(
            f"{file} is not a file of low-rank factors",
            hint='export(trainer, "adapter.safetensors") writes one',
        )
    try:
        entries = json.loads(about[_CHANGES])
        digests = {entry["path"]: str(entry.pop("digest")) for entry in entries}
        changes = {entry["path"]: LowRank(**entry) for entry in entries}
        for change in changes.values():
            change.check()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(f"what {file} says of its factors cannot be read") from None
    return changes, digests


def _check_adapted(model: Model, what: str) -> None:
    if not model.adapters:
        raise ModelError(
            f"{what} needs a model with low-rank factors, and {model.name} has none",
            hint="lora(model, rank=8) gives it some",
        )


def _is_given(start: Value) -> bool:
    """Whether a parameter starts at numbers that are given, as those of a file are."""
    return not start.args and not isinstance(start.op, Input)


def _digest(array: Array) -> str:
    return f"crc32:{zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data):08x}"
