"""What is measured of a training: gradients, units, numbers that are not finite, learning rates."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    adam,
    adamw,
    cross_entropy,
    exp,
    f32,
    f64,
    formula,
    gelu,
    glorot_uniform,
    he_normal,
    i64,
    leaky_relu,
    log,
    minimize,
    model,
    muon,
    plateau,
    relu,
    sgd,
    sigmoid,
    softmax,
    sqrt,
    sum,
    tanh,
    training,
    where,
)
from nncompile.errors import FeedError, ModelError, TrainingError
from nncompile.graph import Graph, Input
from nncompile.model import Model
from nncompile.recipe import Recipe, assign
from nncompile.reference import evaluate
from nncompile.train import (
    CheckFinite,
    Monitor,
    Probe,
    Trainer,
    TrainingWarning,
    locate_nonfinite,
    lr_find,
    overfit_one_batch,
)
from nncompile.train.finder import smooth
from nncompile.train.measurement import Measurement
from nncompile.train.monitor import norm
from nncompile.types import Array
from tests.small_models import averaging, data, perceptron
from tests.tolerances import assert_close


def deep(activation: Any, init: Any, layers: int = 20, dtype: Any = f32, **options: Any) -> Recipe:
    """A classifier of so many hidden layers of 16 units."""

    @model
    def net(x=dtype["batch", 8], label=i64["batch"]):
        hidden = x
        for i in range(layers):
            hidden = hidden >> Dense(16, activation, init=init, name=f"layer{i}")
        logits = hidden >> Dense(4, init=init, name="out")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return training(net, **{"optimizer": sgd(0.1), **options})


def labelled(count: int = 64, dtype: str = "float32") -> dict[str, Array]:
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 8)).astype(dtype)
    return {"x": x, "label": random.integers(0, 4, count)}


def measured(recipe: Recipe, batch: dict[str, Array], seed: int = 0) -> Measurement:
    probe = Probe(recipe)
    return probe.measure(probe.compiled.source.initial(seed), batch)


def line_of(text: str) -> str:
    """`test_monitoring.py:30` of the one line of this file that has the text."""
    source = inspect.getsource(inspect.getmodule(line_of))  # type: ignore[arg-type]
    lines = [x.strip() for x in source.splitlines()]
    found = [
        i for i, x in enumerate(lines, 1) if text in x and not x.startswith(("assert", "place ="))
    ]
    assert len(found) == 1, found
    return f"test_monitoring.py:{found[0]}"


# Norms


@pytest.mark.parametrize("count", [1, 7, 64])
@pytest.mark.parametrize("dtype", [f32, f64])
def test_norms_are_those_of_numpy(count: int, dtype: Any) -> None:
    recipe = deep(tanh, glorot_uniform, 3, dtype, optimizer=adam(0.1), clip_norm=0.5)
    batch = labelled(count, dtype.numpy.name)
    probe = Probe(recipe)
    source = probe.compiled.source
    state = source.initial(3)
    found = probe.measure(state, batch)
    slopes = evaluate(source.gradient, {**state, **batch}, np.float64)
    following = evaluate(source.step, {**state, **batch}, np.float64)
    assert list(found.layers) == ["layer0", "layer1", "layer2", "out"]
    assert list(found.parameters) == list(source.parameters)
    for path, x in found.parameters.items():
        assert_close(x.weight, np.linalg.norm(state[path]), dtype.numpy.name, path)
        assert_close(x.gradient, np.linalg.norm(slopes[f"{path}.grad"]), dtype.numpy.name, path)
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
    recipe = training(perceptron(drop=0.5), optimizer=sgd(0.1), batch=16)
    ours, probe = Trainer(recipe), Probe(recipe)
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
        "layer0 (test_monitoring.py:",
        "out (test_monitoring.py:",
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
    for part in ("explodes", "layer0 (test_monitoring.py:", "the first layer", "clip_norm=1.0"):
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
        hidden = x >> Dense(4, use_bias=False, name="one") >> Dense(4, name="two")
        return {"loss": sqrt((hidden * hidden).sum()) + cross_entropy(hidden, label)}

    batch = labelled()
    told = measured(training(lost), {**batch, "x": 0 * batch["x"]}).warnings()
    assert list(told) == ["not finite loss"]
    assert "not finite in one (" in told["not finite loss"]


# Units


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
        assert one.place == line_of('Dense(6, relu, name="one")')
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
    for part in ("4 of 6 units of one (test_monitoring.py:", "relu(x)", "leaky_relu"):
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


# The callback


def test_the_monitor_warns_once_at_the_line_of_fit() -> None:
    ours, monitor = Trainer(deep(sigmoid, glorot_uniform, 8, batch=32)), Monitor(every=1)
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


# Numbers that are not finite


def test_a_loss_that_is_lost_names_the_line_it_is_lost_at() -> None:
    @model
    def likelihood(x=f32["batch", 4]):
        rate = x >> Dense(1, relu, name="rate")
        return {"loss": (rate - log(rate)).mean()}

    with pytest.raises(TrainingError) as caught:
        Trainer(training(likelihood)).fit({"x": data()["x"]})
    text = str(caught.value)
    place = line_of('"loss": (rate - log(rate))')
    assert "loss is inf at step 1 (epoch 1); the data are finite" in text
    first, given = (next(x for x in text.splitlines() if w in x) for w in ("first in", "given"))
    assert "log(a)" in first and "infinite" in first and place in first
    assert 'return {"loss": (rate - log(rate)).mean()}' in first
    assert "from 0 to" in given


def test_infinities_that_become_nan_are_followed_to_where_they_began() -> None:
    @model
    def growing(x=f32["batch", 4]):
        big = exp(100 * (x >> Dense(1, name="one")))
        return {"loss": (big - big.max()).mean()}

    ours = Trainer(training(growing))
    with pytest.raises(TrainingError) as caught:
        ours.fit({"x": data()["x"]})
    text = str(caught.value)
    first = next(x for x in text.splitlines() if "first in" in x)
    then = next(x for x in text.splitlines() if "then in" in x)
    assert line_of("big = exp(100") in first and "infinite" in first
    assert line_of("(big - big.max())") in then and "NaN" in then


def test_masks_of_infinities_are_no_finding() -> None:
    x = Input("x", f32["n", 3])()
    lost = Input("lost", f32["n"])()
    masked = where(x > 0, x, -math.inf)
    p = softmax(masked)
    graph = Graph("masked", {"p": p, "y": log(lost) + sum(p, 1)}, (x, lost))
    feeds = {"x": np.array([[1, -1, 2]], np.float32), "lost": np.ones(1, np.float32)}
    assert locate_nonfinite(graph, feeds) is None
    found = locate_nonfinite(graph, {**feeds, "lost": np.zeros(1, np.float32)})
    assert found is not None and found.what == "log(lost)"
    assert (found.output, found.kind, found.index, found.then) == ("y", "infinite", (0,), None)
    nothing = locate_nonfinite(graph, {**feeds, "x": -np.ones((1, 3), np.float32)}, ["p"])
    assert nothing is not None and nothing.then is not None
    assert (nothing.kind, nothing.then.what, nothing.then.kind) == (
        "infinite",
        "softmax(a, axis=1)",
        "NaN",
    )


def test_a_leaf_that_is_not_finite_is_called_by_its_name() -> None:
    x, w = Input("x", f32[2])(), Input("w", f32[2], "parameter")()
    graph = Graph("product", {"y": x * w}, (x, w))
    feeds = {"x": np.ones(2, np.float32), "w": np.array([1, np.nan], np.float32)}
    found = locate_nonfinite(graph, feeds)
    assert found is not None and found.is_state
    assert (found.name, found.what, found.index) == ("w", "parameter w", (1,))
    assert str(found) == "parameter w[1] is NaN (1 of 2)" or "at test_monitoring.py" in str(found)


def spoiled() -> Recipe:
    """The slope of a norm is NaN at zero, where the loss is finite."""

    @model
    def norms(x=f32["batch", 4]):
        distance = sqrt(((x >> Dense(3, use_bias=False, name="one")) ** 2).sum(-1))
        return {"loss": distance.mean()}

    return training(norms, optimizer=sgd(0.01), batch=4)


def with_zeros() -> dict[str, Array]:
    x = data(12)["x"]
    x[6] = 0
    return {"x": x}


def test_a_state_that_an_earlier_step_spoiled_is_told() -> None:
    with pytest.raises(TrainingError) as caught:
        Trainer(spoiled()).fit(with_zeros(), shuffle=False)
    text = str(caught.value)
    assert "loss is nan at step 3" in text
    assert "first in  parameter one." in text
    assert "callbacks=[CheckFinite()]" in text


def test_check_finite_stops_at_the_step_that_spoils_the_state() -> None:
    ours = Trainer(spoiled())
    with pytest.raises(TrainingError) as caught:
        ours.fit(with_zeros(), shuffle=False, callbacks=CheckFinite())
    text = str(caught.value)
    assert ours.step == 2
    assert "one.weight is not finite after step 2 (epoch 1)" in text
    first = next(x for x in text.splitlines() if "first in" in x)
    assert line_of("distance = sqrt(") in first
    assert ours.locate({"x": with_zeros()["x"][4:8]}) is not None
    assert ours.locate({"x": with_zeros()["x"][:4]}) is None


def test_a_finite_training_has_nothing_to_locate() -> None:
    ours = Trainer(training(perceptron(), optimizer=sgd(0.1)))
    ours.fit([data(8)], epochs=1)
    assert ours.locate(data(8)) is None


# Learning rates


def regression() -> tuple[Model, dict[str, Array], float]:
    """A line, its data, and the rate from which on gradient descent on all of them diverges."""

    @model
    def line(x=f32["batch", 8], y=f32["batch"]):
        found = (x >> Dense(1, name="line"))[:, 0]
        return {"loss": ((found - y) ** 2).mean()}

    random = np.random.default_rng(0)
    x = random.normal(size=(128, 8)).astype(np.float32)
    y = (x @ random.normal(size=8)).astype(np.float32)
    with_bias = np.concatenate([x, np.ones((128, 1))], axis=1)
    curvature = np.linalg.eigvalsh(2 * with_bias.T @ with_bias / 128)[-1]
    return line, {"x": x, "y": y}, 2 / curvature


def test_the_rate_that_is_found_trains_and_ones_far_from_it_do_not() -> None:
    line, whole, limit = regression()
    found = lr_find(training(line, optimizer=sgd(1.0), batch=32), whole)
    assert found.suggestion is not None and 0.01 * limit < found.suggestion < limit
    assert found.rates[-1] > limit  # it went on to where the loss rises again

    def after(rate: float) -> float:
        ours = Trainer(training(line, optimizer=sgd(rate), batch=32))
        try:
            return ours.fit(whole, epochs=20)["loss"][-1]
        except TrainingError:
            return math.inf

    best = after(found.suggestion)
    assert best < 0.1 * found.losses[0]
    assert best < 0.1 * after(found.suggestion / 100)
    assert best < 0.1 * after(found.suggestion * 100)


def test_a_sweep_makes_the_steps_of_its_rates() -> None:
    line, whole, _ = regression()
    found = lr_find(training(line, optimizer=sgd(1.0), batch=32), whole, 1e-4, 1e-1, steps=6)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 1e-1, 6))
    weights = Trainer(training(line)).state
    w, b = weights["line.weight"][:, 0].astype(np.float64), 0.0
    losses = []
    for epoch in range(2):
        order = np.random.default_rng((0, epoch)).permutation(128)
        for i in range(0, 128, 32):
            x, y = (whole[n][order[i : i + 32]].astype(np.float64) for n in ("x", "y"))
            error = x @ w + b - y
            losses.append((error**2).mean())
            rate = 1e-4 * 1000 ** ((len(losses) - 1) / 5)
            w, b = w - rate * 2 * x.T @ error / 32, b - rate * 2 * error.mean()
    np.testing.assert_allclose(found.losses, losses[:6], rtol=1e-5)


def test_a_sweep_leaves_the_trainer_as_it_is_and_is_reproducible() -> None:
    recipe = training(perceptron(drop=0.5), optimizer=adam(1e-2), batch=16)
    ours, other = Trainer(recipe), Trainer(recipe)
    ours.fit(data(), steps=6)
    other.fit(data(), steps=6)
    found = [lr_find(ours, data(), steps=40) for _ in range(2)]
    np.testing.assert_array_equal(found[0].losses, found[1].losses)
    for path, x in ours.state.items():
        np.testing.assert_array_equal(x, other.state[path])
    ours.fit(data(), epochs=2)
    other.fit(data(), epochs=2)
    for path, x in ours.state.items():
        np.testing.assert_array_equal(x, other.state[path])
    fresh = lr_find(recipe, data(), steps=40)
    assert not np.array_equal(fresh.losses, found[0].losses)


def test_groups_of_parameters_keep_the_proportions_of_their_rates() -> None:
    line, whole, _ = regression()
    grouped = {"*.bias": sgd(0.0), "*": sgd(0.5)}
    frozen = training(line, optimizer=sgd(0.5), batch=32, freeze="*.bias")
    one = lr_find(training(line, optimizer=grouped, batch=32), whole)
    np.testing.assert_allclose(one.losses, lr_find(frozen, whole).losses, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": muon()},
        {"optimizer": adamw(plateau(1e-3, monitor="loss"))},
        {"optimizer": sgd(0.1, momentum=0.9), "accumulate": 2},
    ],
    ids=["muon", "plateau", "accumulate"],
)
def test_every_optimizer_can_be_swept(options: dict[str, Any]) -> None:
    line, whole, _ = regression()
    recipe = training(line, batch=32, **options)
    ours = Trainer(recipe)
    ours.fit(whole, steps=3)
    for source in (recipe, ours):
        found = lr_find(source, whole, lowest=1e-5)
        assert found.suggestion is not None and 1e-4 < found.suggestion < 5


def test_no_rate_is_suggested_where_nothing_falls() -> None:
    line, whole, _ = regression()
    ours = Trainer(training(line, optimizer=sgd(0.1), batch=32))
    found = lr_find(ours, {**whole, "x": np.zeros_like(whole["x"])}, highest=1e-5)
    assert found.suggestion is None


def test_wrong_sweeps_are_told() -> None:
    line, whole, _ = regression()
    recipe = training(line)
    with pytest.raises(ModelError, match=r"from lowest > 0 to highest, got 0\.0 to 10\.0"):
        lr_find(recipe, whole, lowest=0)
    with pytest.raises(ModelError, match="minimizes no 'los'"):
        lr_find(recipe, whole, loss="los")
    with pytest.raises(ModelError, match="no update follows a gradient"):
        lr_find(training(averaging(), updates=[assign("w", 1.0)]), {"x": whole["y"]})
    with pytest.raises(FeedError, match=r"end after 1 rounds(.|\n)*list of batches"):
        lr_find(recipe, (whole for _ in range(3)))
    with pytest.raises(TrainingError, match=r"lost after \d steps at rates from 1e\+20 on"):
        lr_find(recipe, whole, lowest=1e20, highest=1e30)


def test_a_sweep_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    line, whole, _ = regression()
    found = lr_find(training(line, batch=32), whole)
    assert found.plot(tmp_path / "sweep.png").stat().st_size > 1000


def test_the_trend_is_the_mean_of_neighbours() -> None:
    np.testing.assert_allclose(smooth(np.array([1.0, 2, 6, 4]), 1), [1.5, 3, 4, 5])


# One batch


def test_one_batch_is_learned_by_heart() -> None:
    batch = labelled(16)
    found = overfit_one_batch(deep(relu, he_normal, 2, optimizer=adam(1e-2)), batch)
    assert found.learns and len(found.losses["loss"]) == 200
    assert found.losses["loss"][-1] < 0.01
    assert str(found).endswith("in 200 steps")
    stuck = overfit_one_batch(deep(sigmoid, glorot_uniform), batch, steps=3)
    assert stuck.losses["loss"][-1] > 1
    assert not overfit_one_batch(deep(relu, he_normal, 1, optimizer=sgd(0.0)), batch, 5).learns
    with pytest.raises(ModelError, match="follows a gradient"):
        overfit_one_batch(training(averaging(), updates=[assign("w", 1.0)]), {"x": batch["x"]})
