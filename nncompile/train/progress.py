"""How far a training is, as a file: its whole state, and the position in the data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import CheckpointError
from nncompile.ir.types import Array
from nncompile.program.loss_scaling import in_scaling_of
from nncompile.program.step import Step
from nncompile.runtime.checkpoint import check_state, load_checkpoint, save_state
from nncompile.runtime.origin import origin_of, tell_of_another
from nncompile.train.callback_state import CallbackStates
from nncompile.train.epoch import Epoch

_POSITION, _CALLBACKS = "nncompile.position", "nncompile.callbacks"


@dataclass(frozen=True)
class Progress:
    """What a checkpoint holds: the state, the seed that orders the data, the epoch under way."""

    state: Mapping[str, Array]
    seed: int
    epoch: Epoch
    callbacks: CallbackStates


@dataclass(frozen=True)
class Snapshot:
    """A moment of a training, kept in memory: a copy of the state, and what the file says of it."""

    state: Mapping[str, Array]
    callbacks: Mapping[str, Array]
    metadata: Mapping[str, str]
    sync: Callable[[], None]
    """Returns when the files that the states of callbacks tell of are on disk."""

    @classmethod
    def of(
        cls,
        state: Mapping[str, Array],
        step: Step,
        seed: int,
        epoch: Epoch,
        callbacks: CallbackStates,
    ) -> Snapshot:
        """The moment of that state of a step within that epoch. Raises `ModelError` for a
        callback's state that cannot be written."""
        text = json.dumps({"seed": seed, "epoch": epoch.position()})
        metadata = {**origin_of(step), _POSITION: text}
        arrays: Mapping[str, Array] = {}
        if callbacks.names:
            metadata[_CALLBACKS], arrays = callbacks.stored()
        return cls(state, arrays, metadata, callbacks.sync)

    def noting(self, key: str, text: str) -> Snapshot:
        """The same moment, of which the file says more."""
        return replace(self, metadata={**self.metadata, key: text})

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Writes a checkpoint, whole or not at all. Raises `FileError`."""
        self.sync()
        return save_state(path, {**self.state, **self.callbacks}, self.metadata)


def load_progress(
    path: str | os.PathLike[str], step_of: Callable[[Collection[str]], CompiledStep]
) -> tuple[Progress, CompiledStep]:
    """What a checkpoint holds, or an exported step's initial state, and the step of a state of
    those names; it may be of a training in another precision. Raises `CheckpointError` for a
    truncated file or one of another model, `FileError` where there is none."""
    checkpoint = load_checkpoint(path)
    tensors, metadata = checkpoint.state, checkpoint.metadata
    compiled = step_of(tensors)
    tensors = in_scaling_of(tensors, compiled.source.state, compiled.source.recipe.scaler)
    check_state(tensors, compiled.source.state, path)
    tell_of_another(os.fspath(path), metadata, compiled.source.model)
    step = int(tensors["step"])
    position: dict[str, Any] = {"seed": tensors["seed"], "epoch": {"start": step}}
    try:
        position |= json.loads(metadata.get(_POSITION, "{}"))
        seed = int(position["seed"])
        start = position["epoch"]["start"]
        epoch = Epoch.of(compiled, batches=step - int(start), **position["epoch"])
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(
            f"the position in {os.fspath(path)} cannot be read",
            rows=[("got", metadata[_POSITION][:200])],
        ) from None
    states = CallbackStates()
    if _CALLBACKS in metadata:
        try:
            states = CallbackStates.restored(metadata[_CALLBACKS], checkpoint.callbacks)
        except (ValueError, TypeError, KeyError):
            raise CheckpointError(
                f"the states of callbacks in {os.fspath(path)} cannot be read",
                rows=[("got", metadata[_CALLBACKS][:200])],
            ) from None
    return Progress(tensors, seed, epoch, states), compiled
