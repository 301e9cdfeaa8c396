"""Initializers beside those of fixed variance: orthogonal, identity; and depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    Dense,
    Embedding,
    f32,
    f64,
    glorot_uniform,
    he_normal,
    i64,
    model,
    normal,
    ones,
    parameter,
    relu,
    selu,
    tanh,
    truncated_normal,
    uniform,
    zeros,
)
from dsl.initializers import VarianceScaling
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops.random.generator import random_key, seed_leaf
from nncompile.program.initialization import initial_values
from tests.layer_checks import first_value


@pytest.mark.parametrize("shape", [(40, 40), (16, 48), (48, 16), (1, 7), (8, 3, 5, 5)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    for gain in (1.0, 2.5):
        for dtype, near in ((f32, 2e-6), (f64, 1e-10)):
            w = first_value(dsl.orthogonal(gain), shape, dtype=dtype).astype(np.float64)
            flat = w.reshape(shape[0], -1) / gain
            gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=near)


def test_what_is_asked_once_is_what_each_is_given() -> None:
    """The nodes are those that the initializer gives for the key of each."""

    def drawn(type_: Type, key: Value, fans: Any) -> Value:
        return uniform(0.0, 2.0)(type_, key, fans)

    @model
    def net(x=f32["batch", 8]):
        y = x >> Dense(8, tanh, name="one") >> Dense(8, name="two")
        for name, init, fans in (
            ("wide", glorot_uniform, (8, 800)),
            ("drawn", drawn, None),
            ("again", drawn, None),
        ):
            y = y @ parameter(name, (8, 8), init, fans=fans)
        return {"y": y}

    inits = dict.fromkeys(("one.weight", "two.weight", "wide"), glorot_uniform)
    for path, init in {**inits, "drawn": drawn, "again": drawn}.items():
        fans = (8, 800) if path == "wide" else (8, 8)
        expected = init(f32[8, 8], random_key(path, seed_leaf()), fans)
        assert net.initial[path] is expected, path
    assert net.initial["one.bias"] is net.initial["two.bias"]


def test_each_start_is_reported_where_its_layer_is_called() -> None:
    @model
    def net(x=f32["batch", 31]):
        y = x >> Dense(31, name="one")
        return {"y": y >> Dense(31, name="two")}

    found = [net.graph.locations.location(net.initial[f"{n}.weight"]) for n in ("one", "two")]
    one, two = (location.line for location in found if location)
    assert two == one + 1


def test_orthogonal_matrices_are_spread_evenly_and_seeded() -> None:
    """The first entries of even (Haar) orthogonal matrices have mean 0 and variance 1/n."""
    drawn = np.array([first_value(dsl.orthogonal(), (6, 6), seed) for seed in range(60)])
    assert abs(drawn.mean()) < 4 * (1 / 6 / drawn.size) ** 0.5
    assert drawn[:, 0, 0].var() == pytest.approx(1 / 6, rel=0.4)
    signs = np.linalg.det(drawn.astype(np.float64)) > 0
    assert 15 < signs.sum() < 45
    again = first_value(dsl.orthogonal(), (6, 6), 3)
    np.testing.assert_array_equal(again, drawn[3])
    assert not np.allclose(drawn[3], drawn[4])


def test_identity() -> None:
    np.testing.assert_array_equal(first_value(dsl.identity_matrix(2.0), (2, 3)), 2 * np.eye(2, 3))


def test_other_names() -> None:
    assert dsl.xavier_uniform is dsl.glorot_uniform
    assert dsl.xavier_normal is dsl.glorot_normal
    assert dsl.kaiming_uniform is dsl.he_uniform
    assert dsl.kaiming_normal is dsl.he_normal


def test_axes_that_do_not_fit_are_told() -> None:
    with pytest.raises(ShapeError, match="at least two axes"):
        first_value(dsl.orthogonal(), (3,))
    with pytest.raises(ShapeError, match="needs two axes"):
        first_value(dsl.identity_matrix(), (3, 3, 3))


def spread(init: Any, activation: Any, layers: int = 50) -> Any:
    """The standard deviation after each of 50 layers of 128 units, of 64 normal examples."""

    @model
    def net(x=f32["batch", 128]):
        found = {}
        for i in range(layers):
            x = x >> Dense(128, activation, init=init, name=f"layer{i}")
            found[f"{i}"] = x
        return found

    x = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    values = evaluate(net.graph, {**initial_values(net, 0), "x": x})
    return np.array([values[f"{i}"].std(dtype=np.float64) for i in range(layers)])


@pytest.mark.parametrize(
    ("init", "activation"),
    [
        (dsl.he_normal, relu),
        (dsl.he_uniform, relu),
        (dsl.glorot_uniform, None),
        (dsl.glorot_normal, None),
        (dsl.lecun_normal, selu),
        (dsl.lecun_uniform, selu),
        (dsl.orthogonal(), None),
        (dsl.orthogonal(2**0.5), relu),
        (dsl.orthogonal(5 / 3), tanh),
    ],
)
def test_fifty_layers_keep_what_flows_in_range(init: Any, activation: Any) -> None:
    found = spread(init, activation)
    assert found.min() > 0.05, found
    assert found.max() < 20, found


@pytest.mark.parametrize(
    ("init", "activation"), [(dsl.normal(0.01), relu), (dsl.normal(0.3), relu)]
)
def test_fifty_layers_of_another_variance_vanish_or_explode(init: Any, activation: Any) -> None:
    last = spread(init, activation)[-1]
    assert last < 1e-6 or last > 1e6


def test_none_is_the_default_of_the_layer() -> None:
    @model
    def given(x: Any = f32["batch", 4], place: Any = i64["batch"]) -> dict[str, Any]:
        return {
            "y": x >> Dense(3, None, True, None, None),
            "e": place >> Embedding(9, 2, init=None),
        }

    @model
    def plain(x: Any = f32["batch", 4], place: Any = i64["batch"]) -> dict[str, Any]:
        return {"y": x >> Dense(3), "e": place >> Embedding(9, 2)}

    expected = initial_values(plain, 5)
    assert expected.keys() == {"dense.weight", "dense.bias", "embedding.weight"}
    for path, x in initial_values(given, 5).items():
        np.testing.assert_array_equal(x, expected[path], err_msg=path)


@pytest.mark.parametrize("init", [he_normal, glorot_uniform, zeros, ones])
def test_initializers_without_numbers_may_be_called_as_those_with(init: Any) -> None:
    assert init() is init
    with pytest.raises(ModelError, match=r"is an initializer, which takes no options(.|\n)*init="):
        init(seed=3)
    with pytest.raises(
        ModelError, match=r"takes no options(.|\n)*full\(shape, number\) is a tensor"
    ):
        init((3, 4))


@pytest.mark.parametrize("init", [None, "he_normal", True, {}, object(), [None], 1j])
def test_what_starts_nothing_is_refused(init: Any) -> None:
    with pytest.raises(ModelError, match=r"a number, an array or an initializer, got(.|\n)*init="):

        @model
        def net(x: Any = f32["batch", 4]) -> Value:
            return x * parameter("w", (4,), init)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: normal(-0.1), "std must not be negative"),
        (lambda: normal("he"), "std must be a number"),
        (lambda: truncated_normal(-0.1), "std must not be negative"),
        (lambda: uniform(0.1, -0.1), r"must be below high, got 0\.1 and -0\.1"),
        (lambda: uniform(0.1, 0.1), r"must be below high, got 0\.1 and 0\.1"),
        (lambda: normal(stddev=0.1), "called 'std' here"),
        (lambda: uniform(minval=0.1), "called 'low' here"),
    ],
)
def test_figures_of_initializers_are_checked(make: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make()


@pytest.mark.parametrize(("fan", "count"), [("in", 400), ("out", 25), ("average", 212.5)])
def test_the_variance_is_that_of_the_fan(fan: Any, count: float) -> None:
    """Dense weights [400, 25]: 400 numbers enter into an output, and each goes on to 25."""
    weight = first_value(VarianceScaling(2.0, fan, "normal"), (400, 25))
    np.testing.assert_allclose(weight.var(), 2 / count, rtol=0.06)  # four standard deviations
