"""Trainings whose metrics are read together, and what is compared of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsl import Dense, f32, log, model, relu, sgd, training
from nncompile.compiler.compile import compile_step
from nncompile.runtime.checkpoint import load_checkpoint
from nncompile.train import Event, Trainer
from tests.small_models import data, trainer


def ahead(every: int | None, drop: float = 0.5, **options: Any) -> Trainer:
    return Trainer(trainer(drop, **options).compiled, metrics_every=every, threads=1)


class Told:
    """Notes the steps that it is told of, later or at once."""

    def __init__(self, may_lag: bool = True) -> None:
        self.may_lag = may_lag
        self.events: list[tuple[Any, ...]] = []
        self.behind: list[int] = []

    def on_step(self, event: Event) -> None:
        first = float(event.batch["x"].flat[0])
        self.events.append((event.epoch, event.step, tuple(event.metrics.items()), first))
        self.behind.append(event.trainer.step - event.step)


def files(folder: Path) -> dict[str, tuple[Any, Any]]:
    """The states in a directory: arrays, and the position."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        checkpoint = load_checkpoint(file)
        position = checkpoint.metadata["nncompile.position"]
        found[str(file.relative_to(folder))] = (checkpoint.state, position)
    return found


@model
def lost(x=f32["batch", 4], target=f32["batch", 2]):
    y = x >> Dense(8, relu, name="hidden") >> Dense(2, name="out")
    return {"loss": ((y - target) ** 2).mean() + log(x[:, 0].min() + 9)}


LOST = compile_step(training(lost, optimizer=sgd(0.01), batch_size=16))


def diverging(at: int, value: float = -50.0) -> dict[str, Any]:
    """Examples of which those of that step make its loss NaN, or minus infinity."""
    examples = data(160)
    examples["x"][16 * at - 5, 0] = value
    return examples
