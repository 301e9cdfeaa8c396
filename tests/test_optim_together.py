"""L-BFGS, which moves all parameters as one vector, and other optimizers, in whole recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import bf16, f16
from nncompile.optim import Optimizer, adafactor, adamax, asgd, lbfgs, plateau, rprop, sgd
from nncompile.program.composition import compose
from nncompile.program.recipe import training
from nncompile.train import Trainer
from tests.backends import session, valid_model
from tests.small_models import data, perceptron

NEW = {
    "adafactor": adafactor(0.05),
    "adamax": adamax(0.01),
    "asgd": asgd(0.1, t0=2),
    "dampening": sgd(0.1, 0.9, dampening=0.5),
    "lbfgs": lbfgs(0.3, history_size=3),
    "rprop": rprop(),
}


def bowl() -> Any:
    """(x − 1)ᵀ·A·(x − 1)/2 of steep and flat directions, in two parameters."""

    @dsl.model
    def net(scale=f64["batch"]):  # type: ignore[no-untyped-def]
        a = dsl.parameter("a", 3, 0.0, dtype=f64)
        b = dsl.parameter("b", (1, 2), 0.0, dtype=f64)
        x = dsl.concatenate([a, dsl.ravel(b)])
        loss = (np.array([1.0, 30.0, 5.0, 0.2, 12.0]) * (x - 1) ** 2).sum() / 2
        return {"loss": loss + 0 * dsl.mean(scale)}

    return net


def test_a_quadratic_is_solved_in_few_steps() -> None:
    """Of five dimensions and condition 150: gradient descent is far away yet."""
    found = {}
    for name, optimizer in {"lbfgs": lbfgs(), "sgd": sgd(0.06)}.items():
        step = compose(training(bowl(), optimizer=optimizer))
        state = step.initial(0)
        for _ in range(30):
            result = evaluate(step.step, {**state, "scale": np.ones(2)})
            state |= {path: result[following] for path, following in step.state_map.items()}
        found[name] = max(abs(state[p] - 1).max() for p in ("a", "b"))
    assert found["lbfgs"] < 1e-5
    assert found["sgd"] > 0.1


def test_a_gradient_that_is_no_number_is_seen() -> None:
    step = compose(training(bowl(), optimizer=lbfgs()))
    state = step.initial(0)
    state["b"] = np.array([[np.nan, 1.0]])
    result = evaluate(step.step, {**state, "scale": np.ones(2)})
    assert np.isnan(result["a.next"]).all()


def test_nothing_moves_below_the_least_gradient() -> None:
    step = compose(training(bowl(), optimizer=lbfgs(tolerance_grad=40.0)))
    state = step.initial(0)
    result = evaluate(step.step, {**state, "scale": np.ones(2)})
    for path in step.state_map.keys() - {"step"}:
        np.testing.assert_array_equal(result[f"{path}.next"], state[path], path)


@pytest.mark.parametrize("name", NEW)
def test_checkpoints_hold_all_that_there_is(name: str, tmp_path: Path) -> None:
    """Bit by bit, from the middle of an epoch."""
    recipe = training(perceptron(), optimizer=NEW[name], batch_size=16)
    whole, first, second = (Trainer(recipe) for _ in range(3))
    rows = data(64, 0)
    whole.fit(rows, epochs=2)
    first.fit(rows, steps=3)
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    second.fit(rows, steps=5)
    for path, x in whole.state.items():
        np.testing.assert_array_equal(second.state[path], x, path)


@pytest.mark.parametrize("name", NEW)
def test_groups_frozen_layers_and_bounds(name: str) -> None:
    """One optimizer of several, of some parameters, with a clip, a bound and its way up."""
    rule: Optimizer = NEW[name]
    recipe = training(
        perceptron(),
        optimizer={"*.bias": sgd(0.1), "*": rule},
        freeze="out.*",
        clip_norm=1.0,
        max_norm=0.5,
        batch_size=16,
    )
    trainer = Trainer(recipe)
    start = trainer.params
    trainer.fit(data(64, 0), epochs=2)
    end = trainer.params
    np.testing.assert_array_equal(end["out.weight"], start["out.weight"])
    assert not np.array_equal(end["hidden.bias"], start["hidden.bias"])
    assert (np.linalg.norm(end["hidden.weight"], axis=0) <= 0.5 + 1e-6).all()


def test_two_groups_are_two_vectors_and_equal_ones_are_one() -> None:
    def states(first: Optimizer, second: Optimizer) -> dict[str, Any]:
        step = compose(training(bowl(), optimizer={"a": first, "b": second}))
        return {p: t.shape for p, t in step.state.items() if p.startswith("training.")}

    one = states(lbfgs(), lbfgs())
    assert one["training.lbfgs.s"] == (10, 5)
    assert "training.lbfgs.s.2" not in one
    two = states(lbfgs(), lbfgs(0.5))
    assert (two["training.lbfgs.s"], two["training.lbfgs.s.2"]) == ((10, 3), (10, 2))


def test_a_rate_that_watches_the_loss() -> None:
    recipe = training(
        bowl(), optimizer=lbfgs(plateau(0.5, patience=0, threshold=10.0)), batch_size=2
    )
    trainer = Trainer(recipe)
    trainer.fit({"scale": np.ones(8)}, epochs=1)
    assert trainer.state["training.plateau.factor"] < 1


def test_numbers_of_several_types_and_none() -> None:
    @dsl.model
    def net(x=f32["batch", 2]):  # type: ignore[no-untyped-def]
        a = dsl.parameter("a", (), 0.5)
        b = dsl.parameter("b", 2, 0.5, dtype=f64)
        empty = dsl.parameter("empty", (0, 2))
        y = dsl.cast(a * x, f64) + b + dsl.sum(dsl.cast(empty, f64))
        return {"loss": ((y - 2.0) ** 2).mean()}

    trainer = Trainer(training(net, optimizer=lbfgs(), batch_size=4))
    x = np.float32([[1, 2], [3, 4], [0, 1], [2, 2]])
    before = trainer.evaluate({"x": x})["loss"]
    trainer.fit([{"x": x}] * 10, epochs=1)
    assert trainer.evaluate({"x": x})["loss"] < before / 1e6
    assert trainer.params["a"].dtype == np.float32
    assert trainer.params["b"].dtype == np.float64


@pytest.mark.parametrize("name", NEW)
def test_parameters_of_no_numbers_and_of_one(name: str) -> None:
    """Nothing of theirs becomes infinite or no number."""

    @dsl.model
    def net(x=f32["batch", 2]):  # type: ignore[no-untyped-def]
        y = dsl.parameter("one", (), 0.5) * x + dsl.sum(dsl.parameter("row", (1, 1), 0.5))
        for shape in ((0,), (0, 2), (2, 0)):
            y = y + dsl.sum(dsl.parameter(f"none{shape[0]}{len(shape)}", shape))
        return {"loss": ((y - 2.0) ** 2).mean()}

    trainer = Trainer(training(net, optimizer=NEW[name], batch_size=4))
    trainer.fit([{"x": np.float32([[1, 2], [3, 4], [0, 1], [2, 2]])}] * 3, epochs=1)
    assert trainer.params["one"] != np.float32(0.5)
    assert trainer.params["row"] != np.float32(0.5)
    for path, x in trainer.state.items():
        assert np.isfinite(x).all(), path


@pytest.mark.parametrize("name", NEW)
def test_a_gradient_of_nan_or_infinity_is_seen(name: str) -> None:
    """In numpy and onnxruntime alike. (torch's Rprop takes the sign of NaN for 0, its Adafactor the
    size of NaN for 1.)"""
    step = compose(training(perceptron(f64), optimizer=NEW[name]))
    run = session(valid_model(step.update))
    state = step.initial(0)
    gradients = {n: np.ones(v.shape) for n, v in step.update.of_kind("input").items()}
    gradients["hidden.bias.grad"] = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, 1e30, 1])
    for _ in range(2):
        feeds = {n: x for n, x in {**state, **gradients}.items() if n in step.update.leaves}
        with np.errstate(all="ignore"):
            expected = evaluate(step.update, feeds)
        found = run(feeds, expected)
        for path, x in expected.items():
            np.testing.assert_allclose(found[path], x, 1e-9, 1e-12, err_msg=path)
        state |= {n.removesuffix(".next"): x for n, x in expected.items()}
    assert np.isnan(state["hidden.bias"][0])


@pytest.mark.parametrize("dtype", [f16, bf16], ids=str)
@pytest.mark.parametrize("name", NEW)
def test_floats_of_16_bits_are_trained(name: str, dtype: Any) -> None:
    @dsl.model
    def net(x=dtype["batch", 4]):  # type: ignore[no-untyped-def]
        y = x >> dsl.Dense(3)
        return {"loss": ((y - 1) ** 2).mean()}

    trainer = Trainer(training(net, optimizer=NEW[name], batch_size=8))
    data = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(dtype.numpy)}
    before = trainer.evaluate(data)["loss"]
    trainer.fit([data] * 20, epochs=1)
    assert trainer.evaluate(data)["loss"] < 0.9 * before
    assert all(x.dtype == dtype.numpy for x in trainer.params.values())


def test_the_average_of_asgd_is_predicted_with() -> None:
    trainer = Trainer(training(perceptron(), optimizer=asgd(0.3, t0=0), batch_size=16))
    seen = []
    for i in range(4):
        trainer.fit([data(16, i)], epochs=1)
        seen.append(trainer.params["out.weight"])
    averaged = trainer.averaged("ax")["out.weight"]
    # The shares are 1, 1, 1/2, 1/3: a mean of all but the first.
    np.testing.assert_allclose(averaged, np.mean(seen[1:], 0), rtol=1e-6)
