"""Runs in 16 bits, which are evaluated and go on in another precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompile import BackendError, StepRunner
from nncompile.program.loss_scaling import SCALE, SKIPPED, TRACKER
from nncompile.runtime import load_state
from tests.command_line import GOOD, fails, succeeds, written

HALVES = ("--precision", "f16", "--emulate")
STATES = {SCALE, TRACKER, SKIPPED}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in f16 of a model file that says nothing of it."""
    succeeds("train", written(tmp_path, GOOD), "-o", tmp_path / "run", "-q", "--epochs", 1, *HALVES)
    return tmp_path / "run"


def test_a_run_in_16_bits_is_evaluated_in_float32(run: Path, tmp_path: Path) -> None:
    net = written(tmp_path, GOOD)
    own = succeeds("evaluate", run)
    assert succeeds("evaluate", net, "--params", run) == own
    halves = tmp_path / "halves.py"
    text = GOOD.replace("batch_size=", 'precision="bf16", batch_size=')
    assert text != GOOD
    halves.write_text(text)
    assert succeeds("evaluate", halves, "--params", run) == own  # where no kernel of it is


def test_a_training_goes_on_in_another_precision(run: Path, tmp_path: Path) -> None:
    net, once = written(tmp_path, GOOD), ("-q", "--epochs", 1)
    float32, again = tmp_path / "float32", tmp_path / "again"
    succeeds("train", net, "--resume", run / "checkpoint.safetensors", "-o", float32, *once)
    assert STATES.isdisjoint(load_state(float32 / "checkpoint.safetensors")[0])
    before = load_state(run / "checkpoint.safetensors")[0]
    checkpoint = float32 / "checkpoint.safetensors"
    succeeds("train", net, "--resume", checkpoint, "-o", again, *once, *HALVES)
    after = load_state(again / "checkpoint.safetensors")[0]
    assert before.keys() == after.keys()
    assert np.log2(after[SCALE]) == 16 - after[SKIPPED]


def test_a_run_stays_in_its_precision(run: Path, tmp_path: Path) -> None:
    text = fails("train", written(tmp_path, GOOD), "--resume", run, "--precision", "f32")
    assert "it is of another recipe" in text and "--resume CHECKPOINT" in text


def test_a_step_without_kernels_is_told(tmp_path: Path) -> None:
    step = tmp_path / "step.onnx"
    options = ("--to", "step", "--precision", "bf16", "-o", step)
    succeeds("compile", written(tmp_path, GOOD), *options)
    with pytest.raises(BackendError, match=r"MatMul(?s:.*)has no kernel(?s:.*)--emulate"):
        StepRunner(step)
    succeeds("compile", written(tmp_path, GOOD), *options, "--emulate")
    StepRunner(step)


@pytest.mark.parametrize("options", [(), ("--precision", "f16"), ("--training-info",)])
def test_a_file_for_inference_has_nothing_to_emulate(options: tuple[str], tmp_path: Path) -> None:
    net = written(tmp_path, GOOD)
    printed = fails("compile", net, *options, "--emulate", "-o", tmp_path / "net.onnx")
    assert "--emulate is of training steps, and onnx is for inference" in printed
    assert not (tmp_path / "net.onnx").exists()
