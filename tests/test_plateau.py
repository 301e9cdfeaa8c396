"""Learning rates that fall when a metric stops improving: torch's rates, in the training step and
outside of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, i64
from nncompile.ops import ratio
from nncompile.optim import adam, muon, plateau, sgd, step_decay
from nncompile.optim.schedules import Stateful
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import maximize, minimize, training
from nncompile.train import Trainer
from tests.leaves import leaf
from tests.small_models import data, perceptron

METRICS = [5.0, 4.0, 4.5, 4.2, 4.1, 3.9999, 3.0, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 2.0, 2.1, 2.1]
PLATEAUS: list[dict[str, Any]] = [
    {"patience": 2},
    {"patience": 0, "cooldown": 2},
    {"patience": 1, "threshold_mode": "abs", "threshold": 0.5, "min_lr": 0.01},
    {"patience": 1, "mode": "max", "factor": 0.5},
    {"patience": 1, "mode": "max", "threshold_mode": "abs", "cooldown": 1},
]


def falling_in_torch(torch: Any, options: dict[str, Any], metrics: list[float]) -> list[float]:
    """The rate after each look at a metric."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **options)
    rates = []
    for metric in metrics:
        scheduler.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("options", PLATEAUS)
def test_a_plateau_that_the_program_measures_is_that_of_torch(
    torch: Any, options: dict[str, Any]
) -> None:
    rate = plateau(0.1, monitor=False, **options)
    step = Input("step", i64[()], "state")()
    state = {path: evaluate(x, {}) for path, x in rate.initial.items()}
    expected = falling_in_torch(torch, options, METRICS)
    assert len(set(expected)) > 1
    for metric, known in zip(METRICS, expected, strict=True):
        state |= rate.after(state, metric)
        now = float(evaluate(rate(step), {**state, "step": np.asarray(0, np.int64)}))
        assert now == pytest.approx(known, rel=1e-5)


def test_a_plateau_lives_in_the_step(torch: Any) -> None:
    """The rate that the training step used, of the means that it saw itself, step by step."""
    rate = plateau(0.1, "loss", every=3, patience=1, factor=0.5, threshold=0.5)
    recipe = training(perceptron(), optimizer={"*.bias": sgd(rate), "*": sgd(rate, 0.9)})
    trainer = Trainer(recipe)
    losses: list[float] = []
    rates = []
    for i in range(36):
        history = trainer.fit([data(16, i % 5)], epochs=1)
        losses.append(history.epochs[0]["loss"])
        rates.append(float(trainer.state["training.plateau.factor"]) * 0.1)
    means = [float(np.mean(losses[i : i + 3])) for i in range(0, 36, 3)]
    expected = falling_in_torch(torch, {"patience": 1, "factor": 0.5, "threshold": 0.5}, means)
    assert len(set(expected)) > 2
    assert rates[2::3] == pytest.approx(expected, rel=1e-5)


def masked() -> Model:
    """A mean of what a mask leaves."""
    x, mask = leaf("x", f32["batch"]), leaf("mask", f32["batch"])
    w = leaf("w", f32[()], "parameter")
    loss = ratio(((w * x - 1) ** 2 * mask).sum(), mask.sum())
    return Model("masked", Graph("masked", {"loss": loss}, (x, mask, w)), {"w": full((), 0.3)})


def test_a_plateau_looks_once_an_update() -> None:
    """At the mean over all batches of the update, weighed as its gradients are."""
    random = np.random.default_rng(2)
    options = {"patience": 0, "factor": 0.5, "threshold": 0.05, "every": 2}
    optimizer = sgd(plateau(0.2, **options))
    several = Trainer(training(masked(), optimizer=optimizer, accumulate=3))
    whole = Trainer(training(masked(), optimizer=optimizer))
    factors = []
    for _ in range(12):
        batch = {
            "x": random.normal(size=10).astype(np.float32),
            "mask": random.integers(0, 2, 10).astype(np.float32),
        }
        cuts = [{n: v[i:j] for n, v in batch.items()} for i, j in ((0, 2), (2, 7), (7, 10))]
        several.fit(cuts, epochs=1, shuffle=False)
        whole.fit([batch], epochs=1)
        for name in ("factor", "best", "waited", "rested", "total"):
            path = f"training.plateau.{name}"
            np.testing.assert_allclose(several.state[path], whole.state[path], rtol=1e-5)
        np.testing.assert_allclose(several.state["w"], whole.state["w"], rtol=1e-5, atol=1e-6)
        factors.append(float(whole.state["training.plateau.factor"]))
    assert len(set(factors)) > 2
    # Before the update nothing is looked at.
    before = several.state["training.plateau.total"]
    several.fit([{n: v[:1] for n, v in batch.items()}], epochs=1)
    assert several.state["training.plateau.total"] == before


