"""What is measured during a training: norms of gradients, and the warnings."""

from __future__ import annotations

import math
import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    adam,
    cross_entropy,
    f32,
    f64,
    glorot_uniform,
    he_normal,
    i64,
    minimize,
    model,
    relu,
    sgd,
    sigmoid,
    sqrt,
    tanh,
    training,
)
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.program.recipe import assign
from nncompile.train import Monitor, Probe, Trainer, TrainingWarning
from nncompile.train.monitor import norm
from tests.monitored import deep, labelled, measured
from tests.small_models import averaging, data, perceptron
from tests.tolerances import assert_close


@cache
def three_layers(dtype: Any) -> Probe:
    recipe = deep(tanh, glorot_uniform, 3, dtype, optimizer=adam(0.1), clip_norm=0.5)
    return Probe(recipe)


@pytest.mark.parametrize("count", [1, 7, 64])
@pytest.mark.parametrize("dtype", [f32, f64])
def test_norms_are_those_of_numpy(count: int, dtype: Any) -> None:
    batch = labelled(count, dtype.numpy.name)
    probe = three_layers(dtype)
    source = probe.compiled.source
    state = source.initial(3)
    found = probe.measure(state, batch)
    gradients = evaluate(source.gradient, {**state, **batch}, np.float64)
    following = evaluate(source.step, {**state, **batch}, np.float64)
    assert list(found.layers) == ["layer0", "layer1", "layer2", "out"]
    assert list(found.parameters) == list(source.parameters)
    for path, x in found.parameters.items():
        assert_close(x.weight, np.linalg.norm(state[path]), dtype.numpy.name, path)
        assert_close(x.gradient, np.linalg.norm(gradients[f"{path}.grad"]), dtype.numpy.name, path)
        update = following[f"{path}.next"] - state[path]
        # In float32 the update is a difference of weights that are much larger.
        np.testing.assert_allclose(x.update, np.linalg.norm(update), rtol=1e-5)
    layer = found.layers["layer1"]
    whole = [found.parameters[f"layer1.{p}"] for p in ("weight", "bias")]
    assert layer.gradient == math.hypot(*(x.gradient for x in whole))
    assert layer.ratio == layer.update / layer.weight


def test_norms_neither_overflow_nor_underflow() -> None:
    x = Input("x", f32["n"])()
    graph = Graph("norm", {"norm": norm(x)}, (x,))
    for scale in (1e-40, 1e-30, 1.0, 1e30):
        array = np.array([3, 0, -4], np.float32) * np.float32(scale)
        found = evaluate(graph, {"x": array})["norm"]
        np.testing.assert_allclose(found, 5 * scale, rtol=1e-4)
    assert evaluate(graph, {"x": np.zeros(3, np.float32)})["norm"] == 0
    empty = Input("x", f32[0])()
    assert evaluate(norm(empty), {"x": np.zeros(0, np.float32)}) == 0


def test_measuring_has_the_random_numbers_of_the_step() -> None:
    """The gradient of a measurement is that of the step which is made at that state."""
    recipe = training(perceptron(drop=0.5), optimizer=sgd(0.1), batch_size=16)
    ours = Trainer(recipe)
    probe = Probe(ours.compiled)
    batch = data(16)
    for _ in range(3):
        before = ours.state
        found = probe.measure(before, batch)
        ours.fit([batch], epochs=1)
        for path, x in found.parameters.items():
            made = np.linalg.norm(ours.state[path] - before[path])
            np.testing.assert_allclose(x.update, made, rtol=1e-5)
            np.testing.assert_allclose(x.update, 0.1 * x.gradient, rtol=1e-4)


def test_layers_come_in_the_order_that_the_data_meet_them() -> None:
    @model
    def net(x=f32["batch", 8], label=i64["batch"]):
        last, first = Dense(4, name="last"), Dense(16, tanh, name="first")
        last(x[:, :1] * 0 + first(x))  # declared first, met last
        logits = last(first(x))
        return {"loss": cross_entropy(logits, label)}

    assert list(measured(training(net), labelled()).layers) == ["first", "last"]


def test_what_is_frozen_or_only_assigned_is_not_measured() -> None:
    found = measured(deep(relu, he_normal, 2, freeze="layer0.*"), labelled())
    assert list(found.layers) == ["layer1", "out"]
    with pytest.raises(ModelError, match=r"no update of averaging follows a gradient"):
        Probe(training(averaging(), updates=[assign("w", 1.0)]))


def test_two_losses_are_told_apart() -> None:
    @model
    def pair(x=f32["batch", 8], label=i64["batch"]):
        a, b = x >> Dense(4, name="a"), x >> Dense(16, tanh, name="b1") >> Dense(4, name="b2")
        return {"a_loss": cross_entropy(a, label), "b_loss": cross_entropy(b, label)}

    updates = [minimize("a_loss", "a.*"), minimize("b_loss", "b*")]
    found = measured(training(pair, updates=updates), labelled())
    assert found.losses == {"a_loss": ("a",), "b_loss": ("b1", "b2")}


def test_data_that_do_not_fit_are_told() -> None:
    probe = Probe(deep(relu, he_normal, 2))
    state = probe.compiled.source.initial()
    with pytest.raises(FeedError, match="no data for input 'label'"):
        probe.measure(state, {"x": labelled()["x"]})


