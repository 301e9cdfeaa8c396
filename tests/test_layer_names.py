"""Names of layers, and weights that layers share."""

from __future__ import annotations

from typing import Any

import pytest

from dsl import Dense, Layer, f32, model, relu
from nncompile.diagnostics.errors import ModelError, ShapeError


class Block(Layer):
    """Two dense layers that are made anew in every call."""

    def __call__(self, x: Any) -> Any:
        return x >> Dense(x.shape[-1], relu) >> Dense(x.shape[-1])


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
