"""Penalties on weights and bounds of them: values, gradients, and that they train as they
should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, Value, assign, f32, f64, minimize, model, sgd, training
from nncompile.diagnostics.errors import CompileError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.train import Trainer
from tests.gradient_checks import check_gradient, check_runtime
from tests.leaves import leaf

RANDOM = np.random.default_rng(0)
W, V = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=5)
ACTIVE = RANDOM.uniform(0.1, 0.9, size=(6, 3))
GRAM = W.T @ W - np.eye(3)
RATES = ACTIVE.mean(0)

VALUES: dict[str, tuple[Any, float]] = {
    "l1": (lambda: dsl.l1([W_, V_], 0.5), 0.5 * (abs(W).sum() + abs(V).sum())),
    "l2": (lambda: dsl.l2([W_, V_], 0.5), 0.5 * ((W**2).sum() + (V**2).sum())),
    "l2 of one": (lambda: dsl.l2(W_), (W**2).sum()),
    "orthogonality": (lambda: dsl.orthogonality(W_, 0.1), 0.1 * (GRAM**2).sum()),
    "orthogonality of rows": (lambda: dsl.orthogonality(W_.T, 0.1), 0.1 * (GRAM**2).sum()),
    "activity l1": (lambda: dsl.activity_l1(A_, 2), 2 * abs(ACTIVE).sum(1).mean()),
    "activity l2": (lambda: dsl.activity_l2(A_, 2), 2 * (ACTIVE**2).sum(1).mean()),
    "sparsity": (
        lambda: dsl.sparsity(A_, 0.1, 2.0),
        2 * (0.1 * np.log(0.1 / RATES) + 0.9 * np.log(0.9 / (1 - RATES))).sum(),
    ),
}
W_, V_, A_ = leaf("w", f64[4, 3]), leaf("v", f64[5]), leaf("a", f64["n", 3])


@pytest.mark.parametrize("name", VALUES)
def test_penalties(name: str) -> None:
    make, expected = VALUES[name]
    found = evaluate(make(), {"w": W, "v": V, "a": ACTIVE})
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", VALUES)
def test_their_gradients_are_differences(name: str) -> None:
    def value(w: Value, v: Value, a: Value) -> Value:
        whole = dsl.Model("penalty", Graph("penalty", {"y": VALUES[name][0]()}, (W_, V_, A_)))
        return whole(w=w, v=v, a=a)["y"]

    check_gradient(value, W, V, ACTIVE)


def test_activities_of_any_batch_in_onnxruntime() -> None:
    check_runtime(dsl.activity_l1, RANDOM.normal(size=(5, 2, 3)).astype(np.float32))
    check_runtime(dsl.activity_l2, RANDOM.normal(size=(1, 4)).astype(np.float32))
    check_runtime(dsl.sparsity, ACTIVE.astype(np.float32))


def test_units_that_are_never_active_have_finite_gradients() -> None:
    found = evaluate(dsl.grad(dsl.sparsity(A_), A_), {"a": np.zeros((4, 3))})
    assert np.isfinite(found).all()


@model
def lines(x: Value = f32["n", 3], y: Value = f32["n", 1]) -> Any:
    """Two layers, whose weights the penalties find by their names."""
    prediction = x >> Dense(4, name="one") >> Dense(1, name="two")
    return {
        "prediction": prediction,
        "loss": dsl.mse(prediction, y) + dsl.l2("one.*", 0.1) + dsl.l1(("*.weight",), 0.01),
        "first": dsl.l2("one.*"),
        "weights": dsl.l1(),
    }


def test_penalties_of_named_parameters() -> None:
    trainer = Trainer(training(lines))
    p = trainer.params
    data = {"x": np.ones((4, 3), np.float32), "y": np.ones((4, 1), np.float32)}
    found = trainer.evaluate(data)
    first = (p["one.weight"] ** 2).sum() + (p["one.bias"] ** 2).sum()
    weights = abs(p["one.weight"]).sum() + abs(p["two.weight"]).sum()
    assert found["first"] == pytest.approx(first, rel=1e-5)
    assert found["weights"] == pytest.approx(weights, rel=1e-5)
    error = ((trainer.predict(data)["prediction"] - 1) ** 2).mean()
    assert found["loss"] == pytest.approx(error + 0.1 * first + 0.01 * weights, rel=1e-5)


def test_max_norm_is_that_of_numpy() -> None:
    for axis in (0, 1, (0, 1), None):
        length = np.sqrt((W**2).sum(axis, keepdims=True))
        expected = W * np.minimum(1, 1.5 / length)
        found = evaluate(dsl.max_norm(W_, 1.5, axis), {"w": W})
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(
            evaluate(dsl.unit_norm(W_, axis), {"w": W}), W / length, rtol=1e-12
        )
    zeros = evaluate([dsl.max_norm(W_), dsl.unit_norm(W_)], {"w": np.zeros((4, 3))})
    np.testing.assert_array_equal(zeros, np.zeros((2, 4, 3)))
    short = evaluate(dsl.max_norm(W_, 100.0), {"w": W})
    np.testing.assert_array_equal(short, W)  # to the bit


def test_weights_stay_within_their_norm_in_training() -> None:
    bound = assign("one.weight", lambda v: dsl.max_norm(v["one.weight"], 0.3))
    updates = [minimize("loss", optimizer=sgd(0.02)), bound]
    trainer = Trainer(training(lines, updates=updates, batch_size=4))
    x = RANDOM.normal(size=(32, 3)).astype(np.float32)
    trainer.fit({"x": x, "y": 9 * x[:, :1]}, epochs=2)
    lengths = np.linalg.norm(trainer.params["one.weight"], axis=0)
    assert lengths.max() == pytest.approx(0.3, rel=1e-5)
    assert np.linalg.norm(trainer.params["two.weight"]) > 0.3


def penalized(penalty: Any) -> Any:
    @model
    def net(x: Value = f32["n", 3]) -> Any:
        return {"loss": dsl.mse(x >> Dense(2), 0.0) + penalty()}

    return net


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: penalized(lambda: dsl.l1("dence.*")), ModelError, r"matches 'dence\.\*'"),
        (lambda: penalized(lambda: dsl.l2([])), ModelError, "nothing to penalize"),
        (lambda: dsl.l2("*.weight"), ModelError, "outside of a model"),
        (lambda: dsl.orthogonality(V_), ShapeError, "orthogonality needs a matrix"),
        (lambda: dsl.sparsity(A_, 1.0), ModelError, "rate must be between 0 and 1"),
        (lambda: dsl.max_norm(W_, 0), ModelError, "limit must be positive"),
    ],
)
def test_what_regularizers_refuse(use: Any, error: type[CompileError], message: str) -> None:
    with pytest.raises(error, match=message):
        use()
