"""A frozen model within another one computes as after training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dsl import BatchNorm, Dense, Dropout, f32, model, sgd
from nncompile import Graph, ModelError, Trainer, evaluate, load_onnx, training
from nncompile.program.initialization import initial_values
from tests.onnx_files import FLOAT, weight, written


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


@model
def dropping(x=f32["batch", 4]):
    return {"y": x >> Dense(4, name="first") >> Dropout(0.5, name="drop")}


@model
def twice(x=f32["batch", 4]):
    y = dropping(x)["y"] >> Dropout(0.25, name="own")
    z = y >> Dense(2, name="head")
    return {"z": z, "loss": (z**2).mean()}


def test_the_dropout_of_a_frozen_model_is_off() -> None:
    """And that of the model which calls it drops."""

    def rates(recipe: Any) -> set[float]:
        nodes = recipe.trained_model.graph.nodes
        return {v.op.rate for v in nodes if type(v.op).__name__ == "Dropout"}

    assert rates(training(twice, optimizer=sgd(0.1))) == {0.5, 0.25}
    assert rates(training(twice, optimizer=sgd(0.1), freeze="first.*")) == {0.5, 0.25}
    assert rates(training(twice, optimizer=sgd(0.1), freeze=dropping)) == {0.25}
    assert rates(training(twice, optimizer=sgd(0.1), freeze=("first.*", "own"))) == {0.5}


def test_the_dropout_of_a_frozen_file_is_off(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "blocks.0.w"], ["a"], name="/blocks.0/MatMul"),
        helper.make_node("Dropout", ["a", "rate", "yes"], ["y"], name="/blocks.0/drop/Dropout"),
    ]
    tensors = {"blocks.0.w": weight(4, 4), "rate": np.float32(0.5), "yes": np.array(True)}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], tensors)
    base = load_onnx(file)

    @model
    def net(x=f32["n", 4]):
        z = base(x)["y"] >> Dense(2, name="head")
        return {"z": z, "loss": (z**2).mean()}

    for freeze in (base, "blocks.*"):
        recipe = training(net, optimizer=sgd(0.1), freeze=freeze)
        assert not any(type(v.op).__name__ == "Dropout" for v in recipe.trained_model.graph.nodes)
    recipe = training(net, optimizer=sgd(0.1))
    assert any(type(v.op).__name__ == "Dropout" for v in recipe.trained_model.graph.nodes)
