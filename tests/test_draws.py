"""Random numbers as values of a model: what is drawn, when it differs, and gradients through it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dropout,
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
    recompute,
    scan,
)
from nncompile.backends.onnx import to_model
from nncompile.compiler.compile import compile_model
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.passes import optimize
from nncompile.program.model import Model
from nncompile.runtime import Session


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


# Models within models.


@model(predict=("y",))
def masked(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
    return {"y": x * parameter("w", (50,), 1.0) >> Dropout(0.5)}


def at_ones(of: Model, seed: int = 0, step: int = 0, rows: int = 400) -> dict[str, Array]:
    """The outputs in training: of x = w = 1, the masks."""
    feeds = {"x": np.ones((rows, 50), np.float32), "w": np.ones(50, np.float32)}
    feeds |= {"seed": np.asarray(seed), "step": np.asarray(step)}
    return evaluate(of.graph, {n: x for n, x in feeds.items() if n in of.graph.leaves})  # type: ignore[return-value, call-overload]


def apart(found: dict[str, Array]) -> bool:
    """Whether no two of them are drawn alike, nor one like a part of another."""
    parts = [x.ravel() for x in found.values()]
    correlations = np.corrcoef(parts) - np.eye(len(parts))
    return bool(np.abs(correlations).max() < 5 / parts[0].size ** 0.5)


def test_every_application_of_a_model_draws_its_own() -> None:
    """Of equal inputs, too, with other parameters, beside draws of the model around it that are
    named alike, in layers, and with models within models."""

    class Twice(Layer):
        def __call__(self, x: Any) -> Any:
            return masked(x)["y"], masked(x)["y"]

    def made() -> Model:
        @model
        def inner(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
            return {"one": masked(x)["y"], "two": masked(x)["y"]}

        @model
        def outer(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
            first, second, twice = inner(x), inner(x), Twice()
            ones = {"w": 0 * masked.parameters["w"] + 1}
            found = [*first.values(), *second.values(), *twice(x), *twice(x), x >> Dropout(0.5)]
            found += [masked(x, params=ones)["y"], masked(x, params=ones)["y"], masked(x)["y"]]
            return {str(i): y for i, y in enumerate(found)}

        return outer

    found = at_ones(made())
    assert len(found) == 12 and apart(found)
    again = at_ones(made())
    for name, x in found.items():
        np.testing.assert_array_equal(x, again[name])
    for other in (at_ones(made(), seed=1), at_ones(made(), step=1)):
        assert apart({**found, **{f"{n} there": x for n, x in other.items()}})
    inference = made().inference()
    assert not {"seed", "step"} & inference.leaves.keys()
    feeds = {"x": np.ones((2, 50), np.float32), "w": np.arange(50, dtype=np.float32)}
    y = evaluate(inference, feeds)["0"]
    np.testing.assert_array_equal(y, np.tile(feeds["w"], (2, 1)))


def test_applications_with_one_seed_draw_the_same() -> None:
    @model
    def net(x=f32["batch", 50], seed_of_both=i64[()]):  # type: ignore[no-untyped-def]
        own = {"seed": seed_of_both}
        return {"a": masked(x, params=own)["y"], "b": masked(2 * x, params=own)["y"]}

    feeds = {"x": np.ones((4, 50), np.float32), "w": np.ones(50, np.float32)}
    found = evaluate(net.graph, {**feeds, "seed_of_both": np.asarray(7), "step": np.asarray(0)})
    np.testing.assert_array_equal(2 * found["a"], found["b"])
    assert np.ptp(found["a"]) == 2


def test_outside_of_a_model_applications_draw_what_the_model_does() -> None:
    x = masked.inputs["x"]
    assert masked(x)["y"] is masked.outputs["y"]
    assert masked(x, params={"seed": 3})["y"] is not masked.outputs["y"]


def test_an_application_in_a_loop_draws_anew_in_each_iteration() -> None:
    @model
    def net(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
        return {"y": scan(lambda c: (c, masked(x)["y"]), 0.0, length=3)[1]}

    masks = at_ones(net)["y"]
    assert apart(dict(zip("abc", masks, strict=True)))


@pytest.mark.parametrize("way", [lambda layer: layer, recompute])
def test_gradients_draw_what_the_outputs_do(way: Any) -> None:
    """Where a model is recomputed for the gradient, too: it is mask² by w at w = 1."""

    @model
    def net(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
        a, b = way(masked)(x)["y"], way(masked)(x)["y"]
        loss = (a * b).sum()
        return {"a": a, "b": b, "gradient": grad(loss, masked.parameters["w"])}

    found = at_ones(optimized(net))
    assert apart({n: found[n] for n in "ab"})
    np.testing.assert_array_equal(found["gradient"], 2 * (found["a"] * found["b"]).sum(0))
    session = Session(to_model(optimized(net).graph))
    feeds = {"x": np.ones((400, 50), np.float32), "w": np.ones(50, np.float32)}
    feeds |= {"seed": np.asarray(0), "step": np.asarray(0)}
    for name, x in session.run(feeds).items():
        np.testing.assert_array_equal(x, found[name], name)
    plain = masked_twice()
    np.testing.assert_array_equal(found["a"], plain["a"])
    np.testing.assert_array_equal(found["b"], plain["b"])


def masked_twice() -> dict[str, Array]:
    """The masks of two applications in a model without a gradient."""

    @model
    def net(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
        return {"a": masked(x)["y"], "b": masked(x)["y"]}

    return at_ones(net)


def optimized(of: Model) -> Model:
    return dataclasses.replace(of, graph=optimize(of.graph))


def test_the_gradient_passes_through_what_is_drawn() -> None:
    """Of m + s·ε by m it is 1, by s it is ε: the reparametrisation of Kingma and Welling."""

    @model
    def net(x=f32["batch", 50]):  # type: ignore[no-untyped-def]
        m, s = parameter("m", (), 3.0), parameter("s", (), 2.0)
        y = x + random_normal(x.shape, m, s)
        gradients = grad(y.sum(), {"m": m, "s": s})
        return {"y": y, "by_m": gradients["m"], "by_s": gradients["s"]}

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
    with pytest.raises(ModelError, match="random_normal is called outside of a model"):
        random_normal((3,))
