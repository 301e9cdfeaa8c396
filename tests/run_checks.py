"""What the tests of runs read in their directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nncompile.train import Event


def log_rows(run: Path) -> list[str]:
    """The lines of the log without the seconds."""
    return [row.rpartition(",")[0] for row in (run / "log.csv").read_text("utf-8").splitlines()]


def states(run: Path) -> list[int]:
    """The steps of the periodic states there."""
    return sorted(int(file.stem[-9:]) for file in (run / "checkpoints").iterdir())


def stop_after(step: int, error: BaseException | type[BaseException] = KeyboardInterrupt) -> Any:
    """A callback that ends the training with an error after that step."""

    def ended(event: Event) -> None:
        if event.kind == "step" and event.step == step:
            raise error

    return ended