# Vanishing and exploding


def test_twenty_layers_of_sigmoids_vanish_and_relu_with_he_does_not() -> None:
    sigmoids = measured(deep(sigmoid, glorot_uniform), labelled())
    first, last = sigmoids.layers["layer0"].gradient, sigmoids.layers["out"].gradient
    assert 0 < first < 1e-9 * last
    # Each layer passes on at most a quarter, times what its weights do: a steady fall.
    norms = [x.gradient for x in sigmoids.layers.values()]
    assert norms == sorted(norms)
    told = sigmoids.warnings()
    assert list(told) == ["vanishing loss"]
    for part in (
        "vanishes",
        "layer0 (monitored.py:",
        "out (monitored.py:",
        "He",
        "relu",
    ):
        assert part in told["vanishing loss"]
    probe = Probe(deep(relu, he_normal))
    for seed in range(3):
        relus = probe.measure(probe.compiled.source.initial(seed), labelled())
        ratio = relus.layers["layer0"].gradient / relus.layers["out"].gradient
        assert 0.01 < ratio < 100
        assert not relus.warnings(dead=1)


def wide(*arguments: Any) -> Any:
    return 12 * glorot_uniform(*arguments)


def test_large_weights_explode() -> None:
    """What goes forward is bounded by tanh, what comes back is not."""
    told = measured(deep(tanh, wide, 12), labelled()).warnings(dead=1)["exploding loss"]
    for part in ("explodes", "layer0 (monitored.py:", "the first layer", "clip_norm=1.0"):
        assert part in told


def test_a_step_that_is_larger_than_the_weights_is_told() -> None:
    """All layers of a network of ReLUs get too much alike where its weights are too large."""
    recipe = deep(relu, wide, 10)
    told = measured(recipe, labelled()).warnings(dead=1)
    assert list(told) == ["large step loss"]
    assert re.search(r"changes layer\d \(.*\) by \d\.?\d*e\+\d+ times", told["large step loss"])
    # Adam's steps are as large as its rate, whatever the gradient.
    assert not measured(deep(relu, wide, 10, optimizer=adam(1e-3)), labelled()).warnings(dead=1)


def test_a_gradient_that_is_not_finite_is_told() -> None:
    @model
    def lost(x=f32["batch", 8], label=i64["batch"]):
        hidden = x >> Dense(4, bias=False, name="one") >> Dense(4, name="two")
        return {"loss": sqrt((hidden * hidden).sum()) + cross_entropy(hidden, label)}

    batch = labelled()
    told = measured(training(lost), {**batch, "x": 0 * batch["x"]}).warnings()
    assert list(told) == ["not finite loss"]
    assert "not finite in one (" in told["not finite loss"]


# The callback


def test_the_monitor_warns_once_at_the_line_of_fit() -> None:
    ours, monitor = Trainer(deep(sigmoid, glorot_uniform, 8, batch_size=32)), Monitor(every=1)
    with pytest.raises(ModelError, match="nothing was measured yet"):
        monitor.last  # noqa: B018
    with pytest.warns(TrainingWarning, match="step 1: the gradient of loss vanishes") as told:
        ours.fit(labelled(), epochs=2, callbacks=monitor)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert [m.step for m in monitor.measurements] == [1, 2, 3, 4]
    quiet = Monitor(warn=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.fit(labelled(), epochs=2, callbacks=quiet)
    assert list(quiet.last.warnings()) == ["vanishing loss"]
    assert [m.step for m in quiet.measurements] == [6, 8]


def test_a_monitor_measures_what_is_trained_now() -> None:
    monitor = Monitor()
    for layers in (2, 3):
        Trainer(deep(tanh, glorot_uniform, layers)).fit(labelled(), callbacks=monitor)
        assert len(monitor.last.layers) == layers + 1


@pytest.mark.parametrize("rows", [(16, 16, 16), (16, 5, 9)])
def test_what_is_accumulated_is_measured_as_an_update(rows: tuple[int, ...]) -> None:
    """At each step the update of all batches since the last one: at the last, the one it makes."""
    recipe = training(perceptron(), optimizer=adam(0.01), accumulate=3)
    ours = Trainer(recipe)
    probe, monitor = Probe(ours.compiled), Monitor(every=1, warn=False)
    one = Probe(training(perceptron(), optimizer=adam(0.01)))
    batches = [data(n, i) for i, n in enumerate(rows)]
    ours.fit(batches, epochs=1, shuffle=False, callbacks=monitor)
    assert all(x.update > 0 for m in monitor.measurements for x in m.parameters.values())
    before = ours.state
    for i in range(3):
        found = probe.measure(ours.state, batches[i])
        joint = {n: np.concatenate([b[n] for b in batches[: i + 1]]) for n in batches[0]}
        # As many updates before, and nothing accumulated.
        at = {**before, "step": np.asarray(int(before["step"]) // 3)}
        expected = one.measure({n: x for n, x in at.items() if "accumulated" not in n}, joint)
        for path, x in expected.parameters.items():
            assert found.parameters[path].update == pytest.approx(x.update, rel=1e-4), (i, path)
        ours.fit([batches[i]], epochs=1)
    for path, x in found.parameters.items():
        assert x.update == pytest.approx(np.linalg.norm(ours.state[path] - before[path]), rel=1e-4)
