"""Callbacks: early stopping, checkpoints, logs, pictures; and that none disturbs a training."""

from __future__ import annotations

import csv
import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.optim import adam, sgd
from nncompile.program.recipe import ema, training
from nncompile.train import (
    CheckFinite,
    CSVLog,
    EarlyStopping,
    Event,
    History,
    JSONLog,
    LearningCurve,
    ModelCheckpoint,
    Monitor,
    TensorBoardLog,
    Trainer,
    learning_curves,
)
from nncompile.train.callbacks import better
from tests.command_line import fails, succeeds
from tests.small_models import assert_same, averaging, data, trainer


def given(values: list[float], name: str = "val_loss") -> Any:
    """A callback that puts these values in the place of a metric, epoch by epoch."""

    def change(event: Event) -> None:
        if event.kind == "epoch":
            event.metrics[name] = values[event.epoch - 1]

    return change


# What they see


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


# Early stopping


def test_early_stopping_restores_the_best_epoch() -> None:
    ours, best = trainer(0.5, average=ema(0.9)), trainer(0.5, average=ema(0.9))
    values = [3.0, 2.0, 2.5, 2.0, 2.1, 1.0]
    stopping = EarlyStopping(patience=3)
    history = ours.fit(data(), epochs=6, callbacks=[given(values), stopping])
    assert (len(history), ours.epoch, ours.step) == (5, 5, 20)
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (2.0, 2, 5)
    best.fit(data(), epochs=2)
    expected = {**best.state, "step": np.asarray(20)}
    assert_same(ours.state, expected)
    assert_same(ours.averaged(), {**best.averaged(), "step": np.asarray(20)})


def test_early_stopping_can_leave_the_last_weights() -> None:
    ours, last = trainer(), trainer()
    ours.fit(
        data(),
        callbacks=[given([1, 2, 3]), EarlyStopping(patience=2, restore_best_weights=False)],
        epochs=9,
    )
    last.fit(data(), epochs=3)
    assert_same(ours.state, last.state)


def test_the_best_is_restored_where_the_epochs_end_first() -> None:
    ours, best = trainer(), trainer()
    stopping = EarlyStopping(patience=5)
    ours.fit(data(), epochs=3, callbacks=[given([2, 1, 3]), stopping])
    best.fit(data(), epochs=2)
    assert_same(ours.params, best.params)
    assert stopping.stopped_epoch is None


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([1.0, 0.95, 0.91, 0.91], {"patience": 2, "min_delta": 0.1}, 3),
        ([1.0, 0.8, 0.6, 0.4], {"patience": 2, "min_delta": 0.1}, 4),
        ([0.5, 0.6, 0.7, 0.7], {"patience": 1, "mode": "max"}, 4),
        ([0.5, 0.6, 0.7, 0.7], {"patience": 1}, 2),
        ([math.nan, math.nan, 1.0, 0.5], {"patience": 3}, 4),
        ([math.nan, math.nan, 1.0, 0.5], {"patience": 2}, 2),
    ],
)
def test_when_early_stopping_stops(
    values: list[float], options: dict[str, Any], epochs: int
) -> None:
    ours = trainer()
    ours.fit(data(), epochs=4, callbacks=[given(values), EarlyStopping(**options)])
    assert ours.epoch == epochs


def test_early_stopping_begins_anew_with_every_fit() -> None:
    ours, stopping = trainer(), EarlyStopping(patience=1)
    ours.fit(data(), epochs=5, callbacks=[given([1, 2, 2, 2, 9]), stopping])
    assert (ours.epoch, stopping.stopped_epoch) == (2, 2)
    values = given([0, 0, 9, 8, 8])
    ours.fit(data(), epochs=3, callbacks=[values, stopping])
    assert (ours.epoch, stopping.best, stopping.best_epoch) == (5, 8, 4)


