"""Callbacks that act on a training: early stopping, checkpoints, and a halt at lost numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import (
    ModelError,
    TrainingError,
    TrainingWarning,
    warn,
    whole_number,
)
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.options import not_negative
from nncompile.ir.types import Array, is_real
from nncompile.optim.adjustable import is_set_rate
from nncompile.program.model import RANDOM_STATE
from nncompile.train.directions import Mode, better
from nncompile.train.events import Event, no_metric
from nncompile.train.figures import numbers_of


def watched(event: Event, name: str) -> float:
    """The metric of that name. Raises `ModelError`, which lists those there are."""
    if name not in event.metrics or np.ndim(event.metrics[name]):
        raise no_metric(name, [(n, f"{x:.6g}") for n, x in numbers_of(event.metrics).items()])
    return float(event.metrics[name])


@dataclass
class Best:
    """The best value so far of the metric `name`, and the epoch that had it."""

    name: str
    mode: Mode | None = None
    min_delta: float = 0.0
    value: float | None = None
    epoch: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, "min", "max"):
            raise ModelError(f'mode must be "min" or "max", got {self.mode!r}')
        self.min_delta = not_negative("min_delta", self.min_delta)

    def improved(self, event: Event) -> bool:
        """Whether the epoch is the best so far, by more than `min_delta`; NaN never is."""
        x = watched(event, self.name)
        if math.isnan(x):
            return False
        sign = -1 if (self.mode or better(self.name)) == "max" else 1
        if self.value is not None and not sign * x < sign * self.value - self.min_delta:
            return False
        self.value, self.epoch = x, event.epoch
        return True


@suggests_options
class EarlyStopping:
    """Ends the training when the metric `monitor` has not improved by more than `min_delta` for
    `patience` epochs in a row, as Keras' callback of that name.

    `monitor` is a name of `fit`'s history; `val_…` needs validation data. Less is better, or, for
    names like accuracy (see `better`), more; `mode` says it outright. With `restore_best_weights`,
    when `fit` ends without an error or an interrupt, parameters, running statistics, averages
    and slots are those of the best epoch; step, seed and a rate that was set stay the current ones.
    `best` is its value, `best_epoch` its number, `stopped_epoch` that of the epoch after which it
    stopped, or None. Each `fit` starts afresh; one that goes on from a file goes on counting.
    """

    may_add_metrics = False

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best_weights: bool = True,
        mode: Mode | None = None,
    ) -> None:
        self.monitor = monitor
        self.patience = whole_number("patience", patience, 1)
        self.restore_best_weights = restore_best_weights
        self.stopped_epoch: int | None = None
        self._best = Best(monitor, mode, min_delta)
        self._waited = 0
        self._state: dict[str, Array] = {}
        self._ended = False

    @property
    def best(self) -> float | None:
        """The best value; None where there was none."""
        return self._best.value

    @property
    def best_epoch(self) -> int | None:
        """The epoch that had the best value."""
        return self._best.epoch

    @property
    def monitored(self) -> tuple[str, ...]:
        """The metric that it watches."""
        return (self.monitor,)

    def on_epoch(self, event: Event) -> None:
        if self._ended:
            self._best = replace(self._best, value=None, epoch=None)
            self._ended, self._waited, self.stopped_epoch = False, 0, None
        best = replace(self._best)
        # What changes is set at once at the end: after an interrupt the event is told again.
        if best.improved(event):
            state = event.trainer.state if self.restore_best_weights else {}
            weights = {p: x for p, x in state.items() if _is_restored(p)}
            self._best, self._waited, self._state = best, 0, weights
            return
        if self._waited + 1 >= self.patience:
            event.trainer.stop()
            self.stopped_epoch = event.epoch
        self._waited += 1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training continues with: the best so far, with its weights, and for how
        many epochs there was no better."""
        return {
            "monitor": self.monitor,
            "best": self._best.value,
            "best_epoch": self._best.epoch,
            "waited": self._waited,
            "stopped_epoch": self.stopped_epoch,
            "ended": self._ended,
            "weights": self._state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with what `state_dict` gave; starts afresh, with a warning, where that watched
        another metric."""
        if not _watches(self, self.monitor, state["monitor"]):
            return
        self._best = replace(self._best, value=state["best"], epoch=state["best_epoch"])
        self._waited, self.stopped_epoch = state["waited"], state["stopped_epoch"]
        self._ended = state["ended"]
        self._state = dict(state["weights"]) if self.restore_best_weights else {}

    def on_end(self, event: Event) -> None:
        self._ended = True
        if self._state and self._waited:
            event.trainer.set_params(self._state)
        self._state = {}


@suggests_options
@dataclass
class ModelCheckpoint:
    """Saves the trainer to `path` after each `every` epochs; with `monitor`, only where that
    metric is the best so far (see `EarlyStopping` for `mode` and `min_delta`).

    `path` may hold names in braces, `"runs/{epoch:03d}-{val_loss:.3f}.safetensors"`: `epoch`,
    `step` and metrics. A file is written under a temporary name and renamed when it is complete.
    The latest `keep` files stay (all of them where it is None); `paths` lists them.
    `Trainer.load` resumes from one, bit for bit.
    """

    path: str | os.PathLike[str]
    monitor: str | None = None
    mode: Mode | None = None
    min_delta: float = 0.0
    every: int = 1
    keep: int | None = None
    paths: list[Path] = field(default_factory=list, init=False)

    may_add_metrics = False

    def __post_init__(self) -> None:
        whole_number("every", self.every, 1)
        if self.keep is not None:
            whole_number("keep", self.keep, 1)
        self._best = None if self.monitor is None else Best(self.monitor, self.mode, self.min_delta)
        self._surplus: list[Path] = []  # to be deleted once the latest file is there

    @property
    def best(self) -> float | None:
        """The best value of the metric; None where there was none, or none is watched."""
        return self._best.value if self._best else None

    def on_epoch(self, event: Event) -> None:
        if event.epoch % self.every:
            return
        best = None if self._best is None else replace(self._best)
        if best is not None and not best.improved(event):
            return
        path = Path(self._filled_path(event))
        paths = [*(p for p in self.paths if p != path), path]
        surplus = 0 if self.keep is None else max(0, len(paths) - self.keep)
        # The file says what is true once it is there.
        before = self._best, self.paths, self._surplus
        self._best, self.paths, self._surplus = best, paths[surplus:], paths[:surplus]
        try:
            event.trainer.save(path)
        except BaseException:
            self._best, self.paths, self._surplus = before
            raise
        self._delete_surplus()

    @property
    def monitored(self) -> tuple[str, ...]:
        """The metric that it watches, if any."""
        return () if self.monitor is None else (self.monitor,)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training continues with: the best value and the files."""
        return {
            "monitor": self.monitor,
            "best": self._best.value if self._best else None,
            "best_epoch": self._best.epoch if self._best else None,
            "paths": [os.fspath(path) for path in self.paths],
            "surplus": [os.fspath(path) for path in self._surplus],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with what `state_dict` gave, and deletes what was to be deleted."""
        self.paths = list(map(Path, state["paths"]))
        self._surplus = [Path(path) for path in state["surplus"]]
        self._delete_surplus()
        if _watches(self, self.monitor, state["monitor"]) and self._best is not None:
            self._best = replace(self._best, value=state["best"], epoch=state["best_epoch"])

    def _delete_surplus(self) -> None:
        for path in self._surplus:
            path.unlink(missing_ok=True)
        self._surplus = []

    def _filled_path(self, event: Event) -> str:
        values: Mapping[str, Any] = {**event.metrics, "epoch": event.epoch, "step": event.step}
        try:
            return os.fspath(self.path).format(**values)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise ModelError(
                f"the path {os.fspath(self.path)!r} cannot be filled in: {error}",
                hint=f"the names are {', '.join(values)}; {{{{ is a brace",
            ) from None


def _is_restored(path: str) -> bool:
    return path not in RANDOM_STATE and not is_set_rate(path)


def _watches(callback: Any, monitor: str | None, earlier: str | None) -> bool:
    """Whether a callback watches what it watched before; warns where not."""
    if monitor != earlier:
        name = type(callback).__name__
        warn(f"{name} watched {earlier}, and begins anew with {monitor}", TrainingWarning)
    return monitor == earlier


@suggests_options
class CheckFinite:
    """Ends the training with a `TrainingError` after the first step that leaves a number of the
    state NaN or infinite, and says in which node it began. The state is then that of the step
    before.

    The trainer itself looks at the loss, which may tell only a step later, when what the spoiled
    weights were computed of is gone. It copies the state in every step: for finding a mistake.
    """

    told_first = True

    def __init__(self) -> None:
        """It has no options."""

    def on_step(self, event: Event) -> None:
        spoiled = [
            path
            for path, x in event.trainer.state.items()
            if is_real(x.dtype) and not np.isfinite(x).all()
        ]
        if not spoiled:
            return
        trainer = event.trainer
        following = trainer.compiled.source.state_map
        nonfinite = trainer.locate(event.batch, [following[p] for p in spoiled if p in following])
        raise TrainingError(
            f"{spoiled[0]} is not finite after step {event.step} (epoch {event.epoch})"
            + (f", and {len(spoiled) - 1} more of the state" if len(spoiled) > 1 else ""),
            rows=nonfinite.rows if nonfinite else (),
            hint="a gradient may be infinite where the loss is finite: sqrt, log or a norm at zero",
        )
