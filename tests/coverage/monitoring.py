"""Rows: what watches a training, each a small program that fails where it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dsl
from nncompile import train
from nncompile.diagnostics.errors import TrainingError
from nncompile.program.recipe import Recipe
from tests.coverage.checks import System
from tests.coverage.nets import network
from tests.monitored import deep, labelled, measured
from tests.small_models import data

MONITOR = "Monitoring"


def _recipe(**options: Any) -> Recipe:
    return dsl.training(network(), **{"optimizer": dsl.sgd(0.1), "batch_size": 16, **options})


def _check_metrics() -> None:
    """A last batch that is smaller weighs less."""
    trainer, held_out = train.Trainer(_recipe()), data(37, 1)
    history = trainer.fit(data(50), epochs=2, validation_data=held_out)
    y = trainer.predict(held_out["x"])["y"]
    expected = np.square(y - held_out["target"]).mean()
    assert np.isclose(history.epochs[-1]["val_loss"], expected, rtol=1e-5)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def _check_norms() -> None:
    probe, batch = train.Probe(_recipe()), data(16)
    state = probe.compiled.source.initial()
    found = probe.measure(state, batch)
    hidden = np.tanh(batch["x"] @ state["hidden.weight"] + state["hidden.bias"])
    y = hidden @ state["out.weight"] + state["out.bias"]
    gradient = hidden.T @ (2 * (y - batch["target"]) / y.size)
    norm = np.linalg.norm(gradient)
    assert np.isclose(found.parameters["out.weight"].gradient, norm, rtol=1e-4)


def _check_dead_units() -> None:
    probe = train.Probe(deep(dsl.relu, dsl.he_normal, 1))
    state = probe.compiled.source.initial()
    state["layer0.bias"][:9] = -1000
    found = probe.measure(state, labelled())
    assert found.activations["layer0"].dead[:9].all()
    assert "9 of 16 units" in found.warnings()["dead layer0"]


def _check_vanishing() -> None:
    """Six layers of sigmoids are reported; of ReLU with He's initial weights, none."""
    told = measured(deep(dsl.sigmoid, dsl.glorot_uniform, 6), labelled()).warnings()
    assert any("vanish" in message for message in told.values()), told
    healthy = measured(deep(dsl.relu, dsl.he_normal, 6), labelled()).warnings()
    assert not any("vanish" in message for message in healthy.values()), healthy


def _check_locator() -> None:
    @dsl.model
    def net(x: Any = dsl.f32["batch", 4]) -> dict[str, Any]:
        rate = dsl.relu(x >> dsl.Dense(1))
        return {"loss": dsl.mean(rate - dsl.log(rate))}

    try:
        train.Trainer(dsl.training(net)).fit({"x": data()["x"]})
    except TrainingError as error:
        assert "log(a)" in str(error), error
        assert "monitoring.py" in str(error), error
    else:
        raise AssertionError("infinities are not noticed")


def _check_overfit() -> None:
    """A network learns one batch by heart; one whose hidden layer says nothing does not."""
    found = train.overfit_one_batch(_recipe(optimizer=dsl.adam(0.05)), data(4), steps=300)
    assert found.learns and found.losses["loss"][-1] < 1e-3, found
    blind = dsl.training(network(hidden=lambda h: 0 * h), optimizer=dsl.adam(0.05))
    assert train.overfit_one_batch(blind, data(4), steps=300).losses["loss"][-1] > 1e-2


def _check_finder() -> None:
    """The rate that is suggested learns; one of a thousandth of it learns less."""
    found = train.lr_find(_recipe(batch_size=64), data(64))
    assert found.suggestion is not None

    def after(rate: float) -> float:
        trainer = train.Trainer(_recipe(optimizer=dsl.sgd(rate), batch_size=64))
        return float(trainer.fit(data(64), epochs=20).last["loss"])

    rate = found.suggestion
    assert after(rate) < 0.8 * after(rate / 1000), rate


def _check_stopping() -> None:
    """The metric is best after the second epoch, and three later ones are waited for."""
    values, states = [3.0, 1.0, 2.0, 2.0, 2.0, 0.5], []

    def give(event: Any) -> None:
        if event.kind == "epoch":
            event.metrics["val_loss"] = values[event.epoch - 1]
            states.append(event.trainer.params)

    stopping = train.EarlyStopping("val_loss", patience=3)
    trainer = train.Trainer(_recipe())
    trainer.fit(data(32), epochs=6, callbacks=[give, stopping])
    assert (stopping.best_epoch, stopping.stopped_epoch) == (2, 5)
    for path, x in trainer.params.items():
        np.testing.assert_array_equal(x, states[1][path])


def _watched(name: str, run: Callable[[], None], agrees: str, test: str, **options: Any) -> System:
    return System(name, MONITOR, run=run, agrees=agrees, test=f"tests/test_{test}.py", **options)


ROWS = (
    _watched("training and validation metrics", _check_metrics, "sums over all examples", "train"),
    _watched("gradient norms by layer", _check_norms, "numpy", "monitoring"),
    _watched("dead units", _check_dead_units, "numpy", "monitoring_units"),
    _watched("vanishing and exploding gradients", _check_vanishing, "a deep net of each kind",
             "monitoring", example="examples/vanishing_gradients.py"),
    _watched("non-finite locator", _check_locator, "planted infinities", "monitoring_finite"),
    _watched("overfit-one-batch check", _check_overfit, "planted mistakes", "cli"),
    _watched("learning-rate finder", _check_finder, "a sweep by hand", "monitoring_rates"),
    _watched("early stopping, best weights restored", _check_stopping, "the best epoch",
             "early_stopping"),
)  # fmt: skip
