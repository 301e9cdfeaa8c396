"""A frozen model within another one computes as after training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, f32, model, sgd
from nncompile import Graph, ModelError, Trainer, evaluate, training
from nncompile.program.initialization import initial_values


@model
def inner(x=f32["batch", 4]):
    return {"y": x >> Dense(4, name="first") >> BatchNorm(name="bn")}


@model
def outer(x=f32["batch", 4]):
    y = inner(x)["y"]
    z = y >> Dense(2, name="head")
    return {"z": z, "loss": (z**2).mean()}


def test_its_batch_normalization_is_by_its_statistics() -> None:
    recipe = training(outer, optimizer=sgd(0.1), freeze=("first.*", "bn.*"))
    values: dict[str, Any] = initial_values(outer, 0)
    values["bn.running_mean"] = np.array([1, 2, 3, 4], np.float32)
    feeds = {**values, "x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}
    loss = recipe.trained_model.outputs["loss"]
    found = evaluate(Graph("g", {"loss": loss}), feeds)["loss"]
    used = outer.inference(["loss"])
    np.testing.assert_allclose(found, evaluate(used, feeds)["loss"], rtol=1e-6)
    assert not np.allclose(found, evaluate(outer.graph, feeds)["loss"], rtol=1e-2)
    assert set(recipe.trained_model.updates) == set()


def test_one_that_is_not_frozen_goes_on() -> None:
    recipe = training(outer, optimizer=sgd(0.1), freeze="first.*")
    assert set(recipe.trained_model.updates) == {"bn.running_mean", "bn.running_var"}
    trainer = Trainer(recipe)
    before = trainer.state["bn.running_mean"].copy()
    data = {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}
    trainer.fit(data, epochs=1, batch_size=8, verbose=False)
    assert not np.allclose(before, trainer.state["bn.running_mean"])


def test_a_model_is_frozen_as_it_is() -> None:
    recipe = training(outer, optimizer=sgd(0.1), freeze=inner)
    assert set(recipe.freeze) == {*inner.parameters, *inner.states}
    trainer = Trainer(recipe)
    before = {path: x.copy() for path, x in trainer.state.items()}
    data = {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}
    trainer.fit(data, epochs=1, batch_size=8, verbose=False)
    changed = {p for p in before if not np.array_equal(before[p], trainer.state[p])}
    assert {p for p in changed if "." in p} == {"head.weight", "head.bias"}


@model
def lone(x=f32["batch", 4]):
    return {"y": x >> Dense(4, name="elsewhere")}


def test_a_model_that_is_not_called_cannot_be_frozen() -> None:
    with pytest.raises(ModelError, match="outer has no parameter of the model lone"):
        training(outer, optimizer=sgd(0.1), freeze=lone)
