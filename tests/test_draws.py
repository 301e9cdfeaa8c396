"""Random numbers as values of a model: what is drawn, when it differs, and slopes through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import (
    Layer,
    f32,
    f64,
    grad,
    i64,
    model,
    parameter,
    random_integers,
    random_normal,
    random_uniform,
)
from nncompile.compiler import compile_model
from nncompile.errors import ModelError
from nncompile.model import Model
from nncompile.reference import evaluate
from nncompile.runtime import Session
from nncompile.types import Array


@model(predict=("normal", "uniform", "integers"))
def drawn(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
    return {
        "normal": x + random_normal(x.shape, 2.0, 0.5),
        "uniform": random_uniform(x.shape, -1, 3),
        "integers": random_integers(x.shape, 5, 9),
    }


def values(of: Model, seed: int = 0, step: int = 0, rows: int = 400) -> dict[str, Array]:
    feeds: dict[str, Any] = {"x": np.zeros((rows, 50), np.float32)}
    feeds |= {"seed": np.int64(seed), "step": np.int64(step)}
    return evaluate(of.graph, {n: x for n, x in feeds.items() if n in of.graph.leaves})  # type: ignore[return-value, call-overload]


def test_distributions() -> None:
    found = values(drawn)
    normal, uniform, integers = (found[name] for name in ("normal", "uniform", "integers"))
    assert normal.dtype == uniform.dtype == np.float32 and integers.dtype == np.int64
    # 20,000 numbers: four standard errors.
    assert abs(normal.mean() - 2) < 4 * 0.5 / 20_000**0.5
    assert abs(normal.std() - 0.5) < 4 * 0.5 / 40_000**0.5
    assert uniform.min() >= -1 and uniform.max() < 3
    assert abs(uniform.mean() - 1) < 4 * (16 / 12 / 20_000) ** 0.5
    np.testing.assert_allclose(np.bincount(integers.ravel())[5:] / 20_000, 0.25, atol=0.0125)
    assert integers.min() == 5 and integers.max() == 8


def test_draws_follow_the_seed_and_the_step_and_nothing_else() -> None:
    first = values(drawn)
    for name, x in values(drawn).items():
        np.testing.assert_array_equal(x, first[name])
    for other in (values(drawn, seed=1), values(drawn, step=1)):
        for name, x in other.items():
            assert (x != first[name]).mean() > 0.7, name


def test_every_call_draws_its_own() -> None:
    class Noise(Layer):
        def __call__(self, x: Any) -> Any:
            return random_normal(x.shape)

    @model
    def net(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
        noise = Noise()
        return {
            "a": random_normal(x.shape),
            "b": random_normal(x.shape),
            "c": noise(x),
            "d": noise(x),
        }

    parts = [x.ravel() for x in values(net).values()]
    correlations = np.corrcoef(parts) - np.eye(4)
    assert np.abs(correlations).max() < 5 / 20_000**0.5


def test_the_slope_passes_through_what_is_drawn() -> None:
    """Of m + s·ε by m it is 1, by s it is ε: the reparametrisation of Kingma and Welling."""

    @model
    def net(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
        m, s = parameter("m", (), 3.0), parameter("s", (), 2.0)
        y = x + random_normal(x.shape, m, s)
        slopes = grad(y.sum(), {"m": m, "s": s})
        return {"y": y, "by_m": slopes["m"], "by_s": slopes["s"]}

    feeds = {"x": np.zeros((4, 50), np.float32), "seed": np.int64(0), "step": np.int64(0)}
    feeds |= {"m": np.float32(3), "s": np.float32(2)}
    found = evaluate(net.graph, feeds)  # type: ignore[call-overload]
    assert found["by_m"] == 200
    np.testing.assert_allclose(found["by_s"], ((found["y"] - 3) / 2).sum(), rtol=1e-4)


def test_onnx_draws_the_same_at_any_size() -> None:
    session = Session(compile_model(drawn).model)
    for rows in (1, 7, 33):
        expected = values(drawn, 3, 5, rows)
        feeds = {"x": np.zeros((rows, 50), np.float32)}
        feeds |= {"seed": np.asarray(3), "step": np.asarray(5)}
        known = {port.name for port in session.inputs}
        found = session.run({n: x for n, x in feeds.items() if n in known})
        np.testing.assert_array_equal(found["integers"], expected["integers"])
        for name in ("normal", "uniform"):
            np.testing.assert_allclose(found[name], expected[name], 1e-5, 1e-6)


def test_double_precision_and_plain_sizes() -> None:
    @model
    def net(x=f32["batch", 50], n=i64[()]):  # type: ignore[no-untyped-def]
        return {"y": random_normal((3, 2), dtype=f64), "z": x + 1}

    assert net.outputs["y"].type == f64[3, 2]


def test_outside_a_model_there_is_no_seed() -> None:
    with pytest.raises(ModelError, match="random_normal outside a model"):
        random_normal((3,))
