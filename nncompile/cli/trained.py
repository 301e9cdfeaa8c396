"""What a command takes for a trained model: a run, or a model file with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nncompile.cli.settings import load_file
from nncompile.diagnostics.errors import FileError
from nncompile.finetuning.plan import Plan, tuned
from nncompile.program.model_file import Declared, load
from nncompile.train import run_config
from nncompile.train.run_places import BEST, CONFIG
from nncompile.train.run_resumption import Resumed


def is_run(path: Path) -> bool:
    """Whether there is a run directory at the path."""
    return (path / CONFIG).is_file()


def check_run(path: Path) -> None:
    """Raises `FileError` where there is no run directory at the path; it names the runs there."""
    if is_run(path):
        return
    place = path if path.is_dir() else path.parent
    names = [x.name for x in place.iterdir() if is_run(x)] if place.is_dir() else []
    runs = sorted(names, key=lambda name: (len(name), name))  # numbers in their order
    if not names:
        run_config.read(path)  # which raises, and says what is there
    what = "holds runs, and is not one itself" if place == path else "is not there"
    raise FileError(
        f"{path} {what}", hint=f"choose one of {', '.join(str(place / name) for name in runs[-8:])}"
    )


def declared_by(run: Path) -> Declared:
    """The model file of a run, with the options that it was trained with. Raises `FileError` where
    the run does not say which file that is, and what `load` does."""
    config = run_config.read(run)
    if config.get("finetune") is not None:
        return tuned(Plan.of(config["finetune"])).declared
    file: Any = config.get("file")
    if not isinstance(file, str):
        raise FileError(
            f"{run} does not say of which model file it is: a Python program began it",
            hint=f"nncompile evaluate FILE --params {run}",
        )
    return load(file, config.get("choice"), config.get("hyperparameters"))


def checkpoint_of(path: Path, best: bool = False) -> Path:
    """The file of a checkpoint: `path`, or the last state of the run there, or the `best` one.
    Raises `FileError` where there is none."""
    if not is_run(path):
        if best:
            raise FileError(f"{path} is no run, which has a best state", hint="leave --best out")
        return path
    file = path / BEST / "checkpoint.safetensors" if best else Resumed(path, None, {}).checkpoint()
    if file is None or not file.is_file():
        raise FileError(f"the run {path} has no {'best ' if best else ''}state yet")
    return file


def opened(
    target: Path,
    model: str | None,
    settings: Sequence[str] | None,
    params: Path | None,
    best: bool,
) -> tuple[Declared, Path | None]:
    """What a model file or a run declares, and the checkpoint of the weights; None for initial
    ones. Raises `FileError` for options that a run has itself."""
    if target.suffix == ".py" or target.is_file():
        if best and params is None:
            raise FileError(
                "--best is that of a run", hint=f"--params RUN --best, or {target}'s run"
            )
        declared = load_file(target, model, settings)
        return declared, None if params is None else checkpoint_of(params, best)
    check_run(target)
    superfluous = [
        n for n, x in (("--set", settings), ("--model", model), ("--params", params)) if x
    ]
    if superfluous:
        raise FileError(
            f"the run {target} has a model, its options and weights: "
            f"leave out {', '.join(superfluous)}",
            hint=f"nncompile evaluate FILE {superfluous[0]} ... takes the model file",
        )
    return declared_by(target), checkpoint_of(target, best)
