"""Trainings that go wrong: bad data, losses that diverge, steps that fail, foreign checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import f32, log, model, ones, parameter
from nncompile.diagnostics.errors import (
    CheckpointError,
    FeedError,
    FileError,
    ModelError,
    ProviderError,
    TrainingError,
    UnknownNameError,
)
from nncompile.ir.types import Array
from nncompile.optim import adam, sgd
from nncompile.program.recipe import minimize, training
from nncompile.runtime import save_state
from nncompile.train import Event, Trainer
from tests.small_models import assert_same, averaging, data, trainer


def changed(**arrays: Any) -> dict[str, Any]:
    return {**data(), **arrays}


def with_nan() -> np.ndarray[Any, Any]:
    x = data()["x"]
    x[7, 2] = math.nan
    return x


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"x": data()["x"]}, "no data for input 'target'"),
        (changed(label=1), "no input 'label'"),
        (changed(x=data()["x"].astype(str)), "'x' has the wrong element type"),
        (changed(x=data()["x"][:, :3]), "'x' has size 3 on axis 1"),
        (changed(x=data()["x"][:40]), "'target' has size 50"),
        (changed(x=with_nan()), r"'x' hold NaN: 1 of 200(.|\n)*x\[7, 2\]"),
        (data(0), "no examples"),
        ([data(), 3], "a batch must be a dict"),
        ([], "no batch"),
        (lambda: 3, "iterable of dicts"),
        ([{"x": data()["x"]}], "no data for input 'target'"),
    ],
)
def test_data_that_do_not_fit_are_told(given: Any, words: str) -> None:
    ours = trainer()
    start = ours.state
    with pytest.raises(FeedError, match=words):
        ours.fit(given, epochs=2)
    if not isinstance(given, list) or not given:
        assert_same(ours.state, start)


def test_a_generator_that_is_used_up_is_told() -> None:
    with pytest.raises(FeedError, match=r"no batch for epoch 2(.|\n)*read only once"):
        trainer().fit((data(8, seed) for seed in range(3)), epochs=2)


def test_validation_data_are_checked_before_training() -> None:
    ours = trainer()
    with pytest.raises(FeedError, match="no input 'z'"):
        ours.fit(data(), epochs=1, validation_data={"z": 1})
    assert ours.step == 0


def test_a_training_that_diverges_is_told() -> None:
    ours = trainer(optimizer=sgd(1e30))
    with pytest.raises(
        TrainingError, match=r"loss is (nan|inf) at step \d.*are finite\n(.|\n)*rate"
    ):
        ours.fit(data(), epochs=5)


@model
def _logarithms(x: Any = f32["batch", 4]) -> dict[str, Any]:
    y = x @ parameter("w", (4, 1), ones)
    return {"loss": log(y).mean(), "size": y.mean(), "y": y}


def _batches() -> list[dict[str, Array]]:
    """Three batches, of which the loss of the last is infinite."""
    return [{"x": np.full((2, 4), x, np.float32)} for x in (1, 2, 0)]


def test_a_step_that_fails_leaves_the_state_of_the_step_before(tmp_path: Path) -> None:
    recipe = training(_logarithms, optimizer=adam(0.01))
    good = Trainer(recipe)
    good.fit(_batches()[:2], epochs=1)
    ours = Trainer(recipe)
    with pytest.raises(TrainingError, match="loss is -inf at step 3") as caught:
        ours.fit(_batches(), epochs=1)
    assert "log(" in str(caught.value)
    assert (ours.step, ours.epoch) == (2, 0)
    assert ours.locate(_batches()[2]) is not None
    path = ours.save(tmp_path / "state.safetensors")
    resumed = Trainer(recipe)
    resumed.load(path)
    for one in (ours, resumed):
        assert_same(one.state, good.state)
        batches = [*_batches()[:2], _batches()[0]]
        history = one.fit(batches, epochs=1)  # the third is made again
        assert (one.step, one.epoch) == (3, 1)
        whole = Trainer(recipe)
        assert whole.fit(batches, epochs=1).last == history.last
        assert_same(whole.state, one.state)


def test_a_step_that_a_callback_refuses_is_not_made() -> None:
    recipe = training(_logarithms, optimizer=adam(0.01))
    ours, good = Trainer(recipe), Trainer(recipe)
    good.fit(_batches()[:2], epochs=1)

    class Refuse:
        limit = 2

        def on_step(self, event: Event) -> None:
            if event.step > self.limit:
                raise TrainingError("refused")

    refuse = Refuse()
    batches = [*_batches()[:2], _batches()[1]]
    with pytest.raises(TrainingError, match="refused"):
        ours.fit(batches, epochs=1, callbacks=refuse)
    assert ours.step == 2
    assert_same(ours.state, good.state)
    refuse.limit = 3
    history = ours.fit(batches, epochs=1, callbacks=refuse)
    assert history.last == Trainer(recipe).fit(batches, epochs=1).last


def test_infinite_data_are_named_where_the_loss_is_lost() -> None:
    """They are allowed, as masks hold them: only a loss that is not finite tells of them."""
    whole = data()
    whole["x"][7, 1] = np.inf  # tanh makes 1 of it, its gradient NaN
    with pytest.raises(TrainingError) as caught:
        trainer().fit(whole, epochs=2)
    assert "the data are not all finite" in str(caught.value)
    assert "input 'x'  1 of 200 infinite  first x[7, 1]" in str(caught.value)
    batches = [{name: x[i : i + 10] for name, x in whole.items()} for i in (10, 0, 20, 30)]
    with pytest.raises(TrainingError) as caught:
        trainer().fit(batches, epochs=1)
    assert "loss is nan at step 3 (epoch 1)" in str(caught.value)
    assert "the data of this batch and the one before are not all finite" in str(caught.value)
    assert "input 'x'  1 of 40 infinite  first x[7, 1]" in str(caught.value)


def test_nan_in_a_batch_is_told_by_the_name_of_the_input() -> None:
    with pytest.raises(FeedError, match="'x' hold NaN"):
        trainer().fit([changed(x=with_nan())], epochs=1)


def test_other_wrong_calls_are_told(tmp_path: Path) -> None:
    recipe = training(averaging(), updates=[minimize()])
    with pytest.raises(ProviderError, match="cud"):
        Trainer(recipe, providers="cud")
    with pytest.raises(ModelError, match="batch_size must be at least 1, got 0"):
        trainer().fit(data(), batch_size=0)
    with pytest.raises(ModelError, match="epochs must be at least 0, got -1"):
        trainer().fit(data(), epochs=-1)
    with pytest.raises(ModelError, match=r"got 5 beside(.|\n)*fit\(data, epochs=5\)"):
        trainer().fit(data(), 5)
    with pytest.raises(FeedError, match="no input left for y"):
        trainer().fit(data(), data()["target"])
    with pytest.raises(FileError, match="no such file"):
        trainer().load(tmp_path / "none.safetensors")


def test_setting_what_has_no_effect_is_an_error() -> None:
    ours = trainer()
    for name, words in (
        ("lr", "trainer.learning_rate = 1e-4"),
        ("params", "trainer.set_params"),
        ("recipe", "make another trainer"),
        ("batch_size", "option of fit"),
        ("bach_size", "only its seed"),
    ):
        with pytest.raises(UnknownNameError) as caught:
            setattr(ours, name, 3)
        assert f"setting '{name}' of a trainer has no effect" in str(caught.value)
        assert words in str(caught.value)
    ours.seed = 3
    ours.learning_rate = 1e-4  # the way that the error names
    assert ours.learning_rate == 1e-4

    class Own(Trainer):
        pass

    own = Own(ours.recipe)
    own.note = "mine"  # type: ignore[attr-defined]


def test_foreign_checkpoints_leave_the_state(tmp_path: Path) -> None:
    ours = trainer()
    start = ours.state
    path = trainer().save(tmp_path / "whole.safetensors")
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-40])
    other = Trainer(training(averaging())).save(tmp_path / "other.safetensors")
    for wrong in (short, other):
        with pytest.raises(CheckpointError):
            ours.load(wrong)
    assert_same(ours.state, start)


@pytest.mark.parametrize("position", ["{", "[1]", '{"epoch": 3}', '{"epoch": {"x": 1}}'])
def test_a_position_that_cannot_be_read_is_told(tmp_path: Path, position: str) -> None:
    ours = trainer()
    path = save_state(tmp_path / "x.safetensors", ours.state, {"nncompile.position": position})
    with pytest.raises(CheckpointError, match="position"):
        ours.load(path)


def test_a_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    ours = trainer()
    ours.fit(data(), steps=2)
    raw = ours.save(tmp_path / "saved.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert header["__metadata__"]["nncompile.model"] == "perceptron"
    position = json.loads(header["__metadata__"]["nncompile.position"])
    assert (position["epoch"]["number"], position["epoch"]["examples"]) == (0, 32)
    assert set(header) - {"__metadata__"} == set(ours.state)
