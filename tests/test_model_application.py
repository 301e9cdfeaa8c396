"""Models as functions of their inputs and parameters, and what they predict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, FeedError, ModelError, ShapeError
from nncompile.elementwise import tanh
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, f64
from nncompile.ops.random.generator import seed_leaf
from nncompile.program.composition import compose
from nncompile.program.model import Model, applications
from nncompile.program.recipe import training
from tests.leaves import leaf
from tests.small_models import averaging, data, perceptron


def test_a_model_applied_to_other_inputs_shares_its_weights() -> None:
    model = perceptron()
    other = leaf("other", f32["2*n + 1", 4])
    outputs = model(x=other)
    assert list(outputs) == ["y"]
    assert str(outputs["y"].type) == "f32[2*n + 1, 2]"
    graph = Graph("applied", outputs)
    assert set(graph.leaves) == {"other", *model.parameters}
    assert graph.leaves["out.weight"] is model.parameters["out.weight"]
    weights = compose(training(model)).initial(0)
    x = data(7)["x"]
    np.testing.assert_array_equal(
        evaluate(outputs["y"], {**weights, "other": x}),
        evaluate(model.outputs["y"], {**weights, "x": x}),
    )


def test_a_model_applied_by_position_and_to_itself_is_the_same_graph() -> None:
    model = perceptron()
    outputs = model(*model.inputs.values())
    assert all(outputs[name] is value for name, value in model.outputs.items())


def test_a_model_applied_to_other_parameters() -> None:
    model = perceptron()
    doubled = 2 * model.parameters["out.weight"]
    y = model(x=model.inputs["x"], params={"out.weight": doubled})["y"]
    weights = compose(training(model)).initial(0)
    feeds = {**weights, **data(5)}
    np.testing.assert_allclose(
        evaluate(y, feeds), 2 * evaluate(model.outputs["y"], feeds), rtol=1e-6
    )


def test_an_application_with_a_seed_of_its_own_draws_other_numbers() -> None:
    model = perceptron(drop=0.5)
    x = model.inputs["x"]
    own = model(x=x, params={"seed": seed_leaf() + 1})["y"]
    feeds = {**compose(training(model)).initial(0), **data(6)}
    assert not np.array_equal(evaluate(own, feeds), evaluate(model.outputs["y"], feeds))


def test_an_inner_step_is_a_substitution() -> None:
    """As in MAML: the loss at w − η·dl/dw, differentiated through the step."""
    model = averaging()
    x, w = model.inputs["x"], model.parameters["w"]
    inner = w - 0.1 * grad(model.outputs["loss"], w)
    outer = model(x=x, params={"w": inner})["loss"]
    gradient = grad(outer, w)
    feeds = {"x": np.float32([1.0, 3.0]), "w": np.float32(0.5)}
    inner_gradient = np.mean(2 * (0.5 * feeds["x"] - 1) * feeds["x"])
    at = 0.5 - 0.1 * inner_gradient
    expected = np.mean(2 * (at * feeds["x"] - 1) * feeds["x"]) * (
        1 - 0.2 * np.mean(feeds["x"] ** 2)
    )
    np.testing.assert_allclose(evaluate(gradient, feeds), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m(y=m.inputs["x"]), FeedError, "no input 'y'"),
        (lambda m: m(m.inputs["x"], x=m.inputs["x"]), FeedError, "twice"),
        (lambda m: m(1, 2, 3), FeedError, "takes 2 inputs"),
        (lambda m: m(x=leaf("z", f64["n", 4])), DTypeError, "element type"),
        (lambda m: m(x=leaf("z", f32["n", 5])), ShapeError, "does not fit"),
        (lambda m: m(x=leaf("z", f32[4])), ShapeError, "rank"),
        (lambda m: m(params={"out.wieght": 1.0}), ModelError, "did you mean 'out.weight'"),
        (lambda m: m(params={"out.weight": 1.0}), ModelError, "wrong type"),
        (lambda m: m(x=m.inputs["x"])["loss"], ModelError, "needs 'target'"),
        (lambda m: m(x=m.inputs["x"])["lots"], ModelError, "no output"),
        (lambda m: m.inference(["z"]), ModelError, "no output 'z'"),
    ],
)
def test_a_wrong_call_is_told(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(perceptron())


def test_two_applications_in_one_model_chain_their_updates() -> None:
    model = averaging()
    with applications() as found:
        model(x=leaf("a", f32["n"]))
        model(x=leaf("b", f32["n"]))
    assert found.models == [model, model]
    feeds = {"a": np.float32([1, 3]), "b": np.float32([5, 5]), "mean": np.float32(1)}
    expected = 0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 5
    np.testing.assert_allclose(evaluate(found.updates["mean"], feeds), expected, rtol=1e-6)


def test_a_declaration_that_cannot_be_met_is_told() -> None:
    w, x = leaf("w", f32[2], "parameter"), leaf("x", f32["n", 2])
    graph = Graph("m", {"y": w * x}, (x,))
    with pytest.raises(ModelError, match="w of model m has no initial value"):
        Model("m", graph)
    with pytest.raises(ModelError, match="initial value of w has the wrong type"):
        Model("m", graph, {"w": full((3,), 0.0)})
    start = {"w": full((2,), 0.0)}
    with pytest.raises(ModelError, match="unknown state 'v'"):
        Model("m", graph, start, {"v": w})
    with pytest.raises(ModelError, match="no output 'z' to predict"):
        Model("m", graph, start, predict=("z",))
    with pytest.raises(ModelError, match="name of an input"):
        Model("m", Graph("m", {"x": tanh(x)}, (x,)))
    with pytest.raises(ModelError, match="no output"):
        Model("m", Graph("m", {}, (x,)))


@pytest.mark.parametrize(
    ("needs", "predicted"),
    [
        # The outputs with axes, and what each and the loss are computed from.
        ({"logits": "x", "best": "x", "loss": "xy"}, "logits best"),  # a classifier
        ({"p": "x", "errors": "xy", "loss": "xy"}, "p"),  # a regressor, with its errors
        ({"p": "x", "target": "y", "loss": "xy"}, "p target"),
        ({"code": "x", "copy": "x", "loss": "x"}, "code copy"),  # an autoencoder
        ({"clean": "x", "loss": "xy"}, "clean"),  # a denoising one
        ({"fake": "z", "real_score": "x", "loss": "xz"}, "fake real_score"),  # a GAN
        ({"features": "a", "p": "ab", "loss": "aby"}, "features p"),  # inputs that meet
        ({"weight": "", "p": "x", "loss": "x"}, "weight p"),
        ({"weight": "", "p": "x", "loss": "xy"}, "weight p"),
        ({"p": "x", "q": "xy"}, "p q"),  # no metric
        ({"loss": "xy"}, "loss"),  # nothing else
    ],
)
def test_what_is_predicted_by_default(needs: dict[str, str], predicted: str) -> None:
    leaves = {name: leaf(name, f32["n"]) for name in "abxyz"}
    outputs = {}
    for name, inputs in needs.items():
        value = sum((leaves[i] for i in inputs), full((3,), 1.0) if not inputs else 0.0)
        outputs[name] = value.sum() if name == "loss" else value + len(outputs)
    used = [leaves[i] for i in sorted(set("".join(needs.values())))]
    model = Model("m", Graph("m", outputs, tuple(used)))
    assert model.predict == tuple(predicted.split())


def test_the_inference_graph_has_what_predict_names_and_what_that_needs() -> None:
    graph = perceptron(drop=0.5).inference()
    assert list(graph.outputs) == ["y"]
    assert list(graph.leaves) == ["x", "hidden.weight", "hidden.bias", "out.weight"]
