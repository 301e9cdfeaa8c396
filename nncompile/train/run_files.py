"""What a run writes into its directory: states, the best state, and exports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nncompile.compiler.export import export
from nncompile.compiler.originals import inference_target
from nncompile.diagnostics.errors import CheckpointError
from nncompile.runtime import load_state, sweep, sync, written_together
from nncompile.train.events import EventTrainer, Snapshot
from nncompile.train.run_pages import Ended, Pages
from nncompile.train.run_places import BEST, CHECKPOINTS, FINAL, LOG

NOTED = "nncompile.run"
"""The key under which a state holds what its run is resumed with: JSON."""


def sweep_run(run: Path) -> None:
    """Ends what killed processes left unfinished in the directory of a run."""
    for directory in (run, run / CHECKPOINTS, run / BEST):
        sweep(directory)


def notes_in(file: Path) -> dict[str, Any] | None:
    """What the state in the file says that its run is resumed with; None where no run wrote it.
    Raises `CheckpointError` where that cannot be read."""
    text = load_state(file)[1].get(NOTED)
    if text is None:
        return None
    try:
        notes = json.loads(text)
        log, best = notes["log"], notes.get("best")
        log = {
            "bytes": int(log["bytes"]),
            "crc32": int(log["crc32"]),
            "waiting": str(log["waiting"]),
            "seconds": float(log["seconds"]),
            "columns": [str(name) for name in log["columns"]],
        }
        if best is not None:
            value, epoch = best["value"], best["epoch"]
            best = {
                "value": None if value is None else float(value),
                "epoch": None if epoch is None else int(epoch),
            }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(
            f"what the run noted in {file} cannot be read", rows=[("got", text[:200])]
        ) from None
    return {"log": log, "best": best}


class RunFiles:
    """Writes the files of a run in the directory `path`; `keep` periodic states stay
    there, and each holds what `noted` gives."""

    def __init__(self, path: Path, keep: int, noted: Callable[[], Mapping[str, Any]]) -> None:
        self.path, self.keep, self._noted = path, keep, noted
        self.best_epoch: int | None = None  # of the best state that is on disk
        # The best state and its epoch, where it is not on disk yet.
        self._improved: tuple[Snapshot, int] | None = None
        self.exported: tuple[Path, ...] = ()
        self.written = (-1, -1)  # step and epoch of the last state on disk

    def snapshot(self, trainer: EventTrainer, copied: bool = True) -> Snapshot:
        """The present moment, with what the run itself is resumed with; see `Trainer.snapshot`."""
        return trainer.snapshot(copied).noting(NOTED, json.dumps(self._noted()))

    def improve(self, trainer: EventTrainer, epoch: int) -> None:
        """Keeps the present moment as the best state."""
        self._improved = self.snapshot(trainer), epoch

    def write_state(self, trainer: EventTrainer) -> None:
        """Writes the best state, where it is not on disk, and the present one. Raises
        `FileError`."""
        self.write_best()
        directory = self.path / CHECKPOINTS
        moment = self.snapshot(trainer, copied=False)
        self._write(moment, directory / f"step-{trainer.step:09d}.safetensors")
        self.written = (trainer.step, trainer.epoch)
        for old in sorted(directory.glob("step-*.safetensors"))[: -self.keep]:
            with contextlib.suppress(OSError):  # an older one that stays does no harm
                old.unlink()

    def write_best(self) -> None:
        """Writes the best state, where it is not on disk. Raises `FileError`."""
        if self._improved is not None:
            moment, epoch = self._improved
            self._write(moment, self.path / BEST / FINAL)
            self._improved, self.best_epoch = None, epoch

    def add_pages(self, pages: Pages, ended: Ended) -> None:
        """Writes what tells of the run; a warning says so where that fails."""
        self.exported = (*self.exported, *pages.write(ended))

    def _write(self, moment: Snapshot, file: Path) -> Path:
        """Writes a state; what it says of the log is on disk before."""
        with contextlib.suppress(OSError):  # the state is worth more than the log
            sync(self.path / LOG)
        return moment.write(file)

    def export(self, trainer: EventTrainer) -> None:
        """Writes the trained model, the training step with its first state, and the last state:
        all of them, or none. Raises `FileError`."""
        recipe = trainer.recipe
        moment = self.snapshot(trainer, copied=False)
        state = moment.state
        target, _ = inference_target(recipe.model)
        with written_together(self.path) as directory:
            factors = directory / "adapter.safetensors"
            files = (
                *export(recipe, directory / "model.onnx", target, state),
                *(export(recipe, factors, "adapter", state) if recipe.model.adapters else ()),
                *export(trainer.compiled, directory / "step.onnx", "step", seed=trainer.seed),
                self._write(moment, directory / FINAL),
            )
        self.exported = tuple(self.path / file.name for file in files)
        self.written = (trainer.step, trainer.epoch)
