"""Callbacks: what they see, checkpoints, and that they disturb nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError
from nncompile.optim import sgd
from nncompile.program.recipe import ema, training
from nncompile.train import (
    CheckFinite,
    CSVLog,
    EarlyStopping,
    Event,
    JSONLog,
    ModelCheckpoint,
    Monitor,
    Trainer,
    TrainingWarning,
)
from tests.callback_checks import given
from tests.command_line import fails, succeeds
from tests.small_models import assert_same, averaging, data, trainer


def test_the_end_is_told_to_those_who_ask_for_it() -> None:
    class Ends:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def on_end(self, event: Event) -> None:
            self.events.append(event)

    ends, all_events = Ends(), list[Event]()
    history = trainer().fit(data(), epochs=2, callbacks=[ends, all_events.append])
    (end,) = ends.events
    assert (end.kind, end.epoch, end.step, end.metrics) == ("end", 2, 8, history.last)
    assert {event.kind for event in all_events} == {"step", "epoch"}


def test_events_hold_the_batch_of_the_last_step() -> None:
    events: list[Event] = []
    whole = data(20)
    trainer().fit(whole, epochs=1, shuffle=False, callbacks=events.append)
    assert [len(e.batch["x"]) for e in events] == [16, 4, 4]
    np.testing.assert_array_equal(events[0].batch["x"], whole["x"][:16])
    np.testing.assert_array_equal(events[-1].batch["x"], whole["x"][16:])


# Checkpoints


def test_checkpoints_go_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, rest = trainer(0.5), trainer(0.5)
    saving = ModelCheckpoint(tmp_path / "{epoch:02d}-{step}.safetensors", every=2, keep=2)
    whole.fit(data(), epochs=7, callbacks=saving)
    assert [path.name for path in saving.paths] == ["04-16.safetensors", "06-24.safetensors"]
    assert sorted(tmp_path.iterdir()) == saving.paths  # nothing else is left beside them
    rest.load(saving.paths[0])
    with pytest.warns(TrainingWarning, match="other callbacks.*: ModelCheckpoint had a state"):
        rest.fit(data(), epochs=3)
    assert_same(rest.state, whole.state)


def test_the_best_checkpoint(tmp_path: Path) -> None:
    ours, best, other = trainer(), trainer(), trainer()
    saving = ModelCheckpoint(tmp_path / "best.safetensors", monitor="val_loss")
    ours.fit(data(), epochs=4, callbacks=[given([3, 1, 2, 1]), saving])
    assert saving.best == 1
    best.fit(data(), epochs=2)
    other.load(tmp_path / "best.safetensors")
    assert_same(other.state, best.state)
    assert other.epoch == 2


def test_a_checkpoint_path_that_cannot_be_filled_in_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be filled in: 'nothing'(.|\n)*epoch, step"):
        trainer().fit(data(), callbacks=ModelCheckpoint(tmp_path / "{nothing}.safetensors"))


# Nothing is disturbed


def test_a_training_has_the_same_bits_with_callbacks_and_without(tmp_path: Path) -> None:
    plain, watched = trainer(0.5, average=ema(0.9)), trainer(0.5, average=ema(0.9))
    expected = plain.fit(data(), epochs=3, validation_data=data(9, 1))
    found = watched.fit(
        data(),
        epochs=3,
        validation_data=data(9, 1),
        callbacks=[
            EarlyStopping(patience=9, restore_best_weights=False),
            ModelCheckpoint(tmp_path / "last.safetensors"),
            ModelCheckpoint(tmp_path / "best.safetensors", monitor="val_loss"),
            CSVLog(tmp_path / "log.csv"),
            JSONLog(tmp_path / "log.jsonl", every=1),
            Monitor(every=1),
            CheckFinite(),
        ],
    )
    assert_same(watched.state, plain.state)
    assert found.epochs == expected.epochs


def test_a_model_with_states_is_restored_with_them() -> None:
    ours = Trainer(training(averaging(), optimizer=sgd(0.1), batch_size=4))
    best = Trainer(training(averaging(), optimizer=sgd(0.1), batch_size=4))
    x = {"x": np.linspace(0.5, 1, 8, dtype=np.float32)}
    ours.fit(x, epochs=3, callbacks=[given([1, 2, 3]), EarlyStopping(patience=2)])
    best.fit(x, epochs=1)
    assert best.state["mean"] != 0
    assert ours.state["mean"] == best.state["mean"]


# The command line


def test_train_stops_early_and_writes_a_log(good: Path) -> None:
    output, log = good.parent / "runs", good.parent / "log.csv"
    args = ("train", good, "--output", output, "--epochs", 300)
    printed = succeeds(*args, "--patience", 3, "--monitor", "val_accuracy", "--log", log)
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["val_accuracy"]) for row in rows]
    best = accuracies.index(max(accuracies))
    assert len(rows) == best + 4 < 300
    assert f"accuracy {max(accuracies):.4f}" in printed.partition("held out")[2]
    checkpoint = output / "checkpoint.safetensors"
    succeeds("train", good, "--output", output, "--epochs", 1, "--log", log, "--resume", checkpoint)
    assert len(log.read_text("utf-8").splitlines()) == len(rows) + 2


def test_wrong_options_of_train_are_told(good: Path) -> None:
    assert "a log must be a .csv or .jsonl file" in fails("train", good, "--log", "log.txt")


def test_rate_suggests_one(good: Path) -> None:
    printed = succeeds("lr-find", good, "--lowest", 1e-5, "--steps", 60, "--batch-size", 30)
    lines = printed.splitlines()
    assert lines[0].split() == ["rate", "loss", "trend"]
    assert lines[1].split()[0] == "1.00e-05"
    suggestion = float(lines[-1].removeprefix("loss falls fastest at a rate of "))
    assert 1e-3 < suggestion < 10
