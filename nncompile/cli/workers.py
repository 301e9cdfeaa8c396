"""A command that several processes run, which a launcher such as mpirun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from nncompile.cli.outcome import Outcome
from nncompile.cli.shared import out
from nncompile.diagnostics.errors import CompileError, LostProcessError, ModelError
from nncompile.diagnostics.extras import extra
from nncompile.runtime.ending import ends_with
from nncompile.train.events import Fitting
from nncompile.train.run_directory import RunDirectory
from nncompile.train.run_places import CONFIG

# What Open MPI, MPICH and MVAPICH tell a process that they start: how many there are, which it is,
# and how many are on its machine.
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
)
# The same of torchrun, whose names others use, too.
_TORCHRUN, _OF_TORCHRUN = "TORCHELASTIC_RUN_ID", ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE")
PLACE = "NNCOMPILE_WORKERS"
_OPTIONS = {"every": "average_every"}  # of a command, where it is called otherwise there
_silence = contextlib.ExitStack()  # of another process than the first, for good


@dataclass(frozen=True)
class Place:
    """A directory in which the first process tells the one that started it who it is, where the run
    is, and with which exit code it ends."""

    path: Path

    @classmethod
    def here(cls) -> Place | None:
        """That of this process, if it is the first."""
        path, there = os.environ.get(PLACE), launched()
        return cls(Path(path)) if path and (there is None or there[1] == 0) else None

    def tell(self, name: str, what: Any) -> None:
        """Whole or not at all."""
        beside = self.path / f".{name}"
        beside.write_text(str(what), encoding="utf-8")
        beside.replace(self.path / name)

    def told(self, name: str) -> str | None:
        """What was told; None before it was."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / name).read_text(encoding="utf-8")
        return None

    def forget(self, *names: str) -> None:
        """For processes that are started again."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)


class Whereabouts:
    """A callback that tells all processes, and who started them, in which directory they train: who
    goes on without one of them goes on there."""

    only_shows, only_first = True, False

    def __init__(self) -> None:
        self._place = Place.here()
        self._path = self._place.told("run") if self._place else None
        self._run: RunDirectory | None = None
        self._processes: Any = None

    @property
    def begun(self) -> str | None:
        """The directory of the run that an earlier attempt began; None where none did."""
        return self._path if self._path and (Path(self._path) / CONFIG).is_file() else None

    def of(self, run: RunDirectory, processes: Any, path: Path | None) -> Whereabouts:
        """What the run is; where that is new it is to be at `path`, where nothing is yet."""
        self._run, self._processes = run, processes
        if path is not None:
            self._tell(path)
        return self

    @contextlib.contextmanager
    def during(self, _: Fitting) -> Iterator[None]:
        """Tells where the run is that was opened."""
        assert self._run is not None
        path: Any = self._run.path
        if self._processes is not None:
            path = self._processes.of_first(None if path is None else str(path.resolve()))
        self._tell(Path(path))
        yield

    def _tell(self, path: Path) -> None:
        self._path = str(path.resolve())
        if self._place is not None:
            self._place.tell("run", self._path)


def launched() -> tuple[int, int, int] | None:
    """How many processes a launcher started, which this one is, and how many are on this machine;
    None where there is one."""
    for names in (*_LAUNCHERS, *([_OF_TORCHRUN] if _TORCHRUN in os.environ else [])):
        size, rank, local = (os.environ.get(name, "") for name in names)
        if size.isdigit() and int(size) > 1:
            return int(size), int(rank or 0), int(local or size)
    return None


def in_processes(
    work: Callable[[Any, Whereabouts], Outcome],
    workers: int | None,
    elastic: bool = False,
    **options: Any,
) -> Outcome:
    """What `work` gives in all processes that were launched, which it gets, connected with these
    options, or None where there is one. The first alone prints; what fails in another one is its
    error. Where one of them is lost, and MPI outlives that, the others begin again (`elastic`).
    Raises `ModelError` for options of several processes where there is one."""
    there, place, whereabouts = launched(), Place.here(), Whereabouts()
    if there is None:
        if place is not None:
            place.tell("pid", os.getpid())
        else:
            _check_alone({**options, "elastic": elastic})
        return work(None, whereabouts)
    size, rank, _ = there
    is_first = not rank
    if rank:
        _silence.enter_context(_silent())
    if PLACE not in os.environ:
        # A launcher makes a terminal of a pipe, and what is behind it is not known.
        os.environ["TERM"] = "dumb"
    try:
        processes = _connected(elastic, options)
        _check_size(processes.size + len(processes.lost), size, workers)
        while True:
            try:
                return _made(work, processes, whereabouts)
            except LostProcessError:
                before, processes = processes, processes.survivors()
                if processes.is_first and not is_first:
                    is_first = True
                    _silence.close()
                if not elastic or not processes.lost:
                    raise
            if is_first:
                typer.echo(_going_on(processes.lost, before.size, processes.size), err=True)
    except (CompileError, KeyboardInterrupt, SystemExit):
        if not is_first:
            raise typer.Exit(0) from None  # the first process says what there is to say
        raise


def _made(
    work: Callable[[Any, Whereabouts], Outcome], processes: Any, whereabouts: Whereabouts
) -> Outcome:
    """What the work gives in all processes."""
    place = Place.here()
    with processes.together():
        # From now on a signal for this process ends all; while they connect, it would leave the
        # others waiting for it.
        if place is not None:
            place.tell("pid", os.getpid())
        return work(processes, whereabouts)


def _going_on(lost: Sequence[int], before: int, now: int) -> str:
    numbers = ", ".join(map(str, lost))
    name, has = ("process", "has") if len(lost) == 1 else ("processes", "have")
    goes = "goes" if now == 1 else "go"
    return f"{name} {numbers} of {before} {has} ended; the other {now} {goes} on"


def _check_alone(options: Mapping[str, Any]) -> None:
    for name, x in options.items():
        if x:
            option = _OPTIONS.get(name, name).replace("_", "-")
            raise ModelError(
                f"--{option} is for several processes, and there is one",
                hint="--workers 2 starts two",
            )


def _connected(elastic: bool, options: Mapping[str, Any]) -> Any:
    parallel = extra("nncompile.parallel", "nncompile.parallel", "train", "")
    if _TORCHRUN not in os.environ:
        # Who started this process starts it again.
        return parallel.mpi(elastic=elastic and PLACE not in os.environ, **options)
    if elastic:
        raise ModelError(
            "--elastic is not for processes that torchrun started, which ends them all",
            hint="--workers N --elastic, or mpirun --with-ft ulfm",
        )
    return parallel.torch_distributed(**options)


def threads_of_each() -> int | None:
    """The threads of a process where several share a machine; None where none was launched."""
    there = launched()
    return None if there is None else max(1, (os.cpu_count() or 1) // there[2])


def _check_size(size: int, launched: int, workers: int | None) -> None:
    if size != launched:
        raise ModelError(
            f"the launcher started {launched} processes, of which MPI connects {size}",
            hint="mpirun and the MPI that mpi4py uses are two: python -m mpi4py --mpi-lib-version",
        )
    # Who starts processes again may start fewer.
    if workers is not None and workers != size and PLACE not in os.environ:
        raise ModelError(f"--workers {workers} stands under a launcher of {size} processes")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """A block that prints nothing."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        out.quiet = True
        try:
            yield
        finally:
            out.quiet = False


def tell_exit_code(ended: SystemExit) -> None:
    """Tells the process that started this one how it ends. Launchers write a page of their own of a
    process that ends with another code than 0, which this one then does not."""
    place = Place.here()
    if isinstance(ended.code, int):
        ends_with(ended.code)
    if place is not None and isinstance(ended.code, int):
        place.tell("exit", ended.code)
        ended.code = 0
