"""The page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nncompile.report.predictions import examples_of
from nncompile.report.writing import history_of, write_page
from nncompile.train.run_pages import Ended, adds_to_runs
from nncompile.train.run_places import LOG


@adds_to_runs
def page_of(ended: Ended) -> Path:
    """Writes `report.html` into a run: its history from its first epoch on, and predictions for
    held-out data where there are some, else for the arrays that were trained on. Raises
    `CompileError`."""
    trainer: Any = ended.event.trainer
    fitting = ended.fitting
    # Batches that are made while training may end, or never.
    source = fitting.held_out or (fitting.feeder if fitting.feeder.whole is not None else None)
    return write_page(
        ended.path / "report.html",
        trainer,
        history_of(ended.path / LOG),
        {} if source is None else examples_of(source.epoch(), trainer.model),
        None,
        {"run": ended.path, "command": ended.config["command"], **ended.config.get("options", {})},
        ended.event.seconds,
    )
