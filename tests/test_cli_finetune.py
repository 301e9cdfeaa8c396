"""`nncompile finetune`: what it writes and says, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from nncompile import load_lora, load_onnx, merge
from nncompile.program.initialization import initial_values
from nncompile.runtime import Session, StepRunner, load_state
from tests import command_line
from tests.command_line import fails, succeeds
from tests.onnx_files import convolutional, tied_language_model
from tests.test_finetuning import images

BASE = ("finetune", "m.onnx", "--data", "d.npz", "--label", "y", "--loss", "cross_entropy")


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    convolutional(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **images())
    return tmp_path


def weights_of(file: Path) -> dict[str, Any]:
    graph = onnx.load(file).graph
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


def test_a_new_head_is_trained_in_a_run(beside: Path) -> None:
    printed = succeeds(*BASE, "--head", "6", "--epochs", "2", "--batch-size", "8", "-q")
    assert "the last layer of logits is new: fc.weight f32[6, 4], fc.bias f32[6] on" in printed
    assert "adamw of learning rate 0.001 trains 2 of 5 tensors, 30 of " in printed
    assert "trained 6 steps of 8" in printed and "accuracy" in printed
    run = beside / "runs" / "m" / "1"
    session = Session(run / "model.onnx")
    assert [p.name for p in session.inputs] == ["image"]
    assert [(p.name, p.shape[1]) for p in session.outputs] == [("logits", 6)]
    assert not (run / "adapter.safetensors").exists()
    before, after = (onnx.load(f).graph for f in (beside / "m.onnx", run / "model.onnx"))
    assert before.node == after.node and before.input == after.input
    changed = {n for n, x in weights_of(run / "model.onnx").items()
               if not np.array_equal(x, weights_of(beside / "m.onnx")[n])}  # fmt: skip
    assert changed == {"fc.weight", "fc.bias"}
    step = StepRunner(str(run / "step.onnx"))
    step.step(images())
    assert np.isfinite(step.metrics()["loss"])
    evaluated = succeeds("evaluate", run)
    assert "m on the training data" in evaluated and "accuracy" in evaluated
    succeeds("predict", run, "--data", "d.npz", "--output", "p.npz")
    assert np.load("p.npz")["logits"].shape == (24, 6)


def test_factors_are_merged_and_have_a_file(beside: Path) -> None:
    options = ("--lora", "2", "--alpha", "4", "--lora-params", "fc.*", "--lr", "1e-2")
    succeeds(*BASE, *options, "--steps", "9", "-q", "--output", "out")
    with safe_open("out/adapter.safetensors", "numpy") as file:
        assert set(file.keys()) == {"fc.lora_a", "fc.lora_b"}
        assert file.metadata()["alpha"] == "4"
    merged = merge(load_lora(load_onnx("m.onnx"), "out/adapter.safetensors"))
    weight = initial_values(merged, 0)["fc.weight"]
    exported = weights_of(beside / "out" / "model.onnx")
    np.testing.assert_array_equal(exported["fc.weight"], weight)
    before = weights_of(beside / "m.onnx")
    assert np.abs(weight - before["fc.weight"]).max() > 1e-3
    np.testing.assert_array_equal(exported["fc.bias"], before["fc.bias"])


def test_it_goes_on_as_if_it_had_not_ended(beside: Path) -> None:
    """With the options that it began with, or says which differs."""
    options = ("--lr", "1e-2", "--freeze", "stem.*", "--batch-size", "8", "-q")
    succeeds(*BASE, *options, "--epochs", "4", "--output", "whole")
    succeeds(*BASE, *options, "--epochs", "2", "--name", "parts")
    printed = succeeds("finetune", "m.onnx", "--resume", "parts", "--epochs", "2", "-q")
    assert "with the options it began with: --batch-size 8" in printed
    assert "trains 4 of 5 tensors" in printed
    one, two = (weights_of(Path(d) / "model.onnx") for d in ("whole", "runs/m/parts"))
    for name, x in one.items():
        np.testing.assert_array_equal(x, two[name], err_msg=name)
    config = json.loads(Path("runs/m/parts/config.json").read_text())
    assert config["finetune"]["freeze"] == ["stem.*"] and config["finetune"]["lr"] == 1e-2
    message = fails("finetune", "m.onnx", "--resume", "parts", "--lr", "1e-3", "--epochs", "1")
    assert "cannot go on: it is of another recipe" in message
    assert "holds a run already" in fails(*BASE, "--name", "parts")


def test_the_latest_run_of_finetune_goes_on(beside: Path) -> None:
    """Not that of a program of the same name, which says how it goes on."""
    succeeds(*BASE, "--steps", "1", "-q")
    Path("m.py").write_text(
        """
import numpy as np
from dsl import Dense, f32, model, sgd, training

@model
def m(x=f32["batch", 2]):
    return {"loss": (x >> Dense(1)).mean()}

recipe = training(m, optimizer=sgd(0.1))
data = {"x": np.ones((4, 2), np.float32)}
""",
        encoding="utf-8",
    )
    succeeds("train", "m.py", "--steps", "1", "-q")
    assert os.readlink("runs/m/latest") == "2"
    succeeds("finetune", "m.onnx", "--resume", "--steps", "1", "-q")
    config = json.loads(Path("runs/m/1/config.json").read_text(encoding="utf-8"))
    assert config["finetune"]
    assert int(load_state(Path("runs/m/1/checkpoint.safetensors"))[0]["step"]) == 2
    message = fails("finetune", "m.onnx", "--resume", "2", "--steps", "1")
    assert "was begun by train, with" in message
    assert "nncompile train FILE.py --resume" in message


def test_what_is_written_anew_is_said(beside: Path) -> None:
    tied_language_model(beside / "t.onnx")
    ids = np.random.default_rng(0).integers(0, 20, (8, 4))
    np.savez("t.npz", ids=ids, y=ids % 3)
    options = ("--data", "t.npz", "--label", "y", "--loss", "cross_entropy", "--head", "3")
    printed = succeeds("finetune", "t.onnx", *options, "--steps", "1", "-q")
    expected = "model.onnx is not the file with other weights, but written anew: its outputs are"
    assert expected in printed
    (port,) = Session("runs/t/1/model.onnx").outputs
    assert (port.name, port.shape[2]) == ("logits", 3)


def test_what_does_not_fit_is_told(beside: Path) -> None:
    assert "finetune needs --label" in fails("finetune", "m.onnx", "--data", "d.npz")
    assert "--head 5 makes a last layer" in fails(*BASE, "--head", "4")
    assert "--output tuned" in fails(*BASE, "--output", "tuned.onnx")
    assert "no such file" in fails("finetune", "nix.onnx", *BASE[2:])
    assert "--patience needs" not in fails(*BASE, "--monitor", "nix", "--patience", "1")
    assert "matches no parameter" in fails(*BASE, "--train", "head.*")
    found = command_line.run(*BASE, "--loss", "nix", "--json")
    assert found.exit_code == 2
    assert json.loads(found.stdout)["error"]["type"] == "ModelError"
    assert not Path("runs").exists()
