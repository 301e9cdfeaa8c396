"""The trainer: what it computes, that it is reproducible and resumable, and its errors."""

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
)
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.optim import adam, adamw, cosine, sgd
from nncompile.program.recipe import assign, minimize, training
from nncompile.runtime import save_state
from nncompile.train import Event, Trainer
from tests.small_models import assert_same, averaging, data, perceptron, trainer
from tests.tolerances import assert_close

EVERYTHING = {"optimizer": adamw(cosine(1e-2, warmup=3, steps=30)), "clip_norm": 1.0}


def test_training_brings_the_loss_down() -> None:
    ours = trainer()
    before = ours.evaluate(data())
    history = ours.fit(data(), epochs=30)
    assert len(history) == 30
    assert history["loss"][-1] < 0.3 * before["loss"]
    assert ours.evaluate(data())["loss"] < 0.3 * before["loss"]
    assert set(history.last) == {"loss", "bias"}


def test_steps_are_those_of_numpy() -> None:
    """Shuffled, the last smaller batch included, with means weighted by examples."""
    recipe = training(perceptron(), optimizer=adam(1e-2), batch_size=16, seed=3)
    ours = Trainer(recipe)
    history = ours.fit(data(50), epochs=2)
    step, whole = ours.compiled.source, data(50)
    state, losses = step.initial(3), []
    for epoch in range(2):
        order = np.random.default_rng((3, epoch)).permutation(50)
        total = 0.0
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            result = evaluate(step.step, {**state, **{n: x[rows] for n, x in whole.items()}})
            state |= {path: result[following] for path, following in step.state_map.items()}
            total += float(result["loss"]) * len(rows)
        losses.append(total / 50)
    assert ours.step == int(ours.state["step"]) == 8
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    for path, x in ours.params.items():
        assert_close(x, state[path], "float32", path)


