"""Trainings of several processes, each under mpirun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, Dropout, cross_entropy, f32, i64, model, relu
from nncompile import export, training
from nncompile.optim import sgd
from tests.mpi_jobs import ROOT, environment, job, needs_mpi


@model
def digits(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(8, relu, name="hidden") >> Dropout(0.3)
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label)}


@needs_mpi
@pytest.mark.parametrize("flat", [False, True])
def test_the_example_of_two_processes_is_that_of_one(tmp_path: Path, flat: bool) -> None:
    """With dropout, and a last batch of one row, of which one process gets none."""
    recipe = training(digits, optimizer=sgd(0.1), clip_norm=0.5)
    export(recipe, tmp_path / "step.onnx", "step", seed=0)
    for to in ("gradient", "update"):
        export(recipe, tmp_path / f"{to}.onnx", to, seed=0, flat=flat)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(53, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images, label=rng.integers(0, 3, 53))
    one = [str(ROOT / "examples/train_with_onnxruntime.py"), "step.onnx", "data.npz", "3", "13"]
    command = [sys.executable, *one, "one.npz"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, stdout=subprocess.DEVNULL)
    several = [str(ROOT / "examples/train_with_mpi.py"), "gradient.onnx", "update.onnx"]
    job(2, [*several, "step.state.safetensors", "data.npz", "3", "13", "out"], tmp_path)
    expected = dict(np.load(tmp_path / "one.npz"))
    for rank in range(2):
        found = dict(np.load(tmp_path / f"out.{rank}.npz"))
        for name, x in expected.items():
            np.testing.assert_allclose(found[name], x, 1e-6, 1e-6, err_msg=name)
