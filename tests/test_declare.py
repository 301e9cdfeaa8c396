"""`@model`: initial values, declarations and their errors, models within models."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    Dense,
    Residual,
    f32,
    i64,
    model,
    parameter,
    sgd,
    state,
    training,
    update,
)
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.program.initialization import initial_values
from nncompile.program.model_file import load
from nncompile.train import Trainer
from tests.layer_checks import first_value
from tests.trained_examples import EXAMPLES


def test_a_whole_model_file_with_a_formula_a_layer_and_a_recipe() -> None:
    declared = load(EXAMPLES / "digits.py")
    assert list(declared.model.parameters)[::2] == [
        "stem.weight",
        "a.dense.weight",
        "a.dense_1.weight",
        "b.dense.weight",
        "b.dense_1.weight",
        "head.weight",
    ]
    assert str(declared.model.outputs["probabilities"].type) == "f32[batch, 10]"
    random = np.random.default_rng(0)
    data = {
        "image": random.uniform(0, 16, (128, 1, 8, 8)).astype(np.float32),
        "label": random.integers(0, 10, 128),
    }
    trainer = Trainer(declared.recipe)
    losses = [epoch["loss"] for epoch in trainer.fit(data, epochs=30).epochs]
    assert losses[-1] < 0.5 * losses[0]


def test_states_follow_the_training() -> None:
    @model
    def net(x=f32["batch", 3]):
        mean = state("mean", 3)
        update(mean, 0.9 * mean + 0.1 * x.mean(0))
        return {"loss": ((x - mean) * parameter("w", 3, init=1.0)).mean()}

    trainer = Trainer(training(net, optimizer=sgd(0.1), batch_size=4))
    trainer.fit({"x": np.ones((8, 3), np.float32)}, epochs=1)
    np.testing.assert_allclose(trainer.state["mean"], np.full(3, 0.19), rtol=1e-6)


# Initial values


@pytest.mark.parametrize(
    ("init", "variance"),
    [
        (dsl.normal(0.1), 0.01),
        (dsl.uniform(-0.3, 0.3), 0.03),
        (dsl.truncated_normal(0.1), 0.01 * 0.8796256610342398**2),
        (dsl.glorot_uniform, 2 / 500),
        (dsl.glorot_normal, 2 / 500),
        (dsl.he_uniform, 2 / 200),
        (dsl.he_normal, 2 / 200),
        (dsl.lecun_uniform, 1 / 200),
        (dsl.lecun_normal, 1 / 200),
        (dsl.VarianceScaling(3, "out", "truncated"), 3 / 300),
    ],
)
def test_initializers_have_their_variance(init: Any, variance: float) -> None:
    weight = first_value(init, (200, 300)).astype(np.float64)
    assert abs(weight.mean()) < 4 * np.sqrt(variance / weight.size)
    np.testing.assert_allclose(weight.var(), variance, rtol=0.03)


def test_fans_count_taps_and_can_be_given() -> None:
    np.testing.assert_allclose(first_value(dsl.he_normal, (5, 5, 8, 400)).var(), 2 / 200, rtol=0.05)
    given = first_value(dsl.he_normal, (400, 8, 5, 5), fans=(200, 10_000))
    np.testing.assert_allclose(given.var(), 2 / 200, rtol=0.05)
    assert first_value(dsl.he_normal, ()).shape == ()
    assert first_value(dsl.glorot_uniform, (0, 3)).shape == (0, 3)


def test_numbers_arrays_and_functions_are_initial_values() -> None:
    np.testing.assert_array_equal(first_value(2, (3,)), [2, 2, 2])
    np.testing.assert_array_equal(first_value(np.eye(2), (2, 2)), np.eye(2))
    np.testing.assert_array_equal(first_value(dsl.constant(0.5), (2,)), [0.5, 0.5])
    doubled = first_value(lambda type_, key, fans: 2 * dsl.ones(type_, key, fans), (2,))
    np.testing.assert_array_equal(doubled, [2, 2])


def test_weights_depend_on_the_seed_and_the_path_alone() -> None:
    @model
    def net(x=f32["batch", 4]):
        return x >> Dense(4, name="a") >> Dense(4, name="b")

    @model
    def longer(x=f32["batch", 4]):
        return x >> Dense(4, name="new") >> Dense(4, name="a")

    drawn, again, other = (initial_values(net, seed) for seed in (1, 1, 2))
    for path in drawn:
        np.testing.assert_array_equal(drawn[path], again[path])
    assert (drawn["a.weight"] != drawn["b.weight"]).all()
    assert (drawn["a.weight"] != other["a.weight"]).all()
    np.testing.assert_array_equal(drawn["a.weight"], initial_values(longer, 1)["a.weight"])


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        (np.ones((3, 2)), ShapeError, r"shape \(3, 2\), the parameter is f32\[2, 3\]"),
        (lambda type_, key, fans: dsl.normal(0.1), ModelError, "returned function, not a value"),
        (lambda type_, key, fans: dsl.ones(f32[2], key, fans), ShapeError, r"returned f32\[2\]"),
    ],
)
def test_initial_values_that_do_not_fit(init: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        first_value(init, (2, 3))


def test_parameters_whose_size_only_the_data_tell_are_refused() -> None:
    with pytest.raises(ModelError, match=r"parameter w would be f32\[batch\]"):

        @model
        def net(x=f32["batch"]):
            return x * parameter("w", x.shape)


def test_one_parameter_has_one_initial_value() -> None:
    with pytest.raises(ModelError, match="two different initial values"):

        @model
        def net(x=f32["batch"]):
            return x * parameter("w", init=0.0) + parameter("w", init=1.0)


# Declarations


def test_inputs_outputs_and_documentation() -> None:
    @model(predict="sum")
    def net(x=f32["batch", 3], scale=f32[()]):
        """Scaled sums.

        Of every row.
        """
        return {"sum": (x * scale).sum(-1), "loss": scale * scale}

    assert list(net.inputs) == ["x", "scale"]
    assert net.predict == ("sum",)
    assert net.doc == "Scaled sums.\n\nOf every row."
    assert net.name == "net"
    assert net.graph.locations.location(net.outputs["sum"]).scope == "net"  # type: ignore[union-attr]


def test_by_default_outputs_without_labels_are_predicted() -> None:
    @model
    def net(x=f32["batch", 3], label=i64["batch"]):
        logits = x >> Dense(4)
        loss = dsl.cross_entropy(logits, label)
        return {"logits": logits, "class": dsl.argmax(logits, -1), "loss": loss}

    assert net.predict == ("logits", "class")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "the input 'x' of model .* has no type"),
        (lambda x=3: x, "the input 'x' of model .* is 3, not a type"),
        (lambda x=f32: x, "is f32, not a type"),
        (lambda *x: x, "takes its inputs by name"),
        (lambda x=f32[1], **more: x, "takes its inputs by name"),
        (lambda seed=f32[1]: seed, "cannot have an input called 'seed'"),
        (lambda x=f32[1]: None, "returns nothing"),
        (lambda x=f32[1]: (x, x), "returns tuple"),
        (lambda x=f32[1]: {"y": 3}, "output 'y' of model .* is int, not a value"),
        (lambda x=f32[1]: {3: x}, "3 is not a valid name for an output"),
        (lambda x=f32[1]: {}, "has no output"),
        (lambda x=f32[1]: {"x": x}, "output 'x' has the name of an input"),
        (lambda w=f32[1]: w * parameter("w", 1), "the input 'w' .* name of a parameter"),
        (lambda x=f32[1]: {"w": x * parameter("w", 1)}, "output 'w' has the name"),
        (lambda x=f32[1]: x * parameter("step", 1), "cannot have a parameter called 'step'"),
    ],
)
def test_declarations_that_are_wrong(function: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        model(function)
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


def test_a_mistake_is_reported_at_its_line_with_its_layers() -> None:
    with pytest.raises(ShapeError) as caught:

        @model
        def net(x=f32["batch", 784]):
            return x >> Residual(Dense(512), name="a")

    line = caught.value.location
    assert line is not None
    assert line.text == 'return x >> Residual(Dense(512), name="a")'
    assert line.scope == "net/a"
    assert re.search(r"f32\[batch, 784\]", str(caught.value))
    assert re.search(r"f32\[batch, 512\]", str(caught.value))


# Models within models


@model
def scaled(x=f32["batch", 2]):
    return x >> Dense(2, name="scaled")


def test_a_model_within_a_model_lends_its_parameters() -> None:
    @model
    def twice(x=f32["n", 2]):
        once = scaled(x=x)["output"]
        return scaled(x=once)["output"] >> Dense(1)

    paths = {"scaled.weight", "scaled.bias", "dense.weight", "dense.bias"}
    assert set(twice.parameters) == paths
    for path, value in scaled.initial.items():
        assert twice.initial[path] is value

    @model
    def deeper(x=f32["n", 2]):
        return twice(x=x)["output"] + scaled(x=x)["output"].sum(-1)[:, None]

    assert set(deeper.parameters) == set(twice.parameters)


def test_two_parameters_of_one_name_are_refused() -> None:
    @model
    def other(x=f32["batch", 2]):
        return x >> Dense(2, name="scaled")

    with pytest.raises(ModelError, match=r"scaled\.weight is a parameter of both scaled and"):

        @model
        def both(x=f32["n", 2]):
            return scaled(x=x)["output"] + other(x=x)["output"]

    with pytest.raises(ModelError, match="of both mixed and scaled"):

        @model
        def mixed(x=f32["n", 2]):
            return scaled(x=x)["output"] >> Dense(2, name="scaled")
