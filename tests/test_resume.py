"""Trainings that are interrupted, saved and gone on with, as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import CheckpointError, FeedError, FileError, ModelError
from nncompile.optim import adam, plateau
from nncompile.runtime import load_state, save_state
from nncompile.runtime.tensor_header import header_of
from nncompile.train import (
    CSVLog,
    EarlyStopping,
    Event,
    JSONLog,
    ModelCheckpoint,
    Monitor,
    Trainer,
    TrainingWarning,
)
from tests.small_models import assert_same, data, trainer

EPOCHS = 7


class Interrupting:
    """Raises `KeyboardInterrupt` after that step, once."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def on_step(self, event: Event) -> None:
        if event.step == self.at:
            self.at = None
            raise KeyboardInterrupt


class Noisy:
    """A callback of one's own: adds a random metric, of which the generator is its state."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(5)
        self.given = np.zeros(0)

    def on_epoch(self, event: Event) -> None:
        event.metrics["noise"] = float(self.random.normal())
        self.given = np.append(self.given, event.metrics["noise"])

    def state_dict(self) -> dict[str, Any]:
        return {"random": json.dumps(self.random.bit_generator.state), "given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.bit_generator.state = json.loads(state["random"])
        self.given = state["given"]


def watchers(directory: Path, savers_first: bool, at: int | None = None) -> list[Any]:
    """Callbacks of every kind with a state."""
    savers = [
        ModelCheckpoint(directory / "{epoch:02d}.safetensors", keep=2),
        ModelCheckpoint(directory / "best.safetensors", monitor="noise", mode="min"),
    ]
    others = [
        CSVLog(directory / "log.csv"),
        JSONLog(directory / "log.jsonl", every=3),
        EarlyStopping("noise", patience=4, mode="max"),
        Monitor(warn=False),
        Interrupting(at),
    ]
    return [Noisy(), *savers, *others] if savers_first else [Noisy(), *others, *savers]


def training_of() -> Trainer:
    rate = plateau(1e-2, patience=2, every=3, factor=0.5, threshold=0.5)
    return trainer(0.5, optimizer=adam(rate))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs have the seconds of a training: it takes none."""
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)


@pytest.fixture(params=[False, True], ids=["savers last", "savers first"])
def unbroken(
    request: pytest.FixtureRequest, tmp_path: Path, stopped_clock: None
) -> tuple[Path, bool, dict[str, bytes], dict[str, Any]]:
    """The directory, the order of the callbacks, and the files and the state of a training."""
    directory = tmp_path / "run"
    ours = training_of()
    ours.fit(data(), epochs=EPOCHS, callbacks=watchers(directory, request.param))
    files = contents(directory)
    assert set(files) >= {"best.safetensors", "log.csv", "log.jsonl"}
    shutil.rmtree(directory)
    return directory, request.param, files, ours.state


@pytest.mark.parametrize("at", [6, 8, 17])
@pytest.mark.parametrize("ahead", [0, 2])
def test_a_training_that_is_gone_on_with_is_the_unbroken_one(
    tmp_path: Path, unbroken: Any, at: int, ahead: int
) -> None:
    directory, savers_first, files, state = unbroken
    broken = training_of()
    callbacks = watchers(directory, savers_first, at)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(data(), epochs=EPOCHS, callbacks=callbacks)
    saved = broken.save(tmp_path / "saved.safetensors")
    if ahead:  # what was done after the checkpoint, and then lost
        broken.fit(data(), epochs=ahead, callbacks=callbacks)
    rest = training_of()
    rest.load(saved)
    assert rest.step == at
    rest.fit(data(), epochs=EPOCHS - rest.epoch, callbacks=watchers(directory, savers_first))
    assert_same(rest.state, state)
    assert contents(directory) == files


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_file_that_a_callback_writes_is_gone_on_from_with_those_behind_it(
    tmp_path: Path, unbroken: Any, epoch: int
) -> None:
    directory, savers_first, files, state = unbroken
    broken = training_of()
    broken.fit(data(), epochs=epoch, callbacks=watchers(directory, savers_first))
    rest = training_of()
    rest.load(directory / f"{epoch:02d}.safetensors")
    rest.fit(data(), epochs=EPOCHS - epoch, callbacks=watchers(directory, savers_first))
    assert_same(rest.state, state)
    assert contents(directory) == files


