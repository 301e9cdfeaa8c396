"""The language that models are written in: names, sharing, layers and state."""

from __future__ import annotations

import builtins
import itertools
from typing import Any

import numpy as np
import pytest

import dsl
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
    update,
    zeros,
)
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model


def outputs(of: Model, seed: int = 0, **inputs: Any) -> dict[str, Array]:
    """What the model gives with its first weights."""
    feeds = {"seed": np.int64(seed), "step": np.int64(0), **initial_values(of, seed), **inputs}
    known = of.graph.leaves
    return evaluate(of.graph, {n: x for n, x in feeds.items() if n in known})  # type: ignore[return-value]


class Block(Layer):
    """Two dense layers that are made anew in every call."""

    def __call__(self, x: Any) -> Any:
        return x >> Dense(x.shape[-1], relu) >> Dense(x.shape[-1])


def test_every_public_name_exists_once() -> None:
    assert len(set(dsl.__all__)) == len(dsl.__all__)
    for name in (*dsl.__all__, *dsl.BUILTINS):
        assert getattr(dsl, name) is not None


def test_a_star_import_shadows_no_name_of_pythons() -> None:
    given: dict[str, Any] = {}
    exec("from dsl import *", given)
    assert not [name for name in dir(builtins) if name in given and not name.startswith("_")]
    assert {"relu", "Dense", "mean", "argmax"} <= given.keys()
    names = {name for name in vars(dsl) if hasattr(builtins, name) and not name.startswith("_")}
    assert names == set(dsl.BUILTINS)


def test_names_that_python_has_are_imported_by_name() -> None:
    given: dict[str, Any] = {}
    exec(f"from dsl import {', '.join(dsl.BUILTINS)}", given)
    x = Input("x", f32["n", 4])()
    for name in dsl.BUILTINS:
        assert given[name] is getattr(dsl, name) is not getattr(builtins, name)
    assert given["max"](x, 1) is x.max(1)
    assert given["sum"](x) is x.sum()
    assert given["abs"](x) is builtins.abs(x)


# Names and sharing


def test_names_are_paths_of_layers() -> None:
    @model
    def net(x=f32["batch", 4]):
        y = x >> Dense(8, relu, name="stem") >> Block(name="a") >> Block() >> Dense(8)
        return y >> Dense(2)

    assert list(net.parameters) == [
        f"{layer}.{kind}"
        for layer in (
            "stem",
            "a.dense",
            "a.dense_1",
            "block.dense",
            "block.dense_1",
            "dense",
            "dense_1",
        )
        for kind in ("weight", "bias")
    ]
    assert net.parameters["dense_1.weight"].type == f32[8, 2]


def test_a_layer_object_shares_its_weights() -> None:
    shared, block = Dense(4), Block()

    @model
    def net(x=f32["batch", 4]):
        return x >> shared >> block >> shared >> block >> Dense(4)

    names = {path.rpartition(".")[0] for path in net.parameters}
    assert names == {"dense", "block.dense", "block.dense_1", "dense_1"}


def test_a_shared_layer_in_two_owners_has_the_first_ones_name() -> None:
    shared = Dense(4)

    class Owner(Layer):
        def __call__(self, x: Any) -> Any:
            return x >> shared >> Dense(4)

    @model
    def net(x=f32["batch", 4]):
        return x >> Owner(name="first") >> Owner(name="second")

    names = {path.rpartition(".")[0] for path in net.parameters}
    assert names == {"first.dense", "first.dense_1", "second.dense"}


def test_a_layer_has_weights_of_its_own_in_each_model() -> None:
    layer = Dense(4)

    @model
    def narrow(x=f32["batch", 2]):
        return layer(x)

    @model
    def wide(x=f32["batch", 3]):
        return layer(x)

    assert narrow.parameters["dense.weight"].shape == (2, 4)
    assert wide.parameters["dense.weight"].shape == (3, 4)


def test_weights_can_be_tied_outside_of_the_call() -> None:
    class Coder(Layer):
        width: int

        def weight(self, n: int) -> Any:
            return self.parameter("weight", (n, self.width))

        def __call__(self, x: Any) -> Any:
            return x @ self.weight(x.shape[-1])

        def back(self, code: Any, n: int) -> Any:
            return code @ self.weight(n).T

    coder = Coder(3)

    @model
    def autoencoder(x=f32["batch", 8]):
        return coder.back(coder(x), 8)

    assert list(autoencoder.parameters) == ["coder.weight"]


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(ModelError, match=r"two layers are called a"):

        @model
        def net(x=f32["batch", 4]):
            return x >> Dense(4, name="a") >> Dense(4, name="a")


