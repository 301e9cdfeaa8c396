"""Where runs lie: directories that appear whole, are numbered, and the link to the last."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.diagnostics.reading import read_file, reason_of
from nncompile.runtime import new_directory, remove_directory, sync
from nncompile.train.run_lock import Lock

CONFIG, LOG, LATEST = "config.json", "log.csv", "latest"
CHECKPOINTS, BEST, FINAL = "checkpoints", "best", "checkpoint.safetensors"
# What may be in a run directory: anything else is no run's, and is never removed.
_OWN = {CONFIG, LOG, CHECKPOINTS, BEST, "model.onnx", "step.onnx", "step.state.safetensors"}
_OWN |= {"model.weights.safetensors", "adapter.safetensors", FINAL, "report.html"}


def create(target: Path | None, parent: Path, fill: Callable[[Path], None]) -> tuple[Path, Lock]:
    """Makes a run directory, `target` or that of the next number in `parent`, which appears whole
    with what `fill` writes into it, and locks it.

    It is made beside its place, synced and renamed. Raises `FileError` where it is there already.
    """
    if target is not None and target.is_dir():  # an empty one, which may be a mounted volume
        lock = Lock(target)
        try:
            if any(x.name[0] != "." for x in target.iterdir()):  # made since it was looked for
                raise exists_already(target)
            fill(target)
        except BaseException:
            lock.release()
            raise
        return target, lock
    parent = parent if target is None else target.parent
    with new_directory(parent, "run" if target is None else target.name) as beside:
        lock = Lock(beside)
        try:
            fill(beside)
            sync(beside)
            place = _renamed(beside, target, parent)
            sync(parent)
        except BaseException:
            lock.release()
            raise
    return place, lock


def _renamed(beside: Path, target: Path | None, parent: Path) -> Path:
    """The place of the directory after its one renaming. A number is taken by the renaming, which
    fails where another process took it."""
    number = 0
    while True:
        place = target
        if place is None:
            number = max(number, *(numbers(parent) or [0])) + 1
            place = parent / str(number)
        try:
            os.rename(beside, place)
            return place
        except OSError as error:
            if not os.path.lexists(place):
                raise FileError(f"cannot make {place}: {reason_of(error)}") from None
            if target is not None:
                raise exists_already(place) from None


def exists_already(place: Path) -> FileError:
    """The error of a run that is there."""
    what = "holds a run already" if (place / CONFIG).is_file() else "holds files already"
    if not place.is_dir():
        what = "is not a directory"
    return FileError(
        f"{place} {what}",
        hint="continue it (--resume, in Python resume=True), replace it (--overwrite, "
        "overwrite=True), or choose another place (--name NAME, --output DIR)",
    )


def check_free(place: Path | None, overwrite: bool) -> None:
    """Raises `FileError` where a new run at `place` would take the place of something; with
    `overwrite`, of something that is no run."""
    if place is None or not os.path.lexists(place):
        return
    if not place.is_dir():
        raise exists_already(place)
    entries = sorted(x.name for x in place.iterdir())
    if entries and not overwrite:
        raise exists_already(place)
    foreign = [name for name in entries if name not in _OWN and name[0] != "."]
    if foreign:
        raise FileError(
            f"{place} holds what no run wrote: {', '.join(foreign[:8])}",
            hint="move it away, or train into another directory",
        )


def clear(place: Path) -> None:
    """Removes a run that is to be replaced. Raises `FileError` where a process trains in it."""
    lock = Lock(place)
    try:
        remove_directory(place.resolve())
    finally:
        lock.release()


def numbers(parent: Path) -> list[int]:
    """The numbers of the runs there, in order."""
    if not parent.is_dir():
        return []
    return sorted(int(x.name) for x in parent.iterdir() if re.fullmatch(r"[1-9]\d{0,17}", x.name))


def check_name(name: str) -> str:
    """The name of a run. Raises `ModelError` for one that is no name of a directory."""
    if not re.fullmatch(r"[\w][\w.+=,@ -]*", name) or name == LATEST or len(name) > 100:
        raise ModelError(
            f"{name!r} cannot be the name of a run",
            hint="letters, digits and ._+=,@- in at most 100 characters, and not latest",
        )
    return name


def directory_name(model: str) -> str:
    """The name of a model as that of a directory."""
    return re.sub(r"[^\w.+=,@ -]", "_", model).lstrip(".")[:100] or "model"


def point_to(run: Path) -> None:
    """Makes `latest` beside a run point to it: a link, or where there are none a file that holds
    its name. What else is called so is left alone."""
    pointer = run.parent / LATEST
    if pointer.is_dir() and not pointer.is_symlink():
        return
    beside = run.parent / f".{LATEST}.{secrets.token_hex(8)}.nncompile-writing"
    with contextlib.suppress(OSError):  # a convenience, for which no training fails
        try:
            os.symlink(run.name, beside)
        except OSError:
            beside.write_text(run.name + "\n", encoding="utf-8")
        try:
            os.replace(beside, pointer)
        finally:
            beside.unlink(missing_ok=True)


def latest(parent: Path) -> Path | None:
    """The run that `latest` points to, or else the last that began; None where there is none."""
    pointer = parent / LATEST
    with contextlib.suppress(OSError, FileError, ValueError):  # it holds no name
        is_link = pointer.is_symlink()
        name = os.readlink(pointer) if is_link else read_file(pointer).decode("utf-8").strip()
        if (parent / name / CONFIG).is_file():
            return parent / name
    found = [x for x in runs(parent) if x.name != LATEST]
    return max(found, key=lambda x: (x / CONFIG).stat().st_mtime_ns) if found else None


def runs(parent: Path) -> list[Path]:
    """The run directories in `parent`."""
    if not parent.is_dir():
        return []
    return sorted(x for x in parent.iterdir() if x.name[0] != "." and (x / CONFIG).is_file())
