"""The directory of a run: what was trained of what, its log, its checkpoints, and its exports."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import FileError, TrainingWarning, warn, whole_number
from nncompile.diagnostics.hints import suggests_options
from nncompile.train import run_config, run_places
from nncompile.train.callbacks import Best
from nncompile.train.directions import Mode
from nncompile.train.events import Event, EventTrainer, Fitting
from nncompile.train.interrupts import Interrupts
from nncompile.train.intervals import Due, Interval
from nncompile.train.logs import CSVLog
from nncompile.train.run_files import RunFiles, notes_in, sweep_run
from nncompile.train.run_lock import Lock
from nncompile.train.run_pages import Ended, Pages, cause_of
from nncompile.train.run_resumption import Resumed, resumed, tell_what_is_kept


@suggests_options
class RunDirectory:
    """A callback that keeps a training in a directory: `config.json`, `log.csv`, the last of its
    states in `checkpoints/`, the best in `best/`, and at the end the exports.

    The directory is `path`, or `root`/MODEL/`name`, or `root`/MODEL/NUMBER of the next number, to
    which `root`/MODEL/latest then points. It appears whole when `fit` begins. An existing one is
    refused, unless it is to be replaced (`overwrite`) or resumed: with `resume` the training
    continues from the last state in it, as if it had not ended, and `epochs` and `steps` of `fit`
    are those of the whole run. `resume` is True, or a run: its number or name, a directory, or the
    file of a checkpoint in one. With True, a run that is not there begins.

    The state is written every `checkpoint_every`, such as "5m", "500steps" or "2epochs" (see
    `nncompile.train.intervals.Due`), before held-out data are evaluated, when an error ends the
    training, and after Ctrl-C, SIGTERM or SIGHUP, which end it after the present step. `keep`
    checkpoints stay, of which the best is none. That is the state after the epoch with the best
    `monitor`, by default the first loss that is minimized, on held-out data where there are some;
    see `EarlyStopping` for `mode`. `exports=False` leaves out the exports and the page report.html,
    which `files` lists when they are there. `config.json` has what `about` says, too; names of
    classes in it, `class_names`, are shown on the page. With `measure`, the layers of some states
    and the time of a step are measured for it when the training is over, which takes about as long
    as to compile twice.

    Raises `FileError` where the directory cannot be written, is there, or is in use by another
    process; `CheckpointError` for a run of another recipe, data, batch size or seed.
    """

    told_last = True

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        name: str | None = None,
        root: str | os.PathLike[str] = "runs",
        overwrite: bool = False,
        resume: bool | str | os.PathLike[str] = False,
        checkpoint_every: str = "5m",
        keep: int = 1,
        monitor: str | None = None,
        mode: Mode | None = None,
        exports: bool = True,
        about: Mapping[str, Any] | None = None,
        measure: bool = False,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.name = None if name is None else run_places.check_name(name)
        self.root = Path(root)
        self.overwrite, self.resume, self.exports = overwrite, resume, exports
        self.export_seconds = 0.0
        self.measure = measure
        self._pages = Pages()
        self._seconds = 0.0  # of this `fit`, when it was last heard of
        self.about = dict(about or {})
        self.interval = Interval.of(checkpoint_every)
        self.keep = whole_number("keep", keep, 1)
        self._checkpoint_every = str(checkpoint_every)
        self._best = None if monitor is None else Best(monitor, mode)
        self._mode = mode
        self._begun = False
        self._noted: Mapping[str, Any] | None = None  # what the state says that goes on
        self._resumed: Resumed | None = None
        self._lock: Lock | None = None
        self._files: RunFiles | None = None
        self._log: CSVLog | None = None
        self._told = (-1, -1)  # step and epoch of which all callbacks were told
        self._interrupts = Interrupts()

    @property
    def monitored(self) -> tuple[str, ...]:
        """The metric that tells the best epoch, where one is named."""
        return () if self._best is None else (self._best.name,)

    @property
    def best(self) -> float | None:
        """The best value of what is monitored; None where there was none."""
        return self._best.value if self._best else None

    @property
    def best_epoch(self) -> int | None:
        """The epoch that had the best value."""
        return self._best.epoch if self._best else None

    def find(self, model: str) -> Mapping[str, Any] | None:
        """What `config.json` says of the run of that model that `resume` names; None where none is
        resumed. Raises `FileError` where there is no such run, or one that is in the way."""
        place, parent = self.place(model), self.parent(model)
        if self.resume and self._resumed is None:
            self._resumed = resumed(self.resume, place, parent)
        if self._resumed is not None and self._resumed.run is not None:
            return self._resumed.config
        run_places.check_free(place, self.overwrite)
        return None

    def restore(self, trainer: EventTrainer) -> None:
        """Loads the last state of the run that `resume` names into the trainer, before `fit` does:
        `epochs` and `steps` of `fit` then count from there. Raises what `fit` does."""
        config = self.find(trainer.model.name)
        found = self._resumed
        if found is None or self._lock is not None:
            return
        if config is not None and found.run is not None:
            self._lock = Lock(found.run)
            sweep_run(found.run)
            self.path = found.run
        try:
            if config is not None:
                run_config.check_seed(self.path, config["seed"], trainer.seed)
            file = found.checkpoint()
            if file is not None:
                trainer.load(file)
                if config is not None:
                    self._noted = notes_in(file)
        except BaseException:
            self._release()
            raise

    @property
    def files(self) -> tuple[Path, ...]:
        """The exports and the page; none before they are there."""
        return self._files.exported if self._files else ()

    @property
    def _writer(self) -> RunFiles:
        assert self._files is not None  # from the beginning of `fit` on
        return self._files

    def parent(self, model: str) -> Path:
        """Where the numbered and named runs of a model are."""
        return self.root / run_places.directory_name(model)

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Makes the directory or goes on in it, and keeps what was learned however `fit` ends."""
        trainer = fitting.trainer
        try:
            self._open(fitting)
            with Interrupts() as self._interrupts:
                try:
                    yield
                except BaseException as error:
                    with self._interrupts.writing():
                        self._rescue(trainer, error)
                    raise
        finally:
            self._release()

    def wants_step(self, step: int) -> bool:
        """Whether the state is to be written after that step, or a signal ends the training."""
        received, epoch = self._interrupts.received, self._fitting.trainer.epoch
        return received is not None or self._due.is_due(step, epoch, at_border=False)

    def on_step(self, event: Event) -> None:
        self._after(event, at_border=False)

    def on_validation(self, event: Event) -> None:
        """Writes the state, if it is due, before the held-out data are evaluated."""
        self._after(event, at_border=True, completing=1)

    def on_epoch(self, event: Event) -> None:
        assert self._log is not None
        self._seconds = event.seconds
        self._pages.on_epoch(event)
        with self._interrupts.writing():
            self._written_to(partial(self._log.on_epoch, event))
            if self._best is not None and self._best.improved(event):
                self._writer.improve(event.trainer, event.epoch)
        self._after(event, at_border=True)

    def on_end(self, event: Event) -> None:
        with self._interrupts.writing():
            start = time.perf_counter()
            if self._log is not None:
                self._written_to(self._log.flush)
            self._writer.write_best()
            if self.exports:
                self._writer.export(event.trainer)
                self._seconds = event.seconds
                self._writer.add_pages(self._pages, self._ended())
            else:
                self._writer.write_state(event.trainer)
            self.export_seconds = time.perf_counter() - start

    def _written_to(self, write: Callable[[], None]) -> None:
        """Writes to the log; where that cannot be, what is to be written waits."""
        try:
            write()
        except FileError as error:
            warn(f"the log waits, and training goes on: {error.problem}", TrainingWarning)

    def _notes(self) -> dict[str, Any]:
        """What a state holds of the run itself, to resume it. Not a state of a callback: a run is
        opened before the callbacks get theirs, whatever the others are, and a state that begins
        another run has nothing to tell it."""
        assert self._log is not None
        notes: dict[str, Any] = {"log": self._log.state_dict()}
        if self._best is not None:
            notes["best"] = {"value": self._best.value, "epoch": self._best.epoch}
        return notes

    def _go_on_with(self, notes: Mapping[str, Any]) -> None:
        assert self._log is not None
        self._log.load_state_dict(notes["log"])
        if self._best is not None and notes["best"] is not None:
            self._best.value, self._best.epoch = notes["best"]["value"], notes["best"]["epoch"]

    def _open(self, fitting: Fitting) -> None:
        """Makes the directory, or goes on in one."""
        trainer = fitting.trainer
        monitor = run_config.watched_by_default(trainer.recipe, fitting.held_out is not None)
        if self._best is None and monitor is not None:
            self._best = Best(monitor, self._mode)
        chosen = {
            "checkpoint_every": self._checkpoint_every,
            "monitor": self._best.name if self._best else None,
        }
        config = run_config.described(fitting, {**self.about, **chosen})
        self._fitting, self._config = fitting, config
        if self._begun:  # another `fit` of the same training
            assert self.path is not None
            self._lock = Lock(self.path)
        else:
            self.restore(trainer)
            if self._resumed is not None and self._resumed.run is not None:
                self._go_on(self._resumed, config)
            else:
                self._create(trainer, config)
        assert self.path is not None
        self._begun = True
        if self._log is None:  # lines without a state to go on from are of epochs made again
            append = self._noted is not None
            self._log = CSVLog(self.path / run_places.LOG, append=append)
        if self._noted is not None:
            self._go_on_with(self._noted)
            self._noted = None
        if self._files is None:
            self._files = RunFiles(self.path, self.keep, self._notes)
            self._files.best_epoch = self.best_epoch
        self._told = self._files.written = (trainer.step, trainer.epoch)
        # Of several processes, one that begins within a window rounds otherwise: no training is to
        # depend on the time.
        window = 1 if trainer.parallel is None else trainer.recipe.accumulate
        self._due = Due(self.interval, *self._told, window)

    def place(self, model: str) -> Path | None:
        """Where the run of that model is to be; None for the next number."""
        if self.path is None and self.name is not None:
            return self.parent(model) / self.name
        return self.path

    def _create(self, trainer: EventTrainer, config: Mapping[str, Any]) -> None:
        place, parent = self.place(trainer.model.name), self.parent(trainer.model.name)
        run_places.check_free(place, self.overwrite)
        if place is not None and place.is_dir() and any(place.iterdir()):
            run_places.clear(place)

        def fill(directory: Path) -> None:
            for name in (run_places.CHECKPOINTS, run_places.BEST):
                (directory / name).mkdir(exist_ok=True)
            run_config.write(directory, config)

        numbered = self.path is None
        self.path, self._lock = run_places.create(place, parent, fill)
        if numbered:
            run_places.point_to(self.path)

    def _go_on(self, found: Resumed, config: Mapping[str, Any]) -> None:
        assert found.run is not None
        run_config.check_equal(found.run, found.config, config)
        begun = ("started", "command", "provider", "threads", "versions", "until")
        again = {key: config[key] for key in begun}
        earlier = found.config.get("resumed") or []
        changed = {**found.config, "until": config["until"], "resumed": [*earlier, again]}
        if "options" in config:  # those that were given now are what goes on
            changed["options"] = config["options"]
        run_config.write(found.run, changed)
        if found.run.parent == self.parent(found.config["model"]):
            run_places.point_to(found.run)

    def _after(self, event: Event, at_border: bool, completing: int = 0) -> None:
        """Ends the training where a signal asks for it, and else writes the state, if it is due:
        so many epochs are complete, but for their figures."""
        trainer = event.trainer
        self._told = (trainer.step, trainer.epoch)
        self._interrupts.raise_received()
        epochs = trainer.epoch + completing
        if self._due.is_due(trainer.step, epochs, at_border):
            with self._interrupts.writing():
                try:
                    self._writer.write_state(trainer)
                except FileError as error:
                    text = f"the state is not on disk, and training goes on: {error.problem}"
                    warn(text, TrainingWarning)
                    self._due.failed()
                    return
            self._due.written(trainer.step, epochs)

    def _rescue(self, trainer: EventTrainer, error: BaseException) -> None:
        """Writes what was learned when an error or an interrupt ends the training: the state of
        the last whole step."""
        files, problem = self._writer, None
        try:
            trainer.snapshot(copied=False)  # which undoes half of a step
            if (trainer.step, trainer.epoch) != files.written:
                files.write_state(trainer)
            else:
                files.write_best()
            asked = isinstance(error, KeyboardInterrupt | SystemExit)
            if asked and trainer.step and self.exports:
                files.export(trainer)
        except Exception as another:  # the error that ended the training is the one to be seen
            problem = another
        if trainer.step and self.exports:
            files.add_pages(self._pages, self._ended(cause_of(error)))
        tell_what_is_kept(error, files.path, files.best_epoch, problem)

    def _ended(self, early: str = "") -> Ended:
        """What the page is written of."""
        fitting, path = self._fitting, self._writer.path
        trainer, measures = fitting.trainer, self.measure
        return Ended(path, trainer, fitting, self._seconds, self._config, early, measures)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
