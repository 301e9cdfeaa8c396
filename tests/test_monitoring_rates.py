"""The learning rate that a sweep finds, and overfitting one batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    adam,
    adamw,
    f32,
    glorot_uniform,
    he_normal,
    model,
    muon,
    plateau,
    relu,
    sgd,
    sigmoid,
    training,
)
from nncompile.diagnostics.errors import FeedError, ModelError, TrainingError
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.recipe import assign
from nncompile.train import Trainer, lr_find, overfit_one_batch
from nncompile.train.finder import smooth
from tests.monitored import deep, labelled
from tests.small_models import averaging, data, perceptron


def regression() -> tuple[Model, dict[str, Array], float]:
    """A line, its data, and the rate from which on gradient descent on all of them diverges."""

    @model
    def line(x=f32["batch", 8], y=f32["batch"]):
        found = (x >> Dense(1, name="line"))[:, 0]
        return {"loss": ((found - y) ** 2).mean()}

    random = np.random.default_rng(0)
    x = random.normal(size=(128, 8)).astype(np.float32)
    y = (x @ random.normal(size=8)).astype(np.float32)
    with_bias = np.concatenate([x, np.ones((128, 1))], axis=1)
    curvature = np.linalg.eigvalsh(2 * with_bias.T @ with_bias / 128)[-1]
    return line, {"x": x, "y": y}, 2 / curvature


def test_the_rate_that_is_found_trains_and_ones_far_from_it_do_not() -> None:
    line, whole, limit = regression()
    found = lr_find(training(line, optimizer=sgd(1.0), batch_size=32), whole)
    assert found.suggestion is not None and 0.01 * limit < found.suggestion < limit
    assert found.rates[-1] > limit  # it went on to where the loss rises again

    def after(rate: float) -> float:
        ours = Trainer(training(line, optimizer=sgd(rate), batch_size=32))
        try:
            return ours.fit(whole, epochs=20)["loss"][-1]
        except TrainingError:
            return math.inf

    best = after(found.suggestion)
    assert best < 0.1 * found.losses[0]
    assert best < 0.1 * after(found.suggestion / 100)
    assert best < 0.1 * after(found.suggestion * 100)


def test_a_sweep_makes_the_steps_of_its_rates() -> None:
    line, whole, _ = regression()
    found = lr_find(training(line, optimizer=sgd(1.0), batch_size=32), whole, 1e-4, 1e-1, steps=6)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 1e-1, 6))
    weights = Trainer(training(line)).state
    w, b = weights["line.weight"][:, 0].astype(np.float64), 0.0
    losses = []
    for epoch in range(2):
        order = np.random.default_rng((0, epoch)).permutation(128)
        for i in range(0, 128, 32):
            x, y = (whole[n][order[i : i + 32]].astype(np.float64) for n in ("x", "y"))
            error = x @ w + b - y
            losses.append((error**2).mean())
            rate = 1e-4 * 1000 ** ((len(losses) - 1) / 5)
            w, b = w - rate * 2 * x.T @ error / 32, b - rate * 2 * error.mean()
    np.testing.assert_allclose(found.losses, losses[:6], rtol=1e-5)


def test_a_sweep_leaves_the_trainer_as_it_is_and_is_reproducible() -> None:
    recipe = training(perceptron(drop=0.5), optimizer=adam(1e-2), batch_size=16)
    ours, other = Trainer(recipe), Trainer(recipe)
    ours.fit(data(), steps=6)
    other.fit(data(), steps=6)
    found = [lr_find(ours, data(), steps=40) for _ in range(2)]
    np.testing.assert_array_equal(found[0].losses, found[1].losses)
    for path, x in ours.state.items():
        np.testing.assert_array_equal(x, other.state[path])
    ours.fit(data(), epochs=2)
    other.fit(data(), epochs=2)
    for path, x in ours.state.items():
        np.testing.assert_array_equal(x, other.state[path])
    fresh = lr_find(recipe, data(), steps=40)
    assert not np.array_equal(fresh.losses, found[0].losses)


def test_groups_of_parameters_keep_the_proportions_of_their_rates() -> None:
    line, whole, _ = regression()
    grouped = {"*.bias": sgd(0.0), "*": sgd(0.5)}
    frozen = training(line, optimizer=sgd(0.5), batch_size=32, freeze="*.bias")
    one = lr_find(training(line, optimizer=grouped, batch_size=32), whole)
    np.testing.assert_allclose(one.losses, lr_find(frozen, whole).losses, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": muon()},
        {"optimizer": adamw(plateau(1e-3, monitor="loss"))},
        {"optimizer": sgd(0.1, momentum=0.9), "accumulate": 2},
    ],
    ids=["muon", "plateau", "accumulate"],
)
def test_every_optimizer_can_be_swept(options: dict[str, Any]) -> None:
    line, whole, _ = regression()
    recipe = training(line, batch_size=32, **options)
    ours = Trainer(recipe)
    ours.fit(whole, steps=3)
    for source in (recipe, ours):
        found = lr_find(source, whole, lowest=1e-5)
        assert found.suggestion is not None and 1e-4 < found.suggestion < 5


def test_no_rate_is_suggested_where_nothing_falls() -> None:
    line, whole, _ = regression()
    ours = Trainer(training(line, optimizer=sgd(0.1), batch_size=32))
    found = lr_find(ours, {**whole, "x": np.zeros_like(whole["x"])}, highest=1e-5)
    assert found.suggestion is None


def test_wrong_sweeps_are_told() -> None:
    line, whole, _ = regression()
    recipe = training(line)
    with pytest.raises(ModelError, match=r"from lowest > 0 to highest, got 0\.0 to 10\.0"):
        lr_find(recipe, whole, lowest=0)
    with pytest.raises(ModelError, match="does not minimize 'los'"):
        lr_find(recipe, whole, loss="los")
    with pytest.raises(ModelError, match="no update follows a gradient"):
        lr_find(training(averaging(), updates=[assign("w", 1.0)]), {"x": whole["y"]})
    with pytest.raises(FeedError, match=r"end after 1 rounds(.|\n)*list of batches"):
        lr_find(recipe, (whole for _ in range(3)))
    with pytest.raises(TrainingError, match=r"diverges after \d steps at rates from 1e\+20 on"):
        lr_find(recipe, whole, lowest=1e20, highest=1e30)


def test_a_sweep_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    line, whole, _ = regression()
    found = lr_find(training(line, batch_size=32), whole)
    assert found.plot(tmp_path / "sweep.png").stat().st_size > 1000


def test_the_trend_is_the_mean_of_neighbours() -> None:
    np.testing.assert_allclose(smooth(np.array([1.0, 2, 6, 4]), 1), [1.5, 3, 4, 5])


# One batch


def test_one_batch_is_learned_by_heart() -> None:
    batch = labelled(16)
    found = overfit_one_batch(deep(relu, he_normal, 2, optimizer=adam(1e-2)), batch)
    assert found.learns and len(found.losses["loss"]) == 200
    assert found.losses["loss"][-1] < 0.01
    assert str(found).endswith("in 200 steps")
    with pytest.raises(FeedError, match=r"index 99 is out of range"):
        overfit_one_batch(deep(relu, he_normal, 2), {**batch, "label": batch["label"] * 0 + 99})
    with pytest.raises(FeedError, match=r"hold NaN"):
        overfit_one_batch(deep(relu, he_normal, 2), {**batch, "x": batch["x"] * np.nan})
    stuck = overfit_one_batch(deep(sigmoid, glorot_uniform), batch, steps=3)
    assert stuck.losses["loss"][-1] > 1
    assert not overfit_one_batch(deep(relu, he_normal, 1, optimizer=sgd(0.0)), batch, 5).learns
    with pytest.raises(ModelError, match="follows a gradient"):
        overfit_one_batch(training(averaging(), updates=[assign("w", 1.0)]), {"x": batch["x"]})
