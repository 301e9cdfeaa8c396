"""Layers: what they are, what they compute, and what they refuse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dsl import (
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    PReLU,
    Residual,
    Sequential,
    f32,
    f64,
    flatten,
    i64,
    model,
    ones,
    parameter,
    relu,
    state,
)
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.program.initialization import initial_values
from tests.layer_checks import outputs


def test_layers_are_frozen_data_with_identity() -> None:
    class Wide(Dense):
        factor: int = 2

    assert Dense(3) != Dense(3)
    assert repr(Wide(3, name="w")).startswith("Wide(out_features=3, activation=None")
    assert Wide(3, factor=4).factor == 4
    with pytest.raises(AttributeError):
        Dense(3).out_features = 4  # type: ignore[misc]


def test_a_layer_that_joins_several_has_the_options_of_all() -> None:
    class Front(Layer):
        size: int

    class Back(Layer):
        rate: float = 0.5

    class Both(Back, Front):
        def __call__(self, x: Any) -> Any:
            return x * self.size * self.rate

    assert repr(Both(2, 0.25)) == "Both(size=2, rate=0.25)"
    with pytest.raises(ModelError, match="Both: missing a required argument: 'size'"):
        Both()  # type: ignore[call-arg]


def test_a_subclass_may_call_its_base() -> None:
    class Twice(Dense):
        def __call__(self, x: Any) -> Any:
            return 2 * super().__call__(x)

    @model
    def net(x=f32["batch", 4]):
        return x >> Twice(3)

    assert list(net.parameters) == ["twice.weight", "twice.bias"]


@pytest.mark.parametrize(
    "use",
    [
        lambda: Dense(3)(np.ones((2, 2), np.float32)),
        lambda: parameter("w", 3),
        lambda: state("m", 3),
        lambda: Dropout(0.5)(np.ones(2, np.float32)),
    ],
)
def test_layers_outside_of_a_model_say_so(use: Any) -> None:
    with pytest.raises(ModelError, match="outside of a model") as caught:
        use()
    assert "@model" in str(caught.value.hint)


def test_a_layer_without_a_call_says_so() -> None:
    class Nothing(Layer):
        pass

    with pytest.raises(ModelError, match="Nothing has no __call__"):
        Nothing()(3)


@pytest.mark.parametrize("lead", [(), (5,), (2, 5), (2, 1, 5)])
def test_dense_works_on_the_last_axis_of_any_rank(lead: tuple[int, ...]) -> None:
    @model
    def net(x=f32[(*lead, 3)]):
        return x >> Dense(4, bias_init=ones)

    x = np.random.default_rng(0).normal(size=(*lead, 3)).astype(np.float32)
    weight = initial_values(net, 0)["dense.weight"]
    np.testing.assert_allclose(outputs(net, x=x)["output"], x @ weight + 1, atol=1e-6)


def test_dense_has_the_element_type_of_its_input() -> None:
    @model
    def net(x=f64["batch", 3]):
        return x >> Dense(4, bias=False)

    assert net.parameters["dense.weight"].type == f64[3, 4]
    assert net.outputs["output"].dtype is f64


@pytest.mark.parametrize(
    ("type_", "error", "message"),
    [
        (f32["batch", "width"], ShapeError, r"last axis of known size, x is f32\[batch, width\]"),
        (f32[()], ShapeError, "last axis of known size"),
        (i64["batch", 3], DTypeError, r"floating numbers, x is i64\[batch, 3\]"),
    ],
)
def test_what_dense_cannot_take(type_: Any, error: type[CompileError], message: str) -> None:
    with pytest.raises(error, match=message):

        @model
        def net(x=type_):
            return x >> Dense(4)


def test_dense_hints_at_what_makes_any_size_known() -> None:
    with pytest.raises(ShapeError) as caught:

        @model
        def net(x=f32["batch", 1, "height", "width"]):
            return x >> Flatten() >> Dense(4)

    assert "GlobalAveragePool()" in str(caught.value)


class Silent(Layer):
    factor = 1.0


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (lambda: Dense(4, bais=True), "Dense: got an unexpected .* 'bais'", "'bias'"),
        (
            lambda: Dense(),
            "Dense: missing a required argument: 'out_features'",
            "out_features, activation",
        ),
        (lambda: Flatten(1, 2), "Flatten: too many positional arguments", "start_dim, name"),
        (lambda: Sequential(Flatten(), nam="a"), "Sequential: got an unexpected", "'name'"),
        (lambda: Silent(factor=2), "Silent: factor is not an option", "factor: float = ..."),
        (lambda: Silent(other=2), "Silent: got an unexpected .* 'other'", "name"),
        (lambda: Conv2d(4, 3, strides=2), "Conv2d: got an unexpected .* 'strides'", "'stride'"),
    ],
)
def test_options_that_a_layer_does_not_have(make: Any, message: str, hint: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        make()
    assert hint in str(caught.value)


def test_sequential_residual_and_plain_functions() -> None:
    @model
    def net(x=f32["batch", 2, 3]):
        scaled = Sequential(lambda v: v / 2, Flatten(), Dense(6, init=np.eye(6)), name="scaled")
        return x >> scaled >> Residual(relu, lambda v: 3 * v)

    x = np.arange(-6, 6, dtype=np.float32).reshape(2, 2, 3)
    half = x.reshape(2, 6) / 2
    np.testing.assert_allclose(outputs(net, x=x)["output"], half + 3 * np.maximum(half, 0))
    assert list(net.parameters) == ["scaled.dense.weight", "scaled.dense.bias"]
    with pytest.raises(ModelError, match="one by one"):
        Sequential([Dense(3)])  # type: ignore[arg-type]


def test_flatten_keeps_symbolic_sizes() -> None:
    @model
    def net(x=f32["batch", "h", 2, 3]):
        return {"all": flatten(x), "tail": flatten(x, -2), "vector": flatten(x, 0)}

    assert [str(v.type) for v in net.outputs.values()] == [
        "f32[batch, 6*h]",
        "f32[batch, h, 6]",
        "f32[6*batch*h]",
    ]


def test_every_dropout_has_its_own_mask() -> None:
    drop = Dropout(0.5)

    @model
    def net(x=f32[1000]):
        return {"a": drop(x), "b": drop(x), "c": Dropout(0.5)(x)}

    found = outputs(net, x=np.ones(1000, np.float32))
    for a, b in itertools.combinations(found.values(), 2):
        assert 0.35 < np.mean(a == b) < 0.65
    for a in found.values():
        assert set(np.unique(a)) == {0.0, 2.0}


@pytest.mark.parametrize("p", [-0.1, 1.0, 2, float("nan")])
def test_rates_that_are_no_probability_are_refused(p: float) -> None:
    with pytest.raises(ModelError, match="p of Dropout"):
        Dropout(p)


def test_prelu_trains_one_slope_or_one_for_each_place_on_an_axis() -> None:
    @model
    def net(x=f32["batch", 2, "h", "w"], rows=f32["batch", "time", 3]):
        start = np.array([0.5, 2.0], np.float32)
        return {
            "one": x >> PReLU(init=0.5),
            "channels": x >> PReLU(axis=1, init=start),
            "features": rows >> PReLU(axis=-1),
        }

    for size in (1, 4):
        rng = np.random.default_rng(size)
        x, rows = rng.normal(size=(2, 2, size, 3)), rng.normal(size=(2, size, 3))
        x, rows = x.astype(np.float32), rows.astype(np.float32)
        found = outputs(net, x=x, rows=rows)
        gradients = np.array([0.5, 2.0], np.float32)[:, None, None]
        np.testing.assert_allclose(found["one"], np.where(x > 0, x, 0.5 * x))
        np.testing.assert_allclose(found["channels"], np.where(x > 0, x, gradients * x))
        np.testing.assert_allclose(found["features"], np.where(rows > 0, rows, 0.25 * rows))
    assert [v.shape for v in net.parameters.values()] == [(), (2,), (3,)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PReLU(8), "PReLU: too many positional(.|\n)*options are .*axis, init"),  # type: ignore[misc]
        (lambda: PReLU(num_parameters=8), "axis=1 has one slope for each channel"),  # type: ignore[call-arg]
        (lambda: PReLU(shared_axes=(2, 3)), "axis=1 has one slope for each channel"),  # type: ignore[call-arg]
        (lambda: PReLU(axis=1.5), "axis of PReLU must be a whole number"),  # type: ignore[arg-type]
    ],
)
def test_slopes_of_prelu_are_not_counted(make: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_slopes_of_prelu_are_along_a_known_axis() -> None:
    for layer in (PReLU(axis=1), PReLU(axis=3)):
        with pytest.raises(
            ShapeError, match=r"PReLU needs an axis . of known size, x is f32\[n, t"
        ):

            @model
            def net(x=f32["n", "t", 4]):
                return x >> layer  # noqa: B023
