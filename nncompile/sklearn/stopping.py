"""When the training of an estimator ends: where it no longer improves."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.ir.types import Array
from nncompile.train.events import Event


class Stopping:
    """A callback that collects the loss of each epoch and the score of the examples that are held
    out, if any; and ends the training after `n_iter_no_change` epochs in a row in which the score,
    or else the loss, was not better than the best by more than `tol`."""

    def __init__(self, estimator: Any, held_out: tuple[Array, Array, Array] | None) -> None:
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.stopped = False
        self._estimator = estimator
        self._held_out = held_out
        self._best = -np.inf
        self._since = 0
        self._state: dict[str, Array] | None = None

    def on_epoch(self, event: Event) -> None:
        """Takes in an epoch."""
        loss = float(event.metrics["loss"])
        self.losses.append(loss)
        value = -loss
        if self._held_out is not None:
            value = self._estimator._score_of(*self._held_out)
            self.scores.append(value)
        if self._estimator.verbose:
            score = f", validation score = {self.scores[-1]:.6f}" if self.scores else ""
            print(f"Iteration {event.epoch}, loss = {loss:.8f}{score}")
        self._since = 0 if value > self._best + self._estimator.tol else self._since + 1
        if value > self._best:
            self._best = value
            if self._held_out is not None:
                self._state = event.trainer.state
        if self._since >= self._estimator.n_iter_no_change:
            self.stopped = True
            event.trainer.stop()

    def finish(self) -> None:
        """Goes back to the weights of the best score of what is held out."""
        if self._state is None:
            return
        net = self._estimator.model_
        paths = (*net.parameters, *(p for p in net.states if p not in ("seed", "step")))
        self._estimator.trainer_.set_params({path: self._state[path] for path in paths})
