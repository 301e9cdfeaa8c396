"""What a training tells those who watch it, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nncompile.errors import ModelError

if TYPE_CHECKING:
    from nncompile.train.trainer import Trainer


@dataclass(frozen=True)
class Event:
    """The end of a step or of an epoch.

    `epoch` counts from 1; `step` is the number of steps made since training began; `metrics` are
    those of the step, or the means over the epoch (with `val_…` from validation); `seconds` is the
    time since `fit` was called. `trainer.stop()` ends the training after this event.
    """

    kind: Literal["step", "epoch"]
    trainer: Trainer
    epoch: int
    step: int
    metrics: dict[str, float]
    seconds: float


Callback = Callable[[Event], Any] | Any
"""A function of an event, which gets all of them, or an object with `on_step(event)` or
`on_epoch(event)` or both."""


def listeners(
    callbacks: Callback | Iterable[Callback], kind: Literal["step", "epoch"]
) -> list[Callable[[Event], Any]]:
    """The functions that want events of that kind. Raises `ModelError` for what is no callback."""
    several = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    found: list[Callable[[Event], Any]] = []
    for callback in several:
        method = getattr(callback, f"on_{kind}", None)
        if method is not None:
            found.append(method)
        elif hasattr(callback, "on_step") or hasattr(callback, "on_epoch"):
            continue
        elif callable(callback):
            found.append(callback)
        else:
            raise ModelError(
                f"{callback!r} is no callback",
                hint="give a function of an event, or an object with on_step or on_epoch",
            )
    return found


@dataclass
class History:
    """The means of each epoch's metrics, in order; `history["loss"]` is one of them over time."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[float]:
        return [epoch[name] for epoch in self.epochs if name in epoch]

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.epochs)

    @property
    def last(self) -> dict[str, float]:
        """The figures of the last epoch; nothing where there was none."""
        return self.epochs[-1] if self.epochs else {}