def test_early_stopping_on_held_out_data_keeps_what_was_best() -> None:
    """No values are put in here: the state is that which had the lowest loss on held-out data."""
    ours = trainer(optimizer=adam(0.05))
    held = data(24, seed=7)
    history = ours.fit(
        data(24), epochs=200, validation_data=held, callbacks=EarlyStopping("val_loss", patience=10)
    )
    assert len(history) < 200
    assert ours.evaluate(held)["loss"] == min(history["val_loss"])


def test_which_metrics_are_better_the_larger_they_are() -> None:
    larger = ["accuracy", "val_accuracy", "top_5_accuracy", "f1", "val_roc_auc", "r2", "mean.iou"]
    assert {better(name) for name in larger} == {"max"}
    assert {better(n) for n in ["loss", "val_loss", "perplexity", "face", "error"]} == {"min"}


def test_a_metric_that_is_not_there_is_told() -> None:
    with pytest.raises(
        ModelError, match=r"no metric 'val_loss' to watch(.|\n)*validation_data=data"
    ):
        trainer().fit(data(), callbacks=EarlyStopping())
    with pytest.raises(ModelError, match=r"no metric 'los'(.|\n)*did you mean 'loss'"):
        trainer().fit(data(), callbacks=EarlyStopping("los"))
    with pytest.raises(ModelError, match="patience must be at least 1, got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ModelError, match="min_delta must not be negative"):
        EarlyStopping(min_delta=-1)
    with pytest.raises(ModelError, match='mode must be "min" or "max", got \'most\''):
        EarlyStopping(mode="most")  # type: ignore[arg-type]


# Checkpoints


def test_checkpoints_go_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, rest = trainer(0.5), trainer(0.5)
    saving = ModelCheckpoint(tmp_path / "{epoch:02d}-{step}.safetensors", every=2, keep=2)
    whole.fit(data(), epochs=7, callbacks=saving)
    assert [path.name for path in saving.paths] == ["04-16.safetensors", "06-24.safetensors"]
    assert sorted(tmp_path.iterdir()) == saving.paths  # nothing else is left beside them
    rest.load(saving.paths[0])
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


# Logs


def test_a_csv_log(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "training.csv"
    ours = trainer()
    history = ours.fit(data(), epochs=2, validation_data=data(9, 1), callbacks=CSVLog(path))
    more = ours.fit(
        data(), epochs=1, validation_data=data(9, 1), callbacks=CSVLog(path, append=True)
    )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "step", "loss", "bias", "val_loss", "val_bias", "seconds"]
    assert [int(row["step"]) for row in rows] == [4, 8, 12]
    assert [float(row["loss"]) for row in rows] == [*history["loss"], *more["loss"]]
    with pytest.raises(
        ModelError, match=r"metrics of this epoch differ(.|\n)*val_bias(.|\n)*JSONLog"
    ):
        ours.fit(data(), callbacks=CSVLog(path, append=True))
    ours.fit(data(), epochs=1, callbacks=CSVLog(path))
    assert len(path.read_text("utf-8").splitlines()) == 2


def test_a_log_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "training.jsonl"
    table = given([math.inf, np.array([[1.0, math.nan]])], "extra")  # type: ignore[list-item]
    history = trainer().fit(data(), epochs=2, callbacks=[table, JSONLog(path, every=3)])
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [(x["event"], x["epoch"], x["step"]) for x in lines] == [
        ("step", 1, 3),
        ("epoch", 1, 4),
        ("step", 2, 6),
        ("epoch", 2, 8),
    ]
    epochs = [x["metrics"] for x in lines if x["event"] == "epoch"]
    assert [x["loss"] for x in epochs] == history["loss"]
    assert [x["extra"] for x in epochs] == [None, [[1.0, None]]]


def test_logs_that_cannot_be_written_are_told_before_the_training(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for log in (CSVLog, JSONLog):
        with pytest.raises(FileError, match="cannot write"):
            log(file / "training.csv")
        with pytest.raises(FileError, match="it is a directory"):
            log(tmp_path)


class Writer:
    """What tensorboardX's writer is told."""

    made: list[Writer]

    def __init__(self, directory: str) -> None:
        self.directory, self.closed = directory, False
        self.scalars: list[tuple[str, float, int]] = []
        self.histograms: list[tuple[str, int]] = []
        Writer.made.append(self)

    def add_scalar(self, name: str, x: float, step: int) -> None:
        self.scalars.append((name, x, step))

    def add_histogram(self, name: str, _: Any, step: int) -> None:
        self.histograms.append((name, step))

    def flush(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True


def test_what_the_log_for_tensorboard_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Writer.made = []
    fake: Any = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", fake)
    monitor = Monitor()
    log = TensorBoardLog(tmp_path / "logs", every=2, histograms=True, monitor=monitor)
    history = trainer().fit(data(), epochs=1, callbacks=[monitor, log])
    (writer,) = Writer.made
    assert writer.closed and writer.directory == str(tmp_path / "logs")
    steps = [(name, step) for name, _, step in writer.scalars if name.startswith("step/loss")]
    assert steps == [("step/loss", 2), ("step/loss", 4)]
    assert ("loss", history["loss"][0], 4) in writer.scalars
    hidden = monitor.last.layers["hidden"]
    assert ("gradient/hidden", hidden.gradient, 4) in writer.scalars
    assert ("update ratio/hidden", hidden.ratio, 4) in writer.scalars
    assert ("parameter/out.weight", 4) in writer.histograms


def test_the_log_for_tensorboard_makes_an_event_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    trainer().fit(data(), epochs=2, callbacks=TensorBoardLog(tmp_path, histograms=True))
    (file,) = tmp_path.glob("events.out.tfevents.*")
    assert file.stat().st_size > 100


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Makes a package one that is not installed."""
    found = importlib.import_module

    def load(name: str, *args: Any) -> ModuleType:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return found(name, *args)

    monkeypatch.setattr(importlib, "import_module", load)


def test_extras_that_are_not_installed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "tensorboardX")
    with pytest.raises(ModelError, match=r"tensorboardX(.|\n)*'nncompile\[tensorboard\]'"):
        TensorBoardLog(tmp_path)
    without(monkeypatch, "matplotlib")
    with pytest.raises(ModelError, match=r"matplotlib(.|\n)*'nncompile\[plot\]'"):
        LearningCurve(tmp_path / "curve.png")


# Pictures


@pytest.mark.slow
def test_learning_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    history = trainer().fit(
        data(), epochs=3, validation_data=data(9, 1), callbacks=LearningCurve(path, every=2)
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    again = learning_curves(history, tmp_path / "again.png")
    assert again.read_bytes() == path.read_bytes()
    for name in ("curve.svg", "curve.pdf"):
        assert learning_curves(history, tmp_path / name, ["loss"], log=True).stat().st_size > 1000


def test_wrong_pictures_are_told(tmp_path: Path) -> None:
    history = History([{"loss": 1.0}])
    with pytest.raises(ModelError, match=r"\.png, \.svg, \.pdf, got '.*curve\.bmp'"):
        learning_curves(history, tmp_path / "curve.bmp")
    with pytest.raises(ModelError, match=r"no metric 'los'(.|\n)*did you mean 'loss'"):
        learning_curves(history, tmp_path / "curve.png", ["los"])


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


@pytest.mark.slow
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
    assert "--monitor needs --patience" in fails("train", good, "--monitor", "loss")
    assert "a log must be a .csv or .jsonl file" in fails("train", good, "--log", "log.txt")


def test_rate_suggests_one(good: Path) -> None:
    printed = succeeds("lr-find", good, "--lowest", 1e-5, "--steps", 60, "--batch-size", 30)
    lines = printed.splitlines()
    assert lines[0].split() == ["rate", "loss", "trend"]
    assert lines[1].split()[0] == "1.00e-05"
    suggestion = float(lines[-1].removeprefix("loss falls fastest at a rate of "))
    assert 1e-3 < suggestion < 10
