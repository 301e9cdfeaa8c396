"""Logs of a training, and its curves: CSV, JSON lines, TensorBoard, pictures."""

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
from nncompile.train import (
    CSVLog,
    History,
    JSONLog,
    LearningCurve,
    Monitor,
    TensorBoardLog,
    learning_curves,
)
from tests.callback_checks import given
from tests.small_models import data, trainer


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
    """What tensorboardX's writer gets."""

    made: list[Writer]

    def __init__(self, directory: str, purge_step: int = 0) -> None:
        self.directory, self.purge_step, self.closed = directory, purge_step, False
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
