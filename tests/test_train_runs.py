"""`nncompile train` and its runs: names, resuming, what is refused, signals and closed pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nncompile.runtime import load_state
from nncompile.runtime.runner import StepRunner
from tests.command_line import GOOD, SMALL, fails, run, succeeds, written
from tests.run_checks import log_rows
from tests.small_models import assert_same

pytestmark = pytest.mark.usefixtures("unmeasured")
ROOT = Path(__file__).parent.parent


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the model file `net.py`."""
    written(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Lets a Ctrl-C come before that step of each training."""
    made = StepRunner.step

    def interrupted(runner: StepRunner, batch: object) -> None:
        if runner.steps == step:
            signal.raise_signal(signal.SIGINT)
        made(runner, batch)  # type: ignore[arg-type]  # what the trainer gives

    monkeypatch.setattr(StepRunner, "step", interrupted)


def test_runs_have_numbers_and_names(here: Path) -> None:
    assert "wrote runs/net/1/model.onnx" in succeeds("train", "net.py", "--epochs", 1)
    succeeds("train", "net.py", "--epochs", 1, "--name", "wide")
    assert os.readlink("runs/net/latest") == "wide"
    assert "wrote runs/net/2/model.onnx" in succeeds("train", "net.py", "--epochs", 1)
    message = fails("train", "net.py", "--epochs", 1, "--name", "wide")
    for part in ("runs/net/wide holds a run already", "--resume", "--overwrite", "--name"):
        assert part in message
    message = fails("train", "net.py", "--resume", "1", "--name", "wide")
    assert "runs/net/1 continues in its own directory, not in runs/net/wide" in message
    assert "its model is runs/net/1/model.onnx" in fails("run", "runs/net/1")
    succeeds("train", "net.py", "--epochs", 2, "--name", "wide", "--overwrite")
    assert len(log_rows(here / "runs/net/wide")) == 3
    config = json.loads((here / "runs/net/wide/config.json").read_text("utf-8"))
    assert config["until"] == {"epoch": 2, "step": None}
    message = fails("train", "net.py", "--output", "runs", "--overwrite")
    assert "runs holds what no run wrote: net" in message
    assert "give one of them" in fails("train", "net.py", "--resume", "--overwrite")


def test_an_interrupted_run_goes_on_to_its_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--batch-size", 20, "--epochs", 6, "--patience", 50, "--monitor", "val_accuracy")
    whole = succeeds("train", "net.py", *options, "--name", "whole")
    with monkeypatch.context() as patched:
        interrupt_at(patched, 7)
        result = run("train", "net.py", *options)
    assert result.exit_code == 130
    assert "interrupted after 8 steps of 20" in result.stdout
    assert "wrote runs/net/1/model.onnx" in result.stdout
    assert "held out" not in result.stdout
    rest = succeeds("train", "net.py", "--resume")
    assert "trained 10 steps of 20" in rest
    assert (
        "runs/net/1 with the options it began with: --batch-size 20 --patience 50 --monitor val_acc"
        in rest
    )
    held_out, *expected = (
        next(line for line in printed.splitlines() if line.startswith("held out"))
        for printed in (rest, whole)
    )
    assert [held_out] == expected
    runs = here / "runs/net"
    for file in ("checkpoint.safetensors", "best/checkpoint.safetensors"):
        assert_same(load_state(runs / "1" / file)[0], load_state(runs / "whole" / file)[0])
    for file in ("model.onnx", "step.onnx"):
        assert (runs / "1" / file).read_bytes() == (runs / "whole" / file).read_bytes()
    assert log_rows(here / "runs/net/1") == log_rows(here / "runs/net/whole")
    config = json.loads((here / "runs/net/1/config.json").read_text("utf-8"))
    assert len(config["resumed"]) == 1
    assert "is at its end: --epochs N trains on" in succeeds("train", "--resume", "1", "net.py")
    assert "trained 3 steps" in succeeds("train", "net.py", "--resume", "1", "--epochs", 1)


def test_a_run_goes_on_with_its_options(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from another directory; what is given anew is what the next goes on with."""
    begun = succeeds("train", "net.py", "--epochs", 1, "--threads", 1, "--log", "figures.csv")
    assert "it began with" not in begun
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    words = ("train", "../net.py", "--resume", "../runs/net/1", "--epochs", 1)
    printed = succeeds(*words)
    assert f"it began with: --threads 1 --log {here / 'figures.csv'}\n" in printed
    rows = (here / "figures.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]
    succeeds(*words, "--threads", 2)
    assert "it began with: --threads 2 --log" in succeeds(*words)
    config = json.loads((here / "runs/net/1/config.json").read_text("utf-8"))
    assert [x["threads"] for x in config["resumed"]] == [1, 2, 2]
    assert config["provider"] == "cpu"


def test_what_cannot_go_on_is_told(here: Path) -> None:
    assert "no run to resume in runs/net" in fails("train", "net.py", "--resume")
    succeeds("train", "net.py", "--epochs", 1)
    assert "there is no run '7' in runs/net" in fails("train", "net.py", "--resume", 7)
    for change, parts in (
        (("--batch-size", 8), ["another batch size", "was 16", "is 8"]),
        (("--seed", 3), ["another seed", "was 0", "is 3"]),
    ):
        message = fails("train", "net.py", "--resume", "--epochs", 1, *change)
        for part in (*parts, "cannot go on", "--resume CHECKPOINT --name NAME"):
            assert part in message
    for old, new, part in (
        ("adam(3e-2)", "adam(1e-2)", "another recipe"),
        ("Dropout(0.1)", "Dropout(0.2)", "another recipe"),
        ("default_rng(0)", "default_rng(1)", "another data, held-out data"),
    ):
        written(here, GOOD.replace(old, new))
        assert part in fails("train", "net.py", "--resume", "--epochs", 1)
    message = fails("train", "net.py", "--resume", ".")
    assert "is not a run directory" in message


def test_a_checkpoint_of_a_run_begins_another(here: Path) -> None:
    succeeds("train", "net.py", "--epochs", 2)
    file = "runs/net/1/checkpoint.safetensors"
    printed = succeeds("train", "net.py", "--resume", file, "--epochs", 1, "--name", "more")
    assert "wrote runs/net/more/model.onnx" in printed
    assert load_state("runs/net/more/checkpoint.safetensors")[0]["step"] == 12
    assert "wrote runs/net/1/model" in succeeds("train", "net.py", "--resume", file, "--epochs", 1)
    ours, more = (
        load_state(f"runs/net/{name}/checkpoint.safetensors")[0] for name in ("1", "more")
    )
    assert_same(ours, more)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_training_with_all_on_disk(here: Path, number: str) -> None:
    written(here, SMALL.replace("epochs=8", "epochs=1000000"))
    command = [sys.executable, "-m", "nncompile", "train", "net.py", "--verbose"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch       3 ") for line in process.stdout)
        process.send_signal(getattr(signal, number))
        rest = process.stdout.read()
        assert process.wait(30) == 128 + getattr(signal, number)
    assert "interrupted after" in rest
    assert "wrote runs/net/1/model.onnx" in rest
    step = int(load_state("runs/net/1/checkpoint.safetensors")[0]["step"])
    assert step >= 12
    assert "trained 4 steps" in succeeds("train", "net.py", "--resume", "--steps", 4)


@pytest.mark.parametrize("reader", ["| head -n 2", "> /dev/full"])
def test_a_training_outlives_its_reader(here: Path, reader: str) -> None:
    if "full" in reader and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    written(here, SMALL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = f"{sys.executable} -m nncompile train net.py --epochs 200 --verbose {reader}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot write to the standard output") == 1
    assert ".py:" not in done.stderr  # a warning does not show lines of the compiler
    assert load_state("runs/net/1/checkpoint.safetensors")[0]["step"] == 800