def test_training_is_reproducible_bit_for_bit() -> None:
    first, second, other = trainer(0.5), trainer(0.5), trainer(0.5, seed=1)
    histories = [t.fit(data(), epochs=3).epochs for t in (first, second, other)]
    assert_same(first.state, second.state)
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("stop", [1, 4, 6, 8])
def test_resumed_training_gives_the_same_bits(tmp_path: Path, stop: int) -> None:
    """From a checkpoint within an epoch and at its end; four steps are an epoch."""
    whole, part, rest = (trainer(0.5, **EVERYTHING) for _ in range(3))
    expected = whole.fit(data(), epochs=3)
    part.fit(data(), steps=stop)
    rest.load(part.save(tmp_path / "part.safetensors"))
    assert (rest.step, rest.epoch) == (stop, stop // 4)
    history = rest.fit(data(), epochs=3 - rest.epoch)
    assert_same(rest.state, whole.state)
    assert history.epochs == expected.epochs[stop // 4 :]


def test_batches_resume_where_they_were(tmp_path: Path) -> None:
    batches = [data(8, seed) for seed in range(5)]
    whole, part, rest = trainer(), trainer(), trainer()
    whole.fit(batches, epochs=2)
    part.fit(lambda: iter(batches), steps=7)
    rest.load(part.save(tmp_path / "part.safetensors"))
    rest.fit(batches, epochs=1)
    assert_same(rest.state, whole.state)


def test_the_lengths_of_training() -> None:
    ours = trainer()
    ours.fit(data(), epochs=2)
    assert (ours.epoch, ours.step) == (2, 8)
    ours.fit(data(), epochs=5, steps=6)
    assert (ours.epoch, ours.step) == (3, 14)
    ours.fit(data(), epochs=1)  # the epoch that was under way
    assert (ours.epoch, ours.step) == (4, 16)
    ours.fit(data())
    assert (ours.epoch, ours.step) == (5, 20)
    ours.fit(data(), steps=0)
    assert ours.step == 20
    declared = trainer(epochs=2, steps=7)
    declared.fit(data())
    assert declared.step == 7
    assert len(declared.fit(data())) == 0


def test_without_shuffling_examples_come_in_their_order() -> None:
    whole = data(50)
    batches = [{n: x[i : i + 16] for n, x in whole.items()} for i in range(0, 50, 16)]
    ours, other, shuffled = trainer(), trainer(), trainer()
    ours.fit(whole, epochs=1, shuffle=False)
    other.fit(batches, epochs=1)
    shuffled.fit(whole, epochs=1)
    assert_same(ours.state, other.state)
    assert not np.array_equal(shuffled.params["out.weight"], ours.params["out.weight"])


def test_evaluation_is_the_mean_over_examples_without_dropout() -> None:
    ours = trainer(drop=0.5)
    assert_close(
        np.float32(ours.evaluate(data(50), batch_size=16)["loss"]),
        np.float32(ours.evaluate(data(50), batch_size=50)["loss"]),
        "float32",
    )
    y = ours.predict({"x": data(50)["x"]})["y"]
    expected = np.mean((y - data(50)["target"]) ** 2)
    np.testing.assert_allclose(ours.evaluate(data(50))["loss"], expected, rtol=1e-5)


def test_predictions_do_not_depend_on_the_batch() -> None:
    ours = trainer()
    x = data(50)["x"]
    y = ours.predict(x)["y"]
    assert y.shape == (50, 2)
    np.testing.assert_allclose(ours.predict({"x": x}, batch_size=7)["y"], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.predict(data(50))["y"], y)  # labels are not needed
    ours.fit(data(), epochs=1)
    assert not np.allclose(ours.predict(x)["y"], y)


def test_running_statistics_are_trained_and_used() -> None:
    ours = Trainer(training(averaging(), optimizer=sgd(0.0), batch_size=4))
    ours.fit({"x": np.full(8, 2, np.float32)}, epochs=1)
    assert ours.state["mean"] == pytest.approx(0.9 * 0.2 + 0.2)
    assert ours.params == {"w": 0.5}


def test_a_learning_rule_trains_without_a_gradient() -> None:
    rule = assign("w", lambda v: v["w"] + 0.1 * ((1 - v["y"]) * v["x"]).mean())
    ours = Trainer(training(averaging(), updates=[rule], batch_size=8))
    history = ours.fit({"x": np.linspace(0.5, 1, 32, dtype=np.float32)}, epochs=60)
    assert history["loss"][-1] < 0.2 * history["loss"][0]


def test_validation_and_callbacks() -> None:
    class Watch:
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.epochs: list[dict[str, float]] = []

        def on_step(self, event: Event) -> None:
            self.steps.append(event.step)
            assert set(event.metrics) == {"loss", "bias"}

        def on_epoch(self, event: Event) -> None:
            self.epochs.append(event.metrics)

    watch, events = Watch(), list[Event]()
    ours = trainer()
    history = ours.fit(
        data(), epochs=2, validation_data=data(20, seed=1), callbacks=[watch, events.append]
    )
    assert watch.steps == list(range(1, 9))
    assert watch.epochs == history.epochs
    assert [e.kind for e in events] == ["step"] * 4 + ["epoch"] + ["step"] * 4 + ["epoch"]
    assert [e.epoch for e in events] == [1] * 5 + [2] * 5
    assert history["val_loss"][-1] == ours.evaluate(data(20, seed=1))["loss"]


def test_a_callback_can_stop_the_training() -> None:
    def stop(event: Event) -> None:
        if event.step == 6:
            event.trainer.stop()

    ours = trainer()
    history = ours.fit(data(), epochs=5, callbacks=stop)
    assert (ours.step, ours.epoch, len(history)) == (6, 1, 2)
    with pytest.raises(ModelError, match="not a callback"):
        ours.fit(data(), callbacks=[3])


def test_an_interrupt_leaves_a_usable_state(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.step == 6:
            raise KeyboardInterrupt

    whole, ours = trainer(), trainer()
    whole.fit(data(), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), epochs=3, callbacks=interrupt)
    assert ours.step == int(ours.state["step"]) == 6
    ours.save(tmp_path / "saved.safetensors")
    ours.fit(data(), epochs=2)
    assert_same(ours.state, whole.state)


def test_setting_parameters() -> None:
    ours, other = trainer(), trainer(seed=1)
    other.set_params(ours.params)
    assert_same(ours.params, other.params)
    assert other.state["seed"] == 1
    ours.fit(data(), steps=6)
    other.set_params(ours.state)
    assert (other.step, other.epoch) == (6, 0)
    other.fit(data(), epochs=1)
    assert (other.step, int(other.state["step"])) == (10, 10)
    with pytest.raises(ModelError, match="no parameter 'w'"):
        ours.set_params({"w": np.zeros(2, np.float32)})
    with pytest.raises(FeedError, match=r"out\.weight"):
        ours.set_params({"out.weight": np.zeros(2, np.float32)})


# Bad input


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
        (changed(x=data()["x"].astype(np.float64)), "'x' has the wrong element type"),
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
    with pytest.raises(FileError, match="no such file"):
        trainer().load(tmp_path / "none.safetensors")


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
