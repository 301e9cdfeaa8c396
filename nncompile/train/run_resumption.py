"""Which run goes on, and from which of its states."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nncompile.diagnostics.errors import CheckpointError, CompileError, FileError, Row, did_you_mean
from nncompile.runtime.checkpoint import load_state
from nncompile.train import run_config, run_places
from nncompile.train.run_places import CHECKPOINTS, CONFIG, FINAL, LATEST


@dataclass(frozen=True)
class Resumed:
    """A run that goes on, or None where a new one begins from the state of a `file`; from the last
    state of the run where that is None. `config` is what `config.json` says."""

    run: Path | None
    file: Path | None
    config: Mapping[str, Any]

    def checkpoint(self) -> Path | None:
        """The file of the state to go on from: of the most steps, and of two of them the later;
        None where there is none yet. Raises `CheckpointError` for one that cannot be read."""
        if self.file is not None or self.run is None:
            return self.file
        files = sorted((self.run / CHECKPOINTS).glob("step-*.safetensors"))
        final = self.run / FINAL
        if not final.exists():
            return files[-1] if files else None
        if not files:
            return final
        return final if step_of(final) >= step_of(files[-1]) else files[-1]


def resumed(
    which: Literal[True] | str | os.PathLike[str], place: Path | None, parent: Path
) -> Resumed | None:
    """The run that `which` names: True or "latest" for that of `place`, or else the last in
    `parent`; a number or name there, a directory, or the file of a checkpoint. A file of another
    directory than `place` is the beginning of a new run there. None for True where there is none.
    Raises `FileError` where something else is not there."""
    if which is True or which == LATEST:
        run = place or run_places.latest(parent)
        if run is not None and (run / CONFIG).is_file():
            return Resumed(run, None, run_config.read(run))
        if which is True:
            return None
        raise FileError(
            f"there is no run to resume in {place or parent}",
            hint="leave --resume out to begin one",
        )
    path = Path(os.fspath(which))
    for run in (path, parent / path):
        if (run / CONFIG).is_file():
            found = Resumed(run, None, run_config.read(run))
            if place is not None and place.resolve() != run.resolve():
                raise FileError(
                    f"{run} continues in its own directory, not in {place}",
                    hint=f"to begin another run from its state, resume {found.checkpoint()}",
                )
            return found
    if path.is_dir():
        return Resumed(path, None, run_config.read(path))  # which tells what it is not
    if not path.is_file() and len(path.parts) == 1 and path.suffix != ".safetensors":
        names = [run.name for run in run_places.runs(parent)]
        raise FileError(
            f"there is no run {str(path)!r} in {parent}", hint=did_you_mean(path, names)
        )
    run = _run_of(path)
    if run is None or (place is not None and place.resolve() != run.resolve()):
        return Resumed(None, path, {})
    return Resumed(run, path, run_config.read(run))


def _run_of(file: Path) -> Path | None:
    """The run directory that a file lies in."""
    return next((x for x in (file.parent, file.parent.parent) if (x / CONFIG).is_file()), None)


def step_of(file: Path) -> int:
    """The step of the state in a file of a run: by its name, or else by what it holds. Raises
    `CheckpointError` where that cannot be read."""
    name, _, digits = file.stem.rpartition("-")
    if name and digits.isdigit():
        return int(digits)
    made = load_state(file)[0].get("step")
    if made is None or made.shape != ():
        raise CheckpointError(f"{file} cannot be read: it does not say of which step it is")
    return int(made)


def tell_what_is_kept(
    error: BaseException, run: Path, best_epoch: int | None, problem: Exception | None
) -> None:
    """Adds to what ends a training what of it is on disk, and the `problem` that kept its last
    state from there."""
    rows: list[Row] = [("run", str(run))]
    file = Resumed(run, None, {}).checkpoint()
    rows.append(("last", str(file.relative_to(run)) if file else "no state yet"))
    if problem is not None:
        said = problem.problem if isinstance(problem, CompileError) else problem
        rows.append(("lost", f"what came after it: {said}"))
    if best_epoch is not None:
        rows.append(("best", f"that of epoch {best_epoch}, in best/"))
    if isinstance(error, CompileError):
        error.rows = (*error.rows, *rows)
        if isinstance(problem, FileError) and error.hint is None:
            error.hint = "make room, and continue the run: --resume, or resume=True"
    else:
        error.add_note("\n".join("  ".join(row) for row in rows))
