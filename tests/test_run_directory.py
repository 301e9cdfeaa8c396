"""The directory of a run, from Python: what is in it, resuming, locks, what is refused."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import CheckpointError, FileError, ModelError
from nncompile.optim import adam, sgd
from nncompile.program.recipe import training
from nncompile.runtime import load_state
from nncompile.train import EarlyStopping, Event, RunDirectory, Trainer
from nncompile.train.intervals import Due, Interval
from nncompile.train.run_config import write as write_config
from nncompile.train.run_lock import Lock
from nncompile.train.run_places import create, latest, point_to
from tests.run_checks import log_rows, states, stop_after
from tests.small_models import assert_same, data, perceptron, trainer


def test_a_run_has_what_it_was_of_and_what_came_out(tmp_path: Path) -> None:
    run = RunDirectory(root=tmp_path, about={"note": "first"})
    ours = trainer()
    ours.fit(data(), epochs=3, validation_data=data(20, 1), callbacks=run)
    assert run.path == tmp_path / "perceptron" / "1"
    assert os.readlink(tmp_path / "perceptron" / "latest") == "1"
    config = json.loads((run.path / "config.json").read_text("utf-8"))
    assert config["data"]["x"]["shape"] == [50, 4]
    assert config["data"]["x"]["dtype"] == "float32"
    assert (config["batch_size"], config["until"]) == (16, {"epoch": 3, "step": None})
    assert (config["monitor"], config["note"], config["seed"]) == ("val_loss", "first", 0)
    assert {"nncompile", "onnx", "onnxruntime", "numpy", "python"} <= config["versions"].keys()
    assert len(log_rows(run.path)) == 4
    last, _ = load_state(run.path / "checkpoint.safetensors")
    assert_same(last, ours.state)
    best, _ = load_state(run.path / "best" / "checkpoint.safetensors")
    assert best["step"] == 4 * run.best_epoch
    assert {file.name for file in run.files} == {
        "model.onnx",
        "step.onnx",
        "step.state.safetensors",
        "checkpoint.safetensors",
        "report.html",
    }
    page = (run.path / "report.html").read_text("utf-8")
    for part in ("Residuals", "val_loss", "y beside target", str(run.path)):
        assert part in page
    again = RunDirectory(root=tmp_path)
    trainer().fit(data(), epochs=1, callbacks=again)
    assert again.path == tmp_path / "perceptron" / "2" == latest(tmp_path / "perceptron")


@pytest.mark.parametrize("every", ["3steps", "1epoch", "2 epochs", "1000h"])
@pytest.mark.parametrize("step", [5, 12, 17])
def test_a_resumed_run_is_the_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, step: int
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)  # the log has the seconds
    held_out = data(20, 1)

    def fit(run: RunDirectory, *more: Any) -> Trainer:
        ours = trainer(0.5)
        callbacks = [run, EarlyStopping(patience=50), *more]
        ours.fit(data(), epochs=6, validation_data=held_out, callbacks=callbacks)
        return ours

    whole = RunDirectory(tmp_path / "whole", exports=False, checkpoint_every=every)
    expected = fit(whole)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        fit(
            RunDirectory(broken, exports=False, checkpoint_every=every, resume=True),
            stop_after(step),
        )
    assert states(broken)[-1] == step
    rest = RunDirectory(broken, exports=False, checkpoint_every=every, resume=True)
    assert_same(fit(rest).state, expected.state)
    assert log_rows(broken) == log_rows(tmp_path / "whole")
    assert (rest.best, rest.best_epoch) == (whole.best, whole.best_epoch)
    for file in ("best/checkpoint.safetensors", "checkpoints/step-000000024.safetensors"):
        ours, theirs = load_state(broken / file), load_state(tmp_path / "whole" / file)
        assert_same(ours[0], theirs[0])
        assert ours[1]["nncompile.position"] == theirs[1]["nncompile.position"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    place = tmp_path / "run"
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(place))
    before = (place / "checkpoint.safetensors").read_bytes()
    with pytest.raises(FileError, match=r"holds a run already(.|\n)*--resume(.|\n)*--overwrite"):
        trainer().fit(data(), epochs=2, callbacks=RunDirectory(place))
    assert (place / "checkpoint.safetensors").read_bytes() == before
    trainer().fit(data(), epochs=2, callbacks=RunDirectory(place, overwrite=True))
    assert len(log_rows(place)) == 3
    (place / "notes.txt").write_text("precious")
    with pytest.raises(FileError, match=r"no run wrote: notes\.txt"):
        trainer().fit(data(), epochs=2, callbacks=RunDirectory(place, overwrite=True))
    assert (place / "notes.txt").read_text() == "precious"
    blocker = tmp_path / "file"
    blocker.write_text("precious")
    with pytest.raises(FileError, match="is not a directory"):
        trainer().fit(data(), epochs=2, callbacks=RunDirectory(blocker, overwrite=True))
    empty = tmp_path / "empty"
    empty.mkdir()
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(empty))
    assert (empty / "config.json").is_file()


def test_a_run_that_is_in_use_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "run"

    def second(event: Event) -> None:
        with pytest.raises(FileError, match=rf"in use: process {os.getpid()} trains in it"):
            trainer().fit(data(), epochs=1, callbacks=RunDirectory(place, resume=True))
        with pytest.raises(FileError, match="in use"):
            trainer().fit(data(), epochs=1, callbacks=RunDirectory(place, overwrite=True))
        event.trainer.stop()

    trainer().fit(data(), epochs=2, callbacks=[RunDirectory(place, exports=False), second])
    Lock(place).release()


def test_runs_that_begin_at_once_take_different_numbers(tmp_path: Path) -> None:
    found: list[Path] = []
    barrier = threading.Barrier(4)

    def begin() -> None:
        barrier.wait()
        for _ in range(5):
            place, lock = create(None, tmp_path, lambda x: write_config(x, {"format": 1}))
            found.append(place)
            lock.release()

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(place.name) for place in found) == list(range(1, 21))
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted(place.name for place in found)
    with pytest.raises(FileError, match="holds a run already"):
        create(tmp_path / "7", tmp_path.parent, lambda _: None)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"data": data(50, 3)}, ["another data", "x", "was float32[50, 4] of digest"]),
        ({"data": data(48)}, ["another data", "float32[48, 4]"]),
        ({"batch_size": 8}, ["another batch size", "was 16", "is 8"]),
        ({"shuffle": False}, ["another shuffle"]),
        ({"validation_data": data(20)}, ["another held-out data"]),
    ],
)
def test_a_run_of_something_else_is_refused(
    tmp_path: Path, change: Mapping[str, Any], parts: list[str]
) -> None:
    place = tmp_path / "run"
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(place))
    options = {"data": data(), "epochs": 2, **change}
    with pytest.raises(CheckpointError) as caught:
        trainer().fit(**options, callbacks=RunDirectory(place, resume=True))
    for part in (*parts, "cannot go on", "--name"):
        assert part in str(caught.value)


def test_a_run_of_another_recipe_or_seed_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "run"
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(place))
    ours = Trainer(training(perceptron(), optimizer=sgd(0.1), batch_size=16))
    with pytest.raises(CheckpointError, match="does not fit"):
        ours.fit(data(), epochs=2, callbacks=RunDirectory(place, resume=True))
    ours = Trainer(training(perceptron(), optimizer=adam(0.5), batch_size=16))
    with pytest.raises(CheckpointError, match=r"another recipe(.|\n)*adam\(lr=0.5"):
        ours.fit(data(), epochs=2, callbacks=RunDirectory(place, resume=True))
    ours = Trainer(trainer().recipe, seed=3)
    with pytest.raises(CheckpointError, match=r"another seed(.|\n)*was 0 +is 3"):
        ours.fit(data(), epochs=2, callbacks=RunDirectory(place, resume=True))
    Lock(place).release()


def test_states_are_written_as_often_as_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def note(event: Event) -> None:
        written.append((event.kind, event.step, states(tmp_path / "run")))

    class Note:
        told_last = True
        on_step = on_epoch = staticmethod(note)

    run = RunDirectory(tmp_path / "run", checkpoint_every="3steps", keep=2, exports=False)
    trainer().fit(data(), epochs=2, callbacks=[run, Note()])
    by_step = {step: there for _, step, there in written}
    assert by_step[2] == []
    assert by_step[3] == [3]
    assert by_step[7] == [3, 6]
    assert states(tmp_path / "run") == [6, 8]


def test_the_state_on_disk_is_never_older_than_the_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("nncompile.train.intervals.time.monotonic", lambda: clock[0])
    due = Due(Interval.of("2m"), 0, 0)
    ages, written = [], 0.0
    for step in range(1, 4000):
        clock[0] += 1.0
        at_border = step % 75 == 0
        if due.is_due(step, step // 75, at_border):
            ages.append((written, clock[0] - written, at_border))
            written = clock[0]
            due.written(step, step // 75)
    assert [age for _, age, _ in ages[:3]] == [10.0, 10.0, 20.0]
    later = [(age, at_border) for start, age, at_border in ages if start > 240]
    assert max(age for age, _ in later) <= 120
    assert min(age for age, _ in later) >= 60
    assert all(at_border for _, at_border in later[1:])


@pytest.mark.parametrize("text", ["", "5", "0m", "m", "-1s", "1.5epochs", "2 fortnights"])
def test_intervals_that_are_none(text: str) -> None:
    with pytest.raises(ModelError, match="interval between checkpoints"):
        RunDirectory(checkpoint_every=text)


@pytest.mark.parametrize("name", ["", "..", "a/b", "latest", ".x", "a\nb", "x" * 101])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name of a run"):
        RunDirectory(name=name)


def test_the_last_run_is_a_file_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "not permitted")

    trainer().fit(data(), steps=1, callbacks=RunDirectory(root=tmp_path, name="a", exports=False))
    monkeypatch.setattr("nncompile.train.run_places.os.symlink", no_links)
    trainer().fit(data(), steps=1, callbacks=RunDirectory(root=tmp_path, name="b", exports=False))
    parent = tmp_path / "perceptron"
    assert (parent / "latest").read_text() == "b\n"
    assert latest(parent) == parent / "b"
    point_to(parent / "a")
    assert latest(parent) == parent / "a"


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "run"
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(place, exports=False))
    left = [
        tmp_path / ".run.0123456789abcdef.nncompile-writing",
        place / "checkpoints" / ".step-9.safetensors.0123456789abcdef.nncompile-writing",
    ]
    left[0].mkdir()
    (left[0] / "config.json").write_text("{}")
    left[1].write_text("half")
    trainer().fit(data(), epochs=2, callbacks=RunDirectory(place, resume=True, exports=False))
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(tmp_path / "other", exports=False))
    assert not any(path.exists() for path in left)
    assert np.isfinite(trainer().state["out.weight"]).all()