@pytest.mark.parametrize(
    "optimizer", [sgd, adam, lambda rate: muon(rate, others=sgd(rate))], ids=["sgd", "adam", "muon"]
)
def test_a_plateau_watches_the_loss_of_its_update(torch: Any, optimizer: Any) -> None:
    rate = plateau(0.1, patience=1, factor=0.5, threshold=0.2)
    trainer = Trainer(training(perceptron(), optimizer=optimizer(rate)))
    losses, rates = [], []
    for i in range(12):
        history = trainer.fit([data(16, i % 3)], epochs=1)
        losses.append(history.epochs[0]["loss"])
        rates.append(float(trainer.state["training.plateau.factor"]) * 0.1)
    expected = falling_in_torch(torch, {"patience": 1, "factor": 0.5, "threshold": 0.2}, losses)
    assert len(set(expected)) > 2
    assert rates == pytest.approx(expected, rel=1e-5)


def test_each_loss_has_a_plateau_of_its_own() -> None:
    """One optimizer for a loss that grows and one that falls; what is maximized is to grow."""
    x, w, v = (leaf(n, f32[()], k) for n, k in (("x", "input"), ("w", "parameter"), ("v", "input")))
    u = leaf("u", f32[()], "parameter")
    outputs = {"first": 1e-6 * w + x, "second": 1e-6 * u + v}
    start = {"w": full((), 0.0), "u": full((), 0.0)}
    net = Model("net", Graph("net", outputs, (x, v, w, u)), start)
    shared = sgd(plateau(0.1, patience=0))
    down, up = (f("second", params="u", optimizer=shared) for f in (minimize, maximize))
    for second, factor in ((down, 1.0), (up, 0.01)):
        step = compose(training(net, updates=[minimize("first", "w", shared), second]))
        state = step.initial(0)
        for i in range(1, 4):
            feeds = {"x": np.float32(i), "v": np.float32(4 - i)}
            found = evaluate(step.step, {**state, **feeds})
            state |= {path: found[following] for path, following in step.state_map.items()}
        factors = [float(state[f"training.plateau.{n}.factor"]) for n in ("first", "second")]
        assert factors == pytest.approx([0.01, factor])


def test_a_plateau_that_watches_is_not_driven() -> None:
    for rate, words in ((plateau(0.1), "watches the loss"), (plateau(0.1, "loss"), "'loss'")):
        with pytest.raises(ModelError, match=rf"{words} (.|\n)*monitor=False"):
            rate.after({}, 1.0)


def test_a_learning_rate_with_a_state_says_what_follows() -> None:
    class Half(Stateful):
        @property
        def monitors(self) -> tuple[str, ...]:
            return ()

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_a_plateau_of_a_schedule_falls_with_both() -> None:
    rate = plateau(step_decay(0.4, 2, 0.5), monitor=False, patience=0)
    trainer = Trainer(training(perceptron(), optimizer=sgd(rate)))
    assert set(rate.initial) <= set(trainer.state)
    trainer.set_params(rate.after(trainer.state, 1.0))
    trainer.set_params(rate.after(trainer.state, 2.0))
    step = compose(trainer.recipe)
    batch = data(8)
    gradients = evaluate(step.gradient, {**trainer.state, **batch})
    trainer.set_params({"step": np.asarray(2, np.int64)})
    before = trainer.params
    trainer.fit([batch], steps=1)
    moved = before["out.weight"] - trainer.params["out.weight"]
    np.testing.assert_allclose(moved, 0.1 * 0.4 * 0.5 * gradients["out.weight.grad"], 1e-3, 1e-7)


def test_a_metric_that_the_model_lacks_is_told() -> None:
    with pytest.raises(ModelError, match="watches 'los'"):
        training(perceptron(), optimizer=sgd(plateau(0.1, "los")))
    one, other = plateau(0.1, "loss"), plateau(0.2, "loss")
    updates = [minimize(optimizer={"hidden.*": sgd(one), "*": sgd(other)})]
    with pytest.raises(ModelError, match="two learning rates use the same state"):
        compose(training(perceptron(), updates=updates))