def test_callbacks_that_were_interrupted_are_told_in_the_next_fit(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    class Interrupted:
        def on_epoch(self, event: Event) -> None:
            told.append(("first", event.epoch))
            if len(told) == 1:
                raise KeyboardInterrupt

    class Behind:
        def on_epoch(self, event: Event) -> None:
            assert len(event.batch["x"]) == 2  # the last batch of the epoch
            told.append(("second", event.epoch))

    ours, callbacks = trainer(), [Interrupted(), Behind()]
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), epochs=1, callbacks=callbacks)
    history = ours.fit(data(), epochs=1, callbacks=callbacks)
    assert told == [
        ("first", 1),
        ("first", 1),
        ("second", 1),
        ("first", 2),
        ("second", 2),
    ]
    assert len(history) == 2


def test_other_callbacks_are_told_in_one_line(tmp_path: Path) -> None:
    ours = trainer()
    callbacks = [EarlyStopping("loss"), CSVLog(tmp_path / "a.csv"), Interrupting(6)]
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), callbacks=callbacks, epochs=3)
    path = ours.save(tmp_path / "a.safetensors")
    other = trainer()
    other.load(path)
    words = "other callbacks.*: EarlyStopping, CSVLog had a state; ModelCheckpoint begins anew"
    with pytest.warns(TrainingWarning, match=words) as warnings:
        other.fit(data(), callbacks=ModelCheckpoint(tmp_path / "x.safetensors"))
    assert len(warnings) == 1
    other.load(path)
    with pytest.warns(
        TrainingWarning, match="EarlyStopping watched loss, and begins anew with bias"
    ):
        other.fit(data(), callbacks=[EarlyStopping("bias"), CSVLog(tmp_path / "a.csv")])


def test_a_log_that_is_not_there_any_more_is_told(tmp_path: Path) -> None:
    ours, log = trainer(), tmp_path / "a.csv"
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), callbacks=[CSVLog(log), Interrupting(6)], epochs=3)
    path = ours.save(tmp_path / "a.safetensors")
    log.write_text(log.read_text("utf-8").replace("epoch", "other"), "utf-8")
    other = trainer()
    other.load(path)
    with pytest.warns(TrainingWarning, match=r"a\.csv does not hold the lines.*a new log begins"):
        other.fit(data(), callbacks=[CSVLog(log), Interrupting(None)])
    lines = log.read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "2"]


def test_a_state_that_cannot_be_kept_or_taken_is_told(tmp_path: Path) -> None:
    class Odd:
        def on_epoch(self, _: Event) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {"what": object()}

        def load_state_dict(self, _: object) -> None:
            raise KeyError("count")

    ours, odd = trainer(), Odd()
    ours.fit(data(), callbacks=odd)
    with pytest.raises(ModelError, match=r"the state of .*Odd holds a object"):
        ours.save(tmp_path / "a.safetensors")
    odd.state_dict = lambda: {}  # type: ignore[method-assign]
    ours.load(ours.save(tmp_path / "a.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"Odd cannot go on with the state.*KeyError: 'count'"
    ):
        ours.fit(data(), callbacks=odd)


# The file


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    ours = trainer()
    path = ours.save(tmp_path / "a.safetensors")
    content = path.read_bytes()
    start = len(content) - sum(
        entry.end - entry.first for entry in header_of(path).tensors.values()
    )
    for position in (
        start,
        start + 100,
        len(content) - 1,
        content.index(b"nncompile.position") + 30,
    ):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"damaged|cannot be read"):
            ours.load(path)


def test_a_later_format_is_told_and_an_earlier_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trainer()
    ours.fit(data(), steps=5)
    path = ours.save(tmp_path / "a.safetensors")
    older = tmp_path / "older.safetensors"
    content = path.read_bytes()
    header = header_of(path)
    assert header.metadata["nncompile.format"] == "1"
    monkeypatch.setattr("nncompile.runtime.checkpoint.FORMAT", 2)
    save_state(path, *load_state(path))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format is 2.*up to 1(.|\n)*pip install --upgrade"):
        ours.load(path)
    end = 8 + int.from_bytes(content[:8], "little")
    fields = json.loads(content[8:end])
    position = {"number": 1, "start": 4, "examples": 16}
    fields["__metadata__"] = {"nncompile.position": json.dumps({"seed": 0, "epoch": position})}
    fields["__metadata__"]["nncompile.model"] = "perceptron"
    text = json.dumps(fields).encode()
    older.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    other = trainer()
    other.load(older)
    ours.fit(data(), epochs=1)
    other.fit(data(), epochs=1)
    assert_same(other.state, ours.state)


# What may fail, and what is told before the first step


