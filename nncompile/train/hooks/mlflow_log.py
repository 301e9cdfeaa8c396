"""A log of trainings for MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_options
from nncompile.train.events import EventTrainer
from nncompile.train.hooks.tracking import Tracking, parameters_of

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


@suggests_options
class MLflowLog(Tracking):
    """A callback that logs a training to MLflow: the recipe and `params` as parameters, metrics of
    each epoch and with `every` of each `every`-th step (`step/…`) over the number of the step, and
    at the end the model as `model.onnx` (unless `model` is false) and the files of `artifacts`.

    It begins a run in `experiment` (of that name, made where there is none; MLflow's own default
    otherwise), called `run_name`, on `tracking_uri` (MLflow's own setting by default): "FINISHED",
    "FAILED" after an error, "KILLED" after an interrupt. Within `with mlflow.start_run():` it logs
    to that run, and leaves its end to it. `run_id` is the run's name. A training that is resumed
    from a checkpoint continues its run. What MLflow does not take is tried again, and a warning
    says so; the training goes on. It needs the package mlflow or mlflow-skinny, and raises
    `ModelError` where neither is installed.
    """

    service = "MLflow"

    def __init__(
        self,
        experiment: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        every: int | None = None,
        params: Mapping[str, Any] | None = None,
        artifacts: Sequence[str | os.PathLike[str]] = (),
        model: bool = True,
    ) -> None:
        super().__init__(every, model)
        self.experiment, self.run_name, self.tracking_uri = experiment, run_name, tracking_uri
        self.params = dict(params or {})
        self.artifacts = [Path(path) for path in artifacts]
        hint = "pip install 'nncompile[mlflow]'; CSVLog and JSONLog need nothing"
        self._package = extra("mlflow", "mlflow", "the log for MLflow", hint, ModelError)
        self._client: Any = None
        self._is_users = False  # a run that is ended by who began it

    def _begin(self, trainer: EventTrainer) -> None:
        self._client = self._package.MlflowClient(tracking_uri=self.tracking_uri)
        active = self._package.active_run()
        self._is_users = active is not None and self.run_id in (None, active.info.run_id)
        if self.run_id is None:
            self.run_id = active.info.run_id if active is not None else self._new_run()
        else:
            self._client.update_run(self.run_id, status="RUNNING")
        known = self._client.get_run(self.run_id).data.params  # a parameter is logged once
        for name, value in {**parameters_of(trainer), **self.params}.items():
            if name not in known:
                self._client.log_param(self.run_id, name, str(value)[:500])

    def _new_run(self) -> str:
        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=self.run_name)
        return str(run.info.run_id)

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._package.entities.Metric(n, x, now, step) for n, x in numbers.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _keep(self, file: Path) -> None:
        self._client.log_artifact(self.run_id, str(file))

    def _end(self, status: str) -> None:
        for path in self.artifacts if status == "finished" else ():
            self._keep(path)
        if not self._is_users:
            self._client.set_terminated(self.run_id, _STATUS[status])
