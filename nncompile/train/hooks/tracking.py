"""What logs of a training to a tracking service share: when they begin, what they log, and that a
service that fails does not end the training."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.compiler.export import export
from nncompile.diagnostics.errors import CompileError, TrainingWarning, warn, whole_number
from nncompile.program.recipe import Recipe, minimize
from nncompile.train.events import Event, EventTrainer, Fitting
from nncompile.train.figures import numbers_of

Call = Callable[[], Any]


class Tracking(ABC):
    """A callback that logs a training to a service.

    What the service does not take is kept, and tried again with the next epoch and at the end; a
    warning tells of the first failure. Its run begins with what is logged first, ends as the
    training does, and continues where the training is resumed: `state_dict` has its name.
    """

    service: str
    may_fail = may_lag = True
    may_add_metrics = False

    def __init__(self, every: int | None, model: bool) -> None:
        self.every = None if every is None else whole_number("every", every, 1)
        self.model = model
        self.run_id: str | None = None
        self._waiting: list[Call] = []
        self._has_failed = False
        self._is_begun = False

    @abstractmethod
    def _begin(self, trainer: EventTrainer) -> None:
        """Begins the run, or continues that of `run_id`; sets `run_id`."""

    @abstractmethod
    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        """Logs the metrics at that step."""

    @abstractmethod
    def _keep(self, file: Path) -> None:
        """Keeps a copy of the file with the run."""

    @abstractmethod
    def _end(self, status: str) -> None:
        """Ends the run: "finished", "failed" or "interrupted"."""

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Ends the run as the training ends."""
        self._is_begun = False
        status = "finished"
        try:
            yield
        except Exception:
            status = "failed"
            raise
        except BaseException:
            status = "interrupted"
            raise
        finally:
            self._begin_once(fitting.trainer)
            if self.model and status == "finished":
                self._waiting.append(lambda: self._keep_model(fitting.trainer))
            self._waiting.append(lambda: self._end(status))
            self._send()
            if self._waiting:
                self._warn(f"{self.service} has not got the end of the run {self.run_id or ''}")

    def on_step(self, event: Event) -> None:
        if self.every is not None and event.step % self.every == 0:
            numbers = {f"step/{name}": x for name, x in numbers_of(event.metrics).items()}
            self._add(event, numbers)

    def on_epoch(self, event: Event) -> None:
        self._add(event, {**numbers_of(event.metrics), "epoch": float(event.epoch)})
        self._send()

    def state_dict(self) -> dict[str, Any]:
        """The name of the run."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues the run of that name."""
        self.run_id = state["run_id"]

    def _add(self, event: Event, numbers: Mapping[str, float]) -> None:
        self._begin_once(event.trainer)
        step = event.step
        self._waiting.append(lambda: self._log(numbers, step))

    def _begin_once(self, trainer: EventTrainer) -> None:
        if not self._is_begun:
            self._is_begun = True
            self._waiting.append(lambda: self._begin(trainer))

    def _keep_model(self, trainer: EventTrainer) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            for file in export(trainer.recipe, path, "onnx", trainer.state):
                self._keep(file)

    def _send(self) -> None:
        """Makes the calls that wait, in their order, until one fails."""
        while self._waiting:
            try:
                self._waiting[0]()
            except CompileError:  # a mistake in how it was declared, such as an unknown run
                self._waiting.clear()
                raise
            except Exception as error:  # whatever the package raises, of the net or of a disk
                if not self._has_failed:
                    self._has_failed = True
                    reason = " ".join(str(error).split())[:200] or type(error).__name__
                    self._warn(
                        f"{self.service} failed, and the training goes on: {reason}; it is tried "
                        "again with each epoch"
                    )
                return
            self._waiting.pop(0)

    def _warn(self, message: str) -> None:
        warn(message, TrainingWarning)


def parameters_of(trainer: EventTrainer) -> dict[str, Any]:
    """The recipe as a flat table: what is trained, on batches of how many, by which optimizer with
    which options."""
    recipe: Recipe = trainer.recipe
    table: dict[str, Any] = {
        "model": recipe.model.name,
        "parameters": sum(int(np.prod(x.shape)) for x in trainer.params.values()),
        "batch_size": recipe.batch_size,
        "epochs": recipe.epochs,
        "steps": recipe.steps,
        "seed": trainer.seed,
        "accumulate": recipe.accumulate,
        "freeze": ", ".join(recipe.freeze) or None,
        "providers": str(trainer.providers),
    }
    updates = [update for update in recipe.updates if isinstance(update, minimize)]
    for update in updates:
        prefix = f"{update.loss}." if len(updates) > 1 else ""
        table[f"{prefix}minimize"] = update.loss
        several = update.optimizer
        by_pattern = several if isinstance(several, Mapping) else {"": several}
        for pattern, optimizer in by_pattern.items():
            label = f"{prefix}optimizer[{pattern}]" if pattern else f"{prefix}optimizer"
            table[label] = type(optimizer).__name__
            for name in optimizer.__dataclass_fields__:
                value = getattr(optimizer, name)
                is_plain = isinstance(value, int | float | str | bool) or value is None
                table[f"{label}.{name}"] = value if is_plain else str(value)
    return {name: value for name, value in table.items() if value is not None}
