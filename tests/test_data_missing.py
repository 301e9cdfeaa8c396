"""Inputs whose numbers may be missing: NaN, which the model fills itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dsl import Dense, cross_entropy, f32, i64, isnan, model, where
from nncompile.diagnostics.errors import DTypeError, FeedError, TrainingError
from nncompile.optim import adam
from nncompile.program.model import Model
from nncompile.program.recipe import training
from nncompile.train import Trainer

MISSING = f32["batch", 4].may_be_nan()


def classifier(fills: bool) -> Model:
    @model
    def net(x: Any = MISSING, z: Any = f32["batch"], y: Any = i64["batch"]) -> Any:
        filled = where(isnan(x), 0.5, x) if fills else x
        logits = (filled + z[:, None]) >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, y)}

    return net


def table() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4)).astype(np.float32)
    x[::3, 1] = math.nan
    return {"x": x, "z": rng.normal(size=40).astype(np.float32), "y": np.arange(40) % 3}


def trainer(fills: bool = True) -> Trainer:
    return Trainer(training(classifier(fills), optimizer=adam(1e-2), batch_size=16))


def test_a_model_that_fills_them_trains_on_missing_numbers() -> None:
    ours, data = trainer(), table()
    ours.fit(data, epochs=2)
    filled = data | {"x": np.where(np.isnan(data["x"]), np.float32(0.5), data["x"])}
    assert ours.evaluate(data) == ours.evaluate(filled)
    predicted = ours.predict({"x": data["x"], "z": data["z"]})["logits"]
    assert np.isfinite(predicted).all() and len(predicted) == 40
    ours.fit([data], epochs=1)  # a list of batches, too


def test_other_inputs_must_not_miss_any() -> None:
    data = table()
    data["z"][7] = math.nan
    with pytest.raises(FeedError, match=r"'z' hold NaN: 1 of 40(.|\n)*z\[7\](.|\n)*may_be_nan"):
        trainer().fit(data)


def test_a_model_that_forgets_to_fill_them_is_told_where_they_come_from() -> None:
    with pytest.raises(TrainingError, match=r"loss is nan(.|\n)*input x"):
        trainer(fills=False).fit(table())


def test_only_floats_may_be_nan() -> None:
    with pytest.raises(DTypeError, match="only floats have"):
        i64["batch"].may_be_nan()
