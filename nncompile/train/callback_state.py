"""What callbacks carry over from one training to the next, as JSON with arrays beside it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nncompile.diagnostics.errors import CheckpointError, ModelError, TrainingWarning, warn
from nncompile.ir.types import Array
from nncompile.runtime.checkpoint import CALLBACK

_ARRAY = "nncompile.array"  # the only key of what stands for an array


@dataclass(frozen=True)
class Told:
    """The event of a step or an epoch of which some listeners, and perhaps not all, were told, by
    their places; `batches` of the epoch were trained on by then. `stopping` says that one of them
    ended the training after the epoch."""

    kind: Literal["step", "epoch"]
    epoch: int
    batches: int
    metrics: Mapping[str, Any]
    places: Sequence[int]
    stopping: bool


@dataclass(frozen=True)
class CallbackStates:
    """The states of the callbacks of a training: of all their names in order, those that have a
    state with it, whether the training came to its end, and the event that is being told."""

    names: Sequence[str] = ()
    states: Sequence[tuple[str, Mapping[str, Any]]] = ()
    ended: bool = False
    told: Told | None = None
    files: Sequence[Any] = ()  # callbacks with files of which their states tell

    @classmethod
    def of(cls, callbacks: Iterable[Any], ended: bool, told: Told | None) -> CallbackStates:
        """The present states, and copies of their arrays."""
        several = list(callbacks)
        states = [(name_of(x), _copied(x.state_dict())) for x in several if has_state(x)]
        files = [x for x in several if has_state(x) and hasattr(x, "sync")]
        return cls([name_of(x) for x in several], states, ended, told, files)

    def sync(self) -> None:
        """Returns when what the states tell of the callbacks' files is on disk."""
        for callback in self.files:
            callback.sync()

    def stored(self) -> tuple[str, dict[str, Array]]:
        """The states as JSON, and the arrays that it names. Raises `ModelError` for a state that
        JSON cannot hold."""
        arrays: dict[str, Array] = {}
        fields: dict[str, Any] = {"names": list(self.names), "ended": self.ended}
        fields["states"] = [
            {"callback": name, "state": _stored(state, f"{CALLBACK}{i}", arrays, name)}
            for i, (name, state) in enumerate(self.states)
        ]
        if self.told is not None:
            fields["told"] = _stored(vars(self.told), f"{CALLBACK}told", arrays, "the event")
        return json.dumps(fields), arrays

    @classmethod
    def restored(cls, text: str, arrays: Mapping[str, Array]) -> CallbackStates:
        """States as they were `stored`. Raises `ValueError`, `TypeError` or `KeyError` for anything
        else."""
        fields = json.loads(text)
        states = [(x["callback"], _restored(x["state"], arrays)) for x in fields["states"]]
        told = Told(**_restored(fields["told"], arrays)) if "told" in fields else None
        return cls(fields["names"], states, bool(fields["ended"]), told)

    def give_back(self, callbacks: Sequence[Any]) -> None:
        """Gives each callback the state of that one of its class that was as many places from the
        first. Where the training had not come to its end, warns in one line of those without one,
        and of states without a callback. Raises `CheckpointError` where a callback does not take
        its state."""
        waiting: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for name, state in self.states:
            waiting[name].append(state)
        fresh = []
        for callback in callbacks:
            name = name_of(callback)
            if not has_state(callback):
                continue
            if not waiting[name]:
                fresh.append(name)
                continue
            state = waiting[name].pop(0)
            try:
                callback.load_state_dict(state)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise CheckpointError(
                    f"{name} cannot continue with its state in the checkpoint: "
                    f"{type(error).__name__}: {error}",
                    hint="begin it anew: leave it out in a first fit, and add it to the next",
                ) from None
        left = [name for name, states in waiting.items() for _ in states]
        if self.states and (left or fresh) and not self.ended:
            warn(
                "the training continues with other callbacks than it was saved with: "
                + "; ".join(
                    f"{', '.join(names)} {what}"
                    for names, what in ((left, "had a state"), (fresh, "begins anew"))
                    if names
                ),
                TrainingWarning,
            )


def has_state(callback: Any) -> bool:
    """Whether a callback carries something over: has `state_dict` and `load_state_dict`."""
    return hasattr(callback, "state_dict") and hasattr(callback, "load_state_dict")


def name_of(callback: Any) -> str:
    """The name of a function, or of an object's class."""
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def _copied(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.copy()
    if isinstance(x, Mapping):
        return {name: _copied(item) for name, item in x.items()}
    return [_copied(item) for item in x] if isinstance(x, list | tuple) else x


def _stored(x: Any, path: str, arrays: dict[str, Array], owner: str) -> Any:
    """The value as JSON has it; arrays are added to `arrays`."""
    if isinstance(x, np.ndarray):
        arrays[path] = x
        return {_ARRAY: path}
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, list | tuple):
        return [_stored(item, f"{path}.{i}", arrays, owner) for i, item in enumerate(x)]
    if isinstance(x, Mapping) and all(isinstance(name, str) for name in x):
        return {name: _stored(item, f"{path}.{name}", arrays, owner) for name, item in x.items()}
    if x is None or isinstance(x, str | int | float):
        return x
    raise ModelError(
        f"the state of {owner} holds a {type(x).__name__}, which a checkpoint cannot",
        hint="state_dict gives numbers, strings, arrays, and lists and dicts by names of them",
    )


def _restored(x: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(x, dict):
        if x.keys() == {_ARRAY}:
            return arrays[x[_ARRAY]]
        return {name: _restored(item, arrays) for name, item in x.items()}
    return [_restored(item, arrays) for item in x] if isinstance(x, list) else x