class Full:
    """A log on a full disk."""

    may_fail = True

    def __init__(self, error: Exception) -> None:
        self.error, self.count = error, 0

    def on_epoch(self, _: Event) -> None:
        self.count += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), FileError("no space"), BrokenPipeError()]
)
def test_a_log_that_fails_is_told_once_and_training_goes_on(error: Exception) -> None:
    ours, log = trainer(), Full(error)
    with pytest.warns(TrainingWarning, match="Full failed, and the training goes on") as warnings:
        ours.fit(data(), epochs=3, callbacks=log)
    assert (log.count, ours.step, len(warnings)) == (3, 12, 1)
    for other in (Full(ValueError("a mistake")), Full(error)):
        other.may_fail = isinstance(other.error, ValueError)
        with pytest.raises(type(other.error)):
            ours.fit(data(), epochs=3, callbacks=other)


def test_the_lines_of_a_full_disk_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, opened = tmp_path / "log.csv", Path.open

    def full(path: Path, *args: Any, **options: Any) -> Any:
        if path == log and free[0] <= 0:
            raise OSError(28, "No space left on device")
        return opened(path, *args, **options)

    free = [1]
    monkeypatch.setattr(Path, "open", full)

    def counting(event: Event) -> None:
        if event.kind == "epoch":
            free[0] = {2: 0, 3: 0, 4: 1}.get(event.epoch, free[0])

    with pytest.warns(TrainingWarning, match=r"CSVLog failed.*log\.csv: No space left"):
        trainer().fit(data(), epochs=5, callbacks=[counting, CSVLog(log)])
    lines = log.read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "watching",
    [
        lambda name, path: EarlyStopping(name),
        lambda name, path: ModelCheckpoint(path / "x.safetensors", monitor=name),
    ],
    ids=["early stopping", "checkpoint"],
)
def test_a_metric_that_there_will_not_be_is_told_before_the_first_step(
    tmp_path: Path, watching: Callable[[str, Path], Any]
) -> None:
    ours = trainer()
    for name, validation, words in (
        ("val_loss", None, r"'val_loss' to watch(.|\n)*metric  bias(.|\n)*validation_data="),
        ("los", None, r"'los'(.|\n)*did you mean 'loss'"),
        ("val_los", data(), r"'val_los'(.|\n)*metric  val_bias(.|\n)*'val_loss'"),
    ):
        with pytest.raises(ModelError, match=words):
            callbacks = [CSVLog(tmp_path / "log.csv"), watching(name, tmp_path)]
            ours.fit(data(), validation_data=validation, callbacks=callbacks)
        assert ours.step == 0
    assert not (tmp_path / "log.csv").exists()
    # A callback of one's own may add it.
    ours.fit(data(), callbacks=[Noisy(), watching("noise", tmp_path)])
    assert ours.step == 4


# A position within an epoch belongs to the data it was begun on


def moved(ours: Trainer, path: Path) -> Trainer:
    """Another trainer that goes on from there."""
    other = trainer()
    other.load(ours.save(path))
    return other


OTHER_DATA: dict[str, tuple[dict[str, Any], Callable[[], Any], str]] = {
    "batch size": ({"batch_size": 8}, data, "batch_size  16 then  8 now"),
    "length": ({}, lambda: data(60), "examples  50 then  60 now"),
    "order": ({"shuffle": False}, data, "shuffle  True then  False now"),
    "batches": ({}, lambda: [data(16), data(16)], "batches     unknown then  2 now"),
}


@pytest.mark.parametrize("case", OTHER_DATA)
@pytest.mark.parametrize("saved", [False, True], ids=["in memory", "saved"])
def test_an_epoch_is_finished_on_the_data_it_was_begun_on(
    tmp_path: Path, case: str, saved: bool
) -> None:
    options, make, words = OTHER_DATA[case]
    ours = trainer()
    ours.fit(data(), steps=6)
    if saved:
        ours = moved(ours, tmp_path / "then.safetensors")
    before = ours.state
    with pytest.raises(FeedError) as caught:
        ours.fit(make(), epochs=1, **options)
    message = str(caught.value)
    assert "epoch 2 was interrupted after 2 batches of other data" in message
    assert words in message
    assert "trainer.begin_epoch()" in message
    assert_same(ours.state, before)
    ours.begin_epoch()
    ours.fit(make(), epochs=1, **options)
    assert ours.epoch == 2


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    ours = trainer()
    ours.fit(data(), steps=2)
    ours.seed = 7
    with pytest.raises(FeedError, match="seed  0 then  7 now"):
        ours.fit(data())


def test_a_whole_epoch_is_not_bound_to_its_data() -> None:
    ours = trainer()
    ours.fit(data(), epochs=1)
    ours.fit(data(60), epochs=1, batch_size=8, shuffle=False)
    assert (ours.step, ours.epoch) == (4 + 8, 2)
