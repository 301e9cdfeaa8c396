"""Units that are dead or saturated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    cross_entropy,
    f32,
    f64,
    formula,
    gelu,
    glorot_uniform,
    i64,
    leaky_relu,
    model,
    relu,
    softmax,
    training,
    where,
)
from nncompile.program.recipe import Recipe
from nncompile.train import Probe
from tests.monitored import deep, labelled, measured
from tests.source_lines import line_of


def relus(dtype: Any = f32) -> Recipe:
    @model
    def net(x=dtype["batch", 8], label=i64["batch"]):
        pixels = x * 2 + 1 >> relu  # of data alone: no units
        hidden = pixels >> Dense(6, relu, name="one") >> Dropout(0.5) >> Dense(5, name="two")
        gated = hidden >> gelu
        logits = gated >> Dense(4, leaky_relu, name="out")  # nothing is learned of these
        return {"p": softmax(logits), "loss": cross_entropy(logits, label)}

    return training(net)


@pytest.mark.parametrize("dtype", [f32, f64])
def test_activations_are_those_of_numpy(dtype: Any) -> None:
    probe = Probe(relus(dtype))
    state = probe.compiled.source.initial(1)
    state["one.bias"][2] = -1000
    for count in (5, 32):
        batch = labelled(count, dtype.numpy.name)
        found = probe.measure(state, batch).activations
        assert list(found) == ["one", "net"]
        pixels = np.maximum(batch["x"] * 2 + 1, 0)
        units = np.maximum(pixels @ state["one.weight"] + state["one.bias"], 0)
        one = found["one"]
        assert (one.formula, one.units) == ("relu(x)", 6)
        assert one.place == line_of(__file__, 'Dense(6, relu, name="one")')
        np.testing.assert_allclose(one.mean, units.mean(), rtol=1e-5)
        np.testing.assert_allclose(one.deviation, units.std(), rtol=1e-4)
        np.testing.assert_allclose(one.zeros, (units == 0).mean(), rtol=1e-6)
        np.testing.assert_array_equal(one.dead, (units == 0).all(axis=0))
        assert one.dead[2]
        assert one.dead_share == one.dead.sum() / 6
        assert not found["net"].dead.any()


def test_dead_units_are_told_by_their_layer() -> None:
    probe = Probe(relus())
    state = probe.compiled.source.initial(1)
    state["one.bias"][:4] = -1000
    told = probe.measure(state, labelled()).warnings()
    assert list(told) == ["dead one"]
    for part in ("4 of 6 units of one (test_monitoring_units.py:", "relu(x)", "leaky_relu"):
        assert part in told["dead one"]
    assert not probe.measure(state, labelled()).warnings(dead=0.7)


def test_channels_are_the_units_of_a_convolution() -> None:
    @model
    def images(x=f32["batch", 1, "height", "width"], label=i64["batch"]):
        hidden = x >> Conv2d(3, 3, name="conv") >> BatchNorm(name="norm") >> relu
        logits = hidden.mean((2, 3)) >> Dense(4, name="out")
        return {"loss": cross_entropy(logits, label)}

    probe = Probe(training(images))
    state = probe.compiled.source.initial()
    state["norm.bias"][:] = [0, -1000, 0]
    random = np.random.default_rng(0)
    for count, size in ((2, 8), (5, 6)):
        x = random.normal(size=(count, 1, size, size)).astype(np.float32)
        found = probe.measure(state, {"x": x, "label": np.arange(count) % 4})
        (units,) = found.activations.values()
        np.testing.assert_array_equal(units.dead, [False, True, False])


def test_saturated_units_are_dead_though_they_are_not_zero() -> None:
    @formula
    def bounded(x):
        return where(x > 1, 1, where(x < 0, 0, x))

    probe = Probe(deep(bounded, glorot_uniform, 1))
    state = probe.compiled.source.initial()
    state["layer0.bias"][:2] = 1000, -1000
    found = probe.measure(state, labelled()).activations["layer0"]
    np.testing.assert_array_equal(found.dead[:3], [True, True, False])


def test_the_table_has_a_line_for_each_layer() -> None:
    found = measured(relus(), labelled())
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines if line] == [
        *("layer", "one", "two", "out"),
        *("activation", "one", "net"),
    ]
    assert f"{found.layers['two'].gradient:.2e}" in lines[2]
