"""Files of one export belong together: others of the same names and shapes are told from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from dsl import Dense, f32, mean_squared_error, model, relu, tanh, training
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import BackendError, CheckpointError, ModelWarning
from nncompile.optim import adam
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.runtime import Session, StepRunner, load_state
from nncompile.runtime.external_data import WEIGHTS
from nncompile.runtime.origin import RECIPE
from nncompile.train import RunDirectory, Trainer
from tests.small_models import assert_same, data, trainer


def network(activation: Any = tanh, more: bool = False) -> Model:
    @model
    def net(x=f32["batch", 4], y=f32["batch", 1]):  # type: ignore[no-untyped-def]
        prediction = x >> Dense(8, activation, name="stem") >> Dense(1, name="head")
        added = {"twice": prediction * 2} if more else {}
        return {"prediction": prediction, "loss": mean_squared_error(prediction, y), **added}

    return net


def recipe(activation: Any = tanh, rate: float = 1e-2, more: bool = False) -> Recipe:
    return training(network(activation, more), optimizer=adam(rate), batch_size=8)


BATCH = {"x": np.ones((8, 4), np.float32), "y": np.ones((8, 1), np.float32)}


@pytest.mark.parametrize(
    "other", [recipe(relu), recipe(rate=1e-3)], ids=["another activation", "another rate"]
)
@pytest.mark.parametrize("given", [False, True], ids=["beside", "given"])
def test_a_state_of_another_recipe_is_refused(tmp_path: Path, other: Recipe, given: bool) -> None:
    state, step = export(recipe(), tmp_path / "step.onnx", to="step")
    StepRunner(step, state if given else None).step(BATCH)
    theirs, _ = export(other, tmp_path / "theirs.onnx", to="step")
    shutil.copy(theirs, state)
    with pytest.raises(CheckpointError) as caught:
        StepRunner(step, state if given else None)
    ids = [onnx_metadata(step)[RECIPE], load_state(state)[1][RECIPE]]
    assert ids[0] != ids[1]
    for part in (f"{step} and {state} are not of one recipe", *ids, "load_state(file)[0]"):
        assert part in str(caught.value)
    StepRunner(step, load_state(state)[0]).step(BATCH)  # as the hint says


def onnx_metadata(path: Path) -> dict[str, str]:
    return {x.key: x.value for x in onnx.load(path, load_external_data=False).metadata_props}


def test_a_later_checkpoint_goes_into_an_earlier_step(tmp_path: Path) -> None:
    ours = Trainer(recipe())
    _, step = ours.export(tmp_path / "step.onnx", to="step")
    ours.fit([BATCH], steps=3)
    saved = ours.save(tmp_path / "later.safetensors")
    runner = StepRunner(step, saved)
    runner.step(BATCH)
    ours.fit([BATCH], steps=1)
    assert_same(runner.state(), ours.state)


def test_files_without_an_id_are_taken(tmp_path: Path) -> None:
    state, step = export(recipe(), tmp_path / "step.onnx", to="step")
    save_file(load_state(state)[0], state)
    StepRunner(step).step(BATCH)


def test_the_states_of_a_run_and_its_step_have_one_id(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run", checkpoint_every="1epoch")
    trainer().fit(data(), epochs=2, callbacks=run)
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    found = [load_state(x)[1][RECIPE] for x in (tmp_path / "run").rglob("*.safetensors")]
    assert len(found) == 4
    found.append(onnx_metadata(tmp_path / "run" / "step.onnx")[RECIPE])
    assert set(found) == {config["recipe"]["step"]}


@pytest.mark.parametrize("foreign", [False, True], ids=["of an export", "of another program"])
def test_weights_of_another_export_are_refused(tmp_path: Path, foreign: bool) -> None:
    """Also where they have no checksum, and are changed within one number."""
    net = network()
    weights, path = export(net, tmp_path / "net.onnx", external_data=True, seed=0)
    if foreign:
        save_file(load_file(weights), weights)
        export(net, path, external_data=weights)
    feeds = {"x": BATCH["x"]}
    before = Session(path).run(feeds)
    if foreign:
        changed = load_file(weights)
        changed["head.weight"][3] += 1
        save_file(changed, weights)
    else:
        theirs, _ = export(net, tmp_path / "theirs.onnx", external_data=True, seed=1)
        shutil.copy(theirs, weights)
    with pytest.raises(BackendError) as caught:
        Session(path)
    assert f"{path} and {weights} are not of one export" in str(caught.value)
    assert "export both again" in str(caught.value)
    assert json.loads(onnx_metadata(path)[WEIGHTS])["net.weights.safetensors"] in str(caught.value)
    export(net, path, external_data=weights)
    after = Session(path).run(feeds)
    assert not np.array_equal(before["prediction"], after["prediction"])


def test_equal_exports_are_equal_files(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        files = (
            *export(recipe(), tmp_path / name / "step.onnx", to="step"),
            *export(network(), tmp_path / name / "net.onnx", external_data=True, seed=0),
        )
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("use", ["load", "export", "step"])
def test_weights_that_were_trained_in_another_network_are_told(tmp_path: Path, use: str) -> None:
    ours = Trainer(recipe())
    ours.fit([BATCH], steps=1)
    file = ours.save(tmp_path / "saved.safetensors")

    def take(other: Recipe) -> None:
        if use == "load":
            Trainer(other).load(file)
        elif use == "export":
            export(other.model, tmp_path / "net.onnx", params=file)
        else:
            export(other, tmp_path / "step.onnx", to="step", params=file)

    take(recipe(rate=1e-3))  # which trains in another way, and predicts in the same
    take(recipe(more=True))
    with pytest.warns(
        ModelWarning, match=r"saved\.safetensors are of a net that computed prediction in"
    ):
        take(recipe(relu))


def test_what_another_version_says_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nncompile.runtime.origin.VERSION", "0.0.1")
    file = Trainer(recipe()).save(tmp_path / "saved.safetensors")
    monkeypatch.undo()
    Trainer(recipe(relu)).load(file)
