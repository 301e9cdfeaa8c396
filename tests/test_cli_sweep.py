"""`nncompile sweep`: trainings as processes, its table, failures, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nncompile.cli.trials import RECORD, Training, Trial
from tests.command_line import SMALL, fails, run, written
from tests.test_cli_json import found
from tests.test_docs import ROOT

SOURCE = SMALL.replace(
    "@model",
    """\
import os, signal
from dsl import option
width = option(8, low=1, high=64)
rate = option(3e-2, choices=[3e-2, 1e-2])
kind = option("good", choices=["good", "raises", "dies", "long"])
if kind == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "raises":
    1 / 0

@model""",
    1,
)
SOURCE = SOURCE.replace("x >> Dense", "x >> Dense(width) >> Dense").replace("sgd(3e-2", "sgd(rate")
SOURCE = SOURCE.replace("epochs=8", "epochs=10**6 if kind == 'long' else 2")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return written(tmp_path, SOURCE)


def test_a_grid_is_trained_and_ranked_and_not_repeated(file: Path) -> None:
    place = file.parent / "sweep"
    args = ("sweep", file, "--output", place, "--jobs", 2, "--set", "rate=1e-2", "--grid")
    described = found(*args, "width=2,16")
    assert described["monitor"] == "val_loss"
    trials = described["trials"]
    assert [t["state"] for t in trials] == ["finished"] * 2
    assert trials[0]["value"] < trials[1]["value"]
    for trial in trials:
        config = json.loads((Path(trial["run"]) / "config.json").read_text())
        assert config["hyperparameters"] == {**trial["settings"], "rate": 0.01, "kind": "good"}
        assert (Path(trial["run"]) / "model.onnx").is_file()
    before = (place / "width=2" / "config.json").stat().st_mtime_ns
    result = run(*args, "width=2,16")
    assert result.exit_code == 0
    assert "2 trainings are done already" in result.stdout
    assert result.stdout.splitlines()[2].split()[:3] == ["width", "val_loss", "epoch"]
    assert (place / "width=2" / "config.json").stat().st_mtime_ns == before
    message = fails("sweep", file, "--output", place, "--grid", "width=2", "--epochs", 1)
    assert "holds the trials of another sweep" in message
    assert "was {'rate': '1e-2'}" in message


def test_what_fails_is_told_and_does_not_end_it(file: Path) -> None:
    args = ("sweep", file, "--output", file.parent / "sweep", "--grid")
    described = found(*args, "kind=dies,raises", "-j", 2, exit_code=1)
    errors = {t["settings"]["kind"]: t["error"] for t in described["trials"]}
    assert errors["dies"] == "ended by signal 9"
    assert errors["raises"] == "ModelError: ZeroDivisionError: division by zero"
    described = found(*args, "kind=good")
    assert [t["state"] for t in described["trials"]] == ["finished", "failed", "failed"]


def test_an_interrupt_keeps_what_there_is(file: Path) -> None:
    place = file.parent / "sweep"
    command = [sys.executable, "-m", "nncompile", "sweep", str(file), "--output", str(place)]
    process = subprocess.Popen(
        [*command, "--grid", "kind=long", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = place / "kind=long" / "log.csv"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size > 200) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        stdout, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:  # it and its training would take the time of the other tests
            process.terminate()
            process.wait(60)
    assert process.returncode == 130, stderr
    assert "interrupted: the trainings write their states" in stderr
    (trial,) = json.loads(stdout)["trials"]
    assert trial["state"] == "interrupted"
    assert trial["value"] is not None
    assert json.loads((place / RECORD).read_text())["trials"][0]["state"] == "interrupted"
    assert (place / "kind=long" / "checkpoint.safetensors").is_file()


def test_a_hopeless_training_is_ended_and_has_its_state(file: Path) -> None:
    place = file.parent / "sweep"
    place.mkdir()
    training = Training(Trial({"kind": "long"}), place, ["train", str(file)])
    values: list[float] = []
    while len(values) < 3 and not training.has_ended:
        values += [value for _, value in training.new_values("val_loss")]
        time.sleep(0.05)
    training.prune()
    trial = training.close("val_loss", "min")
    assert trial.state == "pruned"
    assert trial.is_done
    assert trial.value is not None and trial.value <= min(values)
    assert (place / trial.run / "checkpoint.safetensors").is_file()


def test_optuna_proposes(file: Path) -> None:
    pytest.importorskip("optuna")
    args = ("sweep", file, "--output", file.parent / "sweep", "--trials", 2, "width=2..16", "-j", 2)
    described = found(*args)
    assert [t["state"] for t in described["trials"]] == ["finished"] * 2
    assert all(2 <= t["settings"]["width"] <= 16 for t in described["trials"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "say what to try in one way"),
        (("--grid", "width=1", "--random", "3"), "say what to try in one way"),
        (("--random", "width=1,2"), "--random needs the number of trainings"),
        (("--random", "0"), "--random needs the number of trainings"),
        (("--random", "many"), "--random needs the number of trainings"),
        (("--grid", "widht=1"), "did you mean 'width'?"),
        (("--grid", "width=1..3"), "width is a range"),
        (("--grid", "width"), "--grid 'width' is not NAME=VALUE"),
        (("--grid", "width=1,99"), "from 1 to 64, got 99"),
        (("--grid", "width=1", "--set", "width=2"), "leave --set width=... out"),
        (("--grid", "width=1", "--monitor", "val_los"), "did you mean 'val_loss'?"),
    ],
)
def test_mistakes_are_told_before_a_training(
    file: Path, args: tuple[str, ...], message: str
) -> None:
    assert message in fails("sweep", file, *args, "--output", file.parent / "sweep")
    assert not (file.parent / "sweep" / "width=1").exists()
