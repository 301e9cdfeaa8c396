"""Early stopping: when it stops, and which weights it leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError
from nncompile.optim import adam
from nncompile.program.recipe import ema
from nncompile.train import EarlyStopping
from nncompile.train.directions import better
from tests.callback_checks import given
from tests.small_models import assert_same, data, trainer


def test_early_stopping_restores_the_best_epoch() -> None:
    ours, best = trainer(0.5, average=ema(0.9)), trainer(0.5, average=ema(0.9))
    values = [3.0, 2.0, 2.5, 2.0, 2.1, 1.0]
    stopping = EarlyStopping(patience=3)
    history = ours.fit(data(), epochs=6, callbacks=[given(values), stopping])
    assert (len(history), ours.epoch, ours.step) == (5, 5, 20)
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (2.0, 2, 5)
    best.fit(data(), epochs=2)
    expected = {**best.state, "step": np.asarray(20)}
    assert_same(ours.state, expected)
    assert_same(ours.averaged(), {**best.averaged(), "step": np.asarray(20)})


def test_early_stopping_can_leave_the_last_weights() -> None:
    ours, last = trainer(), trainer()
    ours.fit(
        data(),
        callbacks=[given([1, 2, 3]), EarlyStopping(patience=2, restore_best_weights=False)],
        epochs=9,
    )
    last.fit(data(), epochs=3)
    assert_same(ours.state, last.state)


def test_the_best_is_restored_where_the_epochs_end_first() -> None:
    ours, best = trainer(), trainer()
    stopping = EarlyStopping(patience=5)
    ours.fit(data(), epochs=3, callbacks=[given([2, 1, 3]), stopping])
    best.fit(data(), epochs=2)
    assert_same(ours.params, best.params)
    assert stopping.stopped_epoch is None


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([1.0, 0.95, 0.91, 0.91], {"patience": 2, "min_delta": 0.1}, 3),
        ([1.0, 0.8, 0.6, 0.4], {"patience": 2, "min_delta": 0.1}, 4),
        ([0.5, 0.6, 0.7, 0.7], {"patience": 1, "mode": "max"}, 4),
        ([0.5, 0.6, 0.7, 0.7], {"patience": 1}, 2),
        ([math.nan, math.nan, 1.0, 0.5], {"patience": 3}, 4),
        ([math.nan, math.nan, 1.0, 0.5], {"patience": 2}, 2),
    ],
)
def test_when_early_stopping_stops(
    values: list[float], options: dict[str, Any], epochs: int
) -> None:
    ours = trainer()
    ours.fit(data(), epochs=4, callbacks=[given(values), EarlyStopping(**options)])
    assert ours.epoch == epochs


def test_early_stopping_begins_anew_with_every_fit() -> None:
    ours, stopping = trainer(), EarlyStopping(patience=1)
    ours.fit(data(), epochs=5, callbacks=[given([1, 2, 2, 2, 9]), stopping])
    assert (ours.epoch, stopping.stopped_epoch) == (2, 2)
    values = given([0, 0, 9, 8, 8])
    ours.fit(data(), epochs=3, callbacks=[values, stopping])
    assert (ours.epoch, stopping.best, stopping.best_epoch) == (5, 8, 4)


def test_early_stopping_on_held_out_data_keeps_what_was_best() -> None:
    """No values are put in here: the state is that which had the lowest loss on held-out data."""
    ours = trainer(optimizer=adam(0.05))
    held = data(24, seed=7)
    history = ours.fit(
        data(24), epochs=200, validation_data=held, callbacks=EarlyStopping("val_loss", patience=10)
    )
    assert len(history) < 200
    assert ours.evaluate(held)["loss"] == min(history["val_loss"])


def test_which_metrics_are_better_the_larger_they_are() -> None:
    larger = ["accuracy", "val_accuracy", "top_5_accuracy", "f1", "val_roc_auc", "r2", "mean.iou"]
    assert {better(name) for name in larger} == {"max"}
    assert {better(n) for n in ["loss", "val_loss", "perplexity", "face", "error"]} == {"min"}


def test_a_metric_that_is_not_there_is_told() -> None:
    with pytest.raises(
        ModelError, match=r"no metric 'val_loss' to watch(.|\n)*validation_data=data"
    ):
        trainer().fit(data(), callbacks=EarlyStopping())
    with pytest.raises(ModelError, match=r"no metric 'los'(.|\n)*did you mean 'loss'"):
        trainer().fit(data(), callbacks=EarlyStopping("los"))
    with pytest.raises(ModelError, match="patience must be at least 1, got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ModelError, match="min_delta must not be negative"):
        EarlyStopping(min_delta=-1)
    with pytest.raises(ModelError, match='mode must be "min" or "max", got \'most\''):
        EarlyStopping(mode="most")  # type: ignore[arg-type]
