"""A log of trainings for Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import suggests_options
from nncompile.runtime import check_writable
from nncompile.train.events import EventTrainer
from nncompile.train.hooks.tracking import Tracking, parameters_of

_EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 255}


@suggests_options
class WandbLog(Tracking):
    """A callback that logs a training to Weights & Biases: the recipe and `config` as its
    configuration, metrics of each epoch and with `every` of each `every`-th step (`step/…`) over
    the number of the step, and at the end the model as the artifact `model.onnx` (unless `model`
    is false).

    With `mode` "offline", the default, nothing leaves the machine: files in `directory` (`wandb`
    there), which `wandb sync` uploads; "online" needs an account. `run_id` is the run's name. A
    training that is resumed from a checkpoint continues its run. What the service does not take is
    tried again, and a warning says so; the training goes on. It needs the package wandb, and raises
    `ModelError` where that is not installed, and for another mode.
    """

    service = "Weights & Biases"

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        mode: Literal["offline", "online"] = "offline",
        directory: str | os.PathLike[str] | None = None,
        every: int | None = None,
        config: Mapping[str, Any] | None = None,
        model: bool = True,
    ) -> None:
        super().__init__(every, model)
        if mode not in ("offline", "online"):
            raise ModelError(f'mode must be "offline" or "online", got {mode!r}')
        self.project, self.name, self.mode = project, name, mode
        self.directory = None if directory is None else check_writable(directory)
        self.config = dict(config or {})
        hint = "pip install 'nncompile[wandb]'; CSVLog and JSONLog need nothing"
        self._package = extra("wandb", "wandb", "the log for Weights & Biases", hint, ModelError)
        self._run: Any = None

    def _begin(self, trainer: EventTrainer) -> None:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._run = self._package.init(
            project=self.project,
            name=self.name,
            mode=self.mode,
            dir=None if self.directory is None else str(self.directory),
            config={**parameters_of(trainer), **self.config},
            id=self.run_id,
            resume=None if self.run_id is None or self.mode == "offline" else "allow",
            reinit="create_new",
            settings=self._package.Settings(silent=True, console="off"),
        )
        self.run_id = str(self._run.id)

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def _keep(self, file: Path) -> None:
        artifact = self._package.Artifact(file.stem, type="model")
        artifact.add_file(str(file))
        self._run.log_artifact(artifact)

    def _end(self, status: str) -> None:
        self._run.finish(_EXIT_CODES[status])
        self._run = None
