"""Recipes, and the graphs of a training step."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import GradientError, ModelError
from nncompile.ir.basic import const
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.optim import adam, sgd
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, assign, minimize, training
from nncompile.program.updates import Following
from tests.leaves import leaf
from tests.small_models import averaging, data, perceptron
from tests.step_checks import followed, run


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda m: training(m, minimize="los"), "did you mean 'loss'"),
        (lambda m: training(m, minimize="y"), "a real scalar"),
        (lambda m: training(m, params="head.*"), "matches 'head"),
        (lambda m: training(m, updates=[]), "needs an update"),
        (lambda m: training(m, updates=[minimize()], clip_norm=1.0), "either"),
        (lambda m: training(m, batch_size=0), "batch_size must be"),
        (lambda m: training(m, clip_norm=0.0), "clip_norm must be positive"),
        (lambda m: training(m, optimizer={"out.*": sgd(0.1)}), "no optimizer for .*hidden"),
        (lambda m: training(m, updates=[assign("out", 1.0)]), "no parameter or state 'out'"),
        (lambda m: training(m, updates=[assign("out.weight", 1.0)]), "wrong type"),
        (
            lambda m: training(m, updates=[assign("hidden.bias", lambda v: v["y"].mean(axis=0))]),
            "wrong type",
        ),
    ],
)
def test_a_recipe_that_cannot_be_met_is_told(declare: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        declare(perceptron())


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_16_bits_without_a_product_are_told(name: str) -> None:
    with pytest.raises(ModelError, match=f"has no float32 matrix product .* in {name}"):
        training(averaging(), precision=name, emulate=True)


def test_a_loss_that_depends_on_no_matched_parameter_is_told() -> None:
    with pytest.raises(ModelError, match=r"'slow_loss' does not depend on any parameter"):
        training(averaging(), minimize="slow_loss")


def test_a_name_that_the_step_makes_is_told() -> None:
    w = leaf("w", f32[()], "parameter")
    m = leaf("w.m", f32["n"])
    model = Model("m", Graph("m", {"loss": (w * m).mean()}, (m,)), {"w": full((), 0.0)})
    with pytest.raises(ModelError, match=r"adds 'w\.m'"):
        compose(training(model, optimizer=adam()))


# Steps


def test_the_same_seed_gives_the_same_bits() -> None:
    step = compose(training(perceptron(), seed=5))
    one, again, other = step.initial(), step.initial(5), step.initial(6)
    assert one.keys() == step.state.keys()
    for path, x in one.items():
        np.testing.assert_array_equal(x, again[path])
        assert x.dtype == step.state[path].dtype.numpy
        assert x.shape == step.state[path].shape
    assert not np.array_equal(one["out.weight"], other["out.weight"])
    assert one["seed"] == 5


@pytest.mark.parametrize(
    "recipe",
    [
        training(perceptron(), optimizer=sgd(0.1)),
        training(perceptron(drop=0.5), optimizer=adam(), clip_norm=0.1),
        training(averaging()),
        training(
            perceptron(),
            updates=[
                minimize("loss", params="hidden.*", optimizer=adam(0.1)),
                minimize("loss", params=("out.*", "hidden.bias"), optimizer=sgd(0.1, 0.9)),
            ],
        ),
        training(
            averaging(),
            updates=[
                minimize(),
                assign("slow", lambda v: 0.5 * v["slow"] + 0.5 * v["w"]),
                assign("w", lambda v: v["w"] + 0.01 * v["x"].mean() * v["slow"]),
                assign("w", lambda v: 2 * v["w"]),
            ],
        ),
    ],
    ids=["sgd", "adam", "running", "two", "rules"],
)
def test_gradient_then_update_is_the_step(recipe: Recipe) -> None:
    """Bit for bit, in numpy: the same operations in the same order."""
    step = compose(recipe)
    state = step.initial(0)
    batch = data(6) if "target" in recipe.model.inputs else {"x": data(6)["x"][:, 0]}
    for _ in range(3):
        whole = run(step, state, batch)
        first = evaluate(step.gradient, {**state, **batch})
        second = evaluate(step.update, {**state, **first})
        assert set(first) & set(second) == set()
        for name, x in whole.items():
            np.testing.assert_array_equal({**first, **second}[name], x, err_msg=name)
        state = followed(step, state, whole)


def test_gradient_gives_gradients_and_metrics_and_update_needs_no_data() -> None:
    step = compose(training(perceptron(), optimizer=adam()))
    gradients = {f"{path}.grad" for path in step.parameters}
    assert set(step.gradient.outputs) == {"loss", "loss.batch_weight", "bias"} | gradients
    assert set(step.update.of_kind("input")) == gradients
    assert {f"{path}.next" for path in step.state if path != "seed"} == set(step.update.outputs)
    assert list(step.evaluate.outputs) == ["loss", "bias"]


def test_the_step_takes_the_whole_state_and_all_data() -> None:
    step = compose(training(perceptron(), params="out.*", optimizer=sgd(0.1)))
    assert set(step.step.leaves) == {*step.state, "x", "target"}
    assert step.state_map == {"step": "step.next", "out.weight": "out.weight.next"}


def test_later_updates_see_earlier_results() -> None:
    model = averaging()
    recipe = training(
        model,
        updates=[
            assign("w", 2.0),
            assign("slow", lambda v: 3 * v["w"]),
            minimize("loss", optimizer=sgd(0.5)),
        ],
    )
    step = compose(recipe)
    x = np.float32([1.0, 3.0])
    result = run(step, step.initial(0), {"x": x})
    assert result["slow.next"] == 6.0
    np.testing.assert_allclose(result["w.next"], 2 - 0.5 * np.mean(2 * (2 * x - 1) * x))
    # Metrics and running statistics are those of the start of the step.
    np.testing.assert_allclose(result["loss"], np.mean((0.5 * x - 1) ** 2))
    np.testing.assert_allclose(result["mean.next"], 0.1 * 2, rtol=1e-6)


def test_optimizers_by_pattern_see_one_gradient() -> None:
    together = compose(training(perceptron(), optimizer=sgd(0.1)))
    apart = compose(training(perceptron(), optimizer={"*.bias": sgd(0.0), "*": sgd(0.1)}))
    state = together.initial(0)
    one, other = run(together, state, data(5)), run(apart, state, data(5))
    np.testing.assert_array_equal(one["out.weight.next"], other["out.weight.next"])
    np.testing.assert_array_equal(other["hidden.bias.next"], state["hidden.bias"])


def test_two_players_train_by_turns() -> None:
    """A game as a list of updates: each player follows a loss of its own."""
    a, b = (leaf(name, f32[()], "parameter") for name in ("disc.a", "gen.b"))
    x = leaf("x", f32["n"])
    outputs: dict[str, Value] = {
        "d_loss": ((a - b) * (a - b) + 0 * x).mean(),
        "g_loss": ((a + b) * (a + b) + 0 * x).mean(),
    }
    start = {"disc.a": full((), 1.0), "gen.b": full((), 2.0)}
    model = Model("game", Graph("game", outputs, (x,)), start)
    recipe = training(
        model,
        updates=[
            minimize("d_loss", params="disc.*", optimizer=sgd(0.25)),
            minimize("g_loss", params="gen.*", optimizer=sgd(0.25)),
        ],
    )
    step = compose(recipe)
    result = run(step, step.initial(0), {"x": np.zeros(3, np.float32)})
    assert result["disc.a.next"] == 1 - 0.25 * 2 * (1 - 2)
    assert result["gen.b.next"] == 2 - 0.25 * 2 * (1.5 + 2)


def test_an_average_of_the_weights_starts_at_them() -> None:
    step = compose(training(averaging(), updates=[minimize(), assign("slow", 0.0)]))
    state = step.initial(0)
    assert state["slow"] == state["w"] == 0.5


def test_a_loss_that_passes_no_gradient_is_refused() -> None:
    w = Input("w", f32[3, 4], "parameter")()
    x = Input("x", f32["batch", 3])()
    loss = (x @ w).argmax(1).astype(f32).mean()
    graph = Graph("counted", {"loss": loss}, (x, w))
    model = Model("counted", graph, {"w": const(np.zeros((3, 4), np.float32))}, {}, ("loss",))
    with pytest.raises(GradientError, match="reaches no parameter") as caught:
        compose(training(model))
    assert caught.value.rows[0][:2] == ("argmax", "i64[batch]")


def test_what_type_checkers_know_of_the_options_is_all() -> None:
    own = {field.name: field.type for field in dataclasses.fields(minimize)}
    del own["loss"], own["optimizer"]
    assert Following.__annotations__.keys() == own.keys()
    known = inspect.signature(training).parameters
    assert {name: known[name].default for name in own} == {
        field.name: field.default for field in dataclasses.fields(minimize) if field.name in own
    }
    made = training(perceptron(), params="out.*", clip_norm=2, max_norm=3.0).updates[0]
    assert isinstance(made, minimize)
    assert (made.params, made.clip_norm, made.max_norm) == ("out.*", 2.0, 3.0)


@pytest.mark.parametrize("option", [{"params": "out.*"}, {"clip_norm": 1.0}, {"noise_decay": 1.0}])
def test_options_beside_a_list_of_updates_are_told(option: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="either an optimizer or a list of updates"):
        training(perceptron(), updates=minimize("loss"), **option)


@pytest.mark.parametrize("declare", [training, lambda _, **o: minimize(**o)])
def test_options_out_of_range_are_told(declare: Any) -> None:
    for option in ("clip_norm", "clip_value", "clip_each_norm", "noise", "max_norm"):
        with pytest.raises(ModelError, match=f"{option} must be positive, got 0"):
            declare(perceptron(), **{option: 0})
    with pytest.raises(ModelError, match="noise_decay must be a number"):
        declare(perceptron(), noise_decay="fast")
    with pytest.raises(ModelError, match="params must be one or more patterns of paths"):
        declare(perceptron(), params=3)
