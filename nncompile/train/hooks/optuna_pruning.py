"""Trials of Optuna that are given up early."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ModelError, TrainingWarning, warn
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.kinds import shown
from nncompile.train.callbacks import watched
from nncompile.train.directions import better
from nncompile.train.events import Event


@suggests_options
class OptunaPruning:
    """A callback that reports the metric `monitor` of each epoch to Optuna's `trial`, and ends the
    training by `optuna.TrialPruned` where its pruner says so; the objective lets that pass.

    It needs the package optuna. Raises `ModelError` where that is not installed, for what is no
    trial, and for a study of several objectives, which Optuna does not prune. Warns where the study
    goes the other way than the metric, such as one that minimizes an accuracy.
    """

    may_add_metrics = False

    def __init__(self, trial: Any, monitor: str = "val_loss") -> None:
        hint = "pip install 'nncompile[optuna]'"
        self._package = extra("optuna", "optuna", "pruning by Optuna", hint, ModelError)
        if not (hasattr(trial, "report") and hasattr(trial, "should_prune")):
            raise ModelError(
                f"OptunaPruning needs a trial of Optuna, got {shown(trial)}",
                hint="def objective(trial): ... callbacks=OptunaPruning(trial, 'val_loss')",
            )
        self.trial, self.monitor = trial, monitor
        study = getattr(trial, "study", None)
        directions = [] if study is None else [d.name.lower() for d in study.directions]
        if len(directions) > 1:
            raise ModelError("OptunaPruning: Optuna does not prune a study of several objectives")
        mode = better(monitor)
        if directions and not directions[0].startswith(mode):
            warn(
                f"the study is to {directions[0]} the objective, and {monitor} is better the "
                f"{'larger' if mode == 'max' else 'smaller'} it is: "
                f'create_study(direction="{mode}imize")',
                TrainingWarning,
            )

    @property
    def monitored(self) -> tuple[str, ...]:
        """The metric that it watches."""
        return (self.monitor,)

    def on_epoch(self, event: Event) -> None:
        value = watched(event, self.monitor)
        self.trial.report(value, step=event.epoch)
        if self.trial.should_prune():
            raise self._package.TrialPruned(
                f"pruned after epoch {event.epoch}, {self.monitor} = {value:.6g}"
            )
