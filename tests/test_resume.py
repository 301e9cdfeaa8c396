"""Trainings that are interrupted, saved and gone on with, as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from nncompile.diagnostics.errors import CheckpointError, ModelError
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


def stop_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs have the seconds of a training: it takes none."""
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_the_clock(monkeypatch)


Training = tuple[Path, bool, dict[str, bytes], dict[str, Any]]


@pytest.fixture(scope="module", params=[False, True], ids=["savers last", "savers first"])
def trained_through(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Training:
    directory = tmp_path_factory.mktemp("unbroken") / "run"
    ours = training_of()
    with pytest.MonkeyPatch.context() as patched:
        stop_the_clock(patched)
        ours.fit(data(), epochs=EPOCHS, callbacks=watchers(directory, request.param))
    files = contents(directory)
    assert set(files) >= {"best.safetensors", "log.csv", "log.jsonl"}
    return directory, request.param, files, ours.state


@pytest.fixture
def unbroken(trained_through: Training, stopped_clock: None) -> Training:
    """The directory, which is empty again, the order of the callbacks, and the files and the state
    of a training."""
    shutil.rmtree(trained_through[0], ignore_errors=True)
    return trained_through


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
        CheckpointError, match=r"Odd cannot continue with its state.*KeyError: 'count'"
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


def test_a_later_format_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = trainer()
    path = ours.save(tmp_path / "a.safetensors")
    assert header_of(path).metadata["nncompile.format"] == "1"
    monkeypatch.setattr("nncompile.runtime.checkpoint.FORMAT", 2)
    save_state(path, *load_state(path))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format is 2.*up to 1(.|\n)*pip install --upgrade"):
        ours.load(path)


def test_a_state_that_another_program_wrote_begins_an_epoch(tmp_path: Path) -> None:
    ours, other = trainer(), trainer()
    ours.fit(data(), steps=5)
    save_file(ours.state, tmp_path / "a.safetensors")
    other.load(tmp_path / "a.safetensors")
    assert (other.step, other.epoch) == (5, 0)
    ours.begin_epoch()
    batch = [data(16)]
    assert ours.fit(batch).epochs == other.fit(batch).epochs
    assert_same(other.state, ours.state)