def test_automatic_names_step_aside_for_given_ones() -> None:
    @model
    def net(x=f32["batch", 4]):
        return x >> Dense(4, name="dense") >> Dense(4) >> Dense(4, name="dense_2") >> Dense(4)

    names = dict.fromkeys(path.rpartition(".")[0] for path in net.parameters)
    assert list(names) == ["dense", "dense_1", "dense_2", "dense_3"]


@pytest.mark.parametrize("name", ["a.b", "", "a b", "a/b", 3])
def test_names_that_are_no_part_of_a_path_are_refused(name: Any) -> None:
    with pytest.raises(ModelError, match="not a valid name for a layer"):

        @model
        def net(x=f32["batch", 4]):
            return Dense(4, name=name)(x)


def test_a_shared_layer_needs_equal_widths() -> None:
    shared = Dense(5)
    with pytest.raises(ShapeError, match=r"dense.weight is f32\[4, 5\].* needs f32\[5, 5\]"):

        @model
        def net(x=f32["batch", 4]):
            return x >> shared >> shared


# Layers


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


# State


class Counter(Layer):
    """The input, and how often the layer was called on the way."""

    def __call__(self, x: Any) -> Any:
        count = self.state("count", init=zeros)
        self.update(count, count + 1)
        return x + self.state("count")


def test_calls_of_one_layer_chain_their_updates() -> None:
    counter = Counter()

    @model
    def net(x=f32["batch"]):
        return {"once": counter(x), "twice": counter(x)}

    assert list(net.states) == ["counter.count"]
    count = net.states["counter.count"]
    zero = np.zeros(1, np.float32)
    feeds = {"x": zero, "counter.count": np.float32(5)}
    values = {**net.outputs, "next": net.updates["counter.count"]}
    found = evaluate(values, feeds)
    assert found == {"once": [6.0], "twice": [7.0], "next": 7.0}
    assert count.type == f32[()]


def test_state_of_the_model_itself() -> None:
    @model
    def net(x=f32["batch", 3]):
        mean = state("mean", 3)
        update("mean", 0.9 * mean + 0.1 * x.mean(0))
        return x - mean

    assert list(net.states) == ["mean"]
    assert list(net.updates) == ["mean"]


def test_updates_that_do_not_fit_are_refused() -> None:
    def declare(new: Any, of: Any = None) -> Any:
        @model
        def net(x=f32["batch", 3]):
            mean = state("mean", 3)
            update(mean if of is None else of, new(x))
            return x - mean

        return net

    with pytest.raises(ShapeError, match=r"mean is f32\[3\], its update is f32\[batch, 3\]"):
        declare(lambda x: x)
    with pytest.raises(DTypeError, match="its update is f64"):
        declare(lambda x: x.mean(0).astype(f64))
    with pytest.raises(ModelError, match="no state other"):
        declare(lambda x: x.mean(0), "other")


def test_states_of_one_value_need_their_names() -> None:
    @model
    def net(x=f32["batch"]):
        low, high = state("low"), state("high")
        update(low, x.mean())
        update(high, x.mean())
        with pytest.raises(ModelError, match="the value of low and of high"):
            update(x.mean(), x.max())
        update("high", x.max())
        with pytest.raises(ModelError, match="not a state"):
            update(high, x.max())
        return x

    assert net.updates["high"] is net.inputs["x"].max()


def test_a_layer_that_a_loop_calls_first_is_drawn_once() -> None:
    @model
    def looped(x=f32["batch", 3]):
        layer = Dense(3, name="layer")
        return dsl.scan(lambda y: layer(y), x, length=4)

    @model
    def unrolled(x=f32["batch", 3]):
        layer = Dense(3, name="layer")
        return x >> layer >> layer >> layer >> layer

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found, expected = outputs(looped, x=x), outputs(unrolled, x=x)
    np.testing.assert_allclose(found["output"], expected["output"], rtol=1e-6)


def test_a_state_is_not_updated_within_a_loop() -> None:
    def body(total: Any, x: Any) -> Any:
        update("mean", x.mean())
        return total + x

    with pytest.raises(ModelError, match="state mean is updated in the body of a loop") as caught:

        @model
        def net(xs=f32["time", 3]):
            state("mean")
            return dsl.scan(body, xs[0], xs)

    assert "with the last one" in str(caught.value)
