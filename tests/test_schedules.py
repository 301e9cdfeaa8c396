"""Schedules: every step of their curves against torch's, in the graph as in numbers."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import initializers
from dsl.foreign_names import FOREIGN_NAMES
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, i64
from nncompile.ops import ratio
from nncompile.optim import (
    Stateful,
    adam,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    linear_decay,
    multi_step,
    muon,
    one_cycle,
    piecewise,
    plateau,
    polynomial,
    schedule,
    sgd,
    step_decay,
    warm_restarts,
    warmup,
)
from nncompile.optim.schedules import resolve
from nncompile.passes import optimize
from nncompile.program.model import Model
from nncompile.program.recipe import maximize, minimize, training
from nncompile.program.step import compose
from nncompile.runtime import Session
from nncompile.train import Trainer
from tests.leaves import leaf
from tests.small_models import data, perceptron

STEPS = 60


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def curve_of_torch(torch: Any, rate: float, make: Any, steps: int = STEPS) -> Iterator[float]:
    """The learning rate of each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SequentialLR calls its own deprecated form
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        for step in range(steps):
            yield optimizer.param_groups[0]["lr"]
            optimizer.step()
            if step + 1 < steps:
                scheduler.step()


def sequence(first: Any, second: Any, milestone: int) -> Any:
    return lambda s, o: s.SequentialLR(o, [first(s, o), second(s, o)], [milestone])


CURVES: dict[str, tuple[Any, float, Any]] = {
    "step": (step_decay(0.3, 7, 0.5), 0.3, lambda s, o: s.StepLR(o, 7, 0.5)),
    "multi-step": (
        multi_step(0.3, [3, 10, 41], 0.2),
        0.3,
        lambda s, o: s.MultiStepLR(o, [3, 10, 41], 0.2),
    ),
    "exponential": (exponential(0.3, 0.9), 0.3, lambda s, o: s.ExponentialLR(o, 0.9)),
    "polynomial": (
        polynomial(0.3, steps=40, power=2.5),
        0.3,
        lambda s, o: s.PolynomialLR(o, 40, 2.5),
    ),
    "linear": (
        linear_decay(0.3, steps=40, final=0.03),
        0.3,
        lambda s, o: s.LinearLR(o, 1.0, 0.1, 40),
    ),
    "cosine": (
        cosine(0.3, steps=STEPS, final=0.01),
        0.3,
        lambda s, o: s.CosineAnnealingLR(o, STEPS, 0.01),
    ),
    "restarts": (
        warm_restarts(0.3, period=7, final=0.01),
        0.3,
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 7, 1, 0.01),
    ),
    "growing restarts": (
        warm_restarts(0.3, period=3, growth=2),
        0.3,
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
    ),
    "restarts growing by three": (
        warm_restarts(0.3, period=4, growth=3),
        0.3,
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 3),
    ),
    "one cycle": (
        one_cycle(0.3, total_steps=STEPS + 1),
        0.3,
        lambda s, o: s.OneCycleLR(o, 0.3, STEPS + 1, cycle_momentum=False),
    ),
    "one cycle, three phases": (
        one_cycle(
            0.3,
            total_steps=STEPS + 1,
            pct_start=0.4,
            div_factor=10,
            final_div_factor=100,
            three_phase=True,
        ),
        0.3,
        lambda s, o: s.OneCycleLR(
            o,
            0.3,
            STEPS + 1,
            pct_start=0.4,
            div_factor=10,
            final_div_factor=100,
            three_phase=True,
            cycle_momentum=False,
        ),
    ),
    "one cycle, straight": (
        one_cycle(0.3, total_steps=STEPS + 1, anneal_strategy="linear"),
        0.3,
        lambda s, o: s.OneCycleLR(
            o, 0.3, STEPS + 1, anneal_strategy="linear", cycle_momentum=False
        ),
    ),
    "warm-up": (
        warmup(0.3, steps=10, start=0.25),
        0.3,
        lambda s, o: s.LinearLR(o, 0.25, 1.0, 10),
    ),
    "warm-up of a cosine": (
        warmup(cosine(0.3, steps=50), steps=10, start=0.25),
        0.3,
        sequence(
            lambda s, o: s.LinearLR(o, 0.25, 1.0, 10), lambda s, o: s.CosineAnnealingLR(o, 50), 10
        ),
    ),
    "piecewise": (
        piecewise([0.3, exponential(0.3, 0.9)], [20]),
        0.3,
        sequence(lambda s, o: s.ConstantLR(o, 1.0, 1), lambda s, o: s.ExponentialLR(o, 0.9), 20),
    ),
    "inverse root": (
        inverse_sqrt(0.3, warmup=10),
        0.3,
        lambda s, o: s.LambdaLR(o, lambda t: min((t + 1) / 10, math.sqrt(10 / (t + 1)))),
    ),
    "a function": (
        schedule(lambda step: 0.3 / (1 + step)),
        0.3,
        lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_every_step_is_that_of_torch(torch: Any, name: str) -> None:
    """Numbers to 1e-6 (CosineAnnealingLR is recursive in torch), float32 in the graph to 1e-5."""
    rate, base, make = CURVES[name]
    leaf = Input("step", i64[()], "state")()
    value = resolve(rate, leaf, f32)
    assert not isinstance(value, float)
    for step, expected in enumerate(curve_of_torch(torch, base, make)):
        assert rate(step) == pytest.approx(expected, rel=1e-6, abs=1e-9), step
        found = float(evaluate(value, {"step": np.asarray(step, np.int64)}))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-7), step


# What the reference page says that a schedule of torch's is here, against it with its own defaults,
# and the step to which they are the same: past the end of most.
ROWS: dict[str, tuple[dict[str, Any], Any, int]] = {
    "ConstantLR": ({"lr": 0.3}, lambda s, o: s.ConstantLR(o), 20),
    "CosineAnnealingLR": ({"lr": 0.3}, lambda s, o: s.CosineAnnealingLR(o, 1000), 1000),
    "CosineAnnealingWarmRestarts": (
        {"lr": 0.3},
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 100),
        500,
    ),
    "ExponentialLR": ({"lr": 0.3, "gamma": 0.9}, lambda s, o: s.ExponentialLR(o, 0.9), 100),
    "LambdaLR": ({}, lambda s, o: s.LambdaLR(o, lambda step: 0.1 / (1 + step) / 0.3), 100),
    "LinearLR": ({"lr": 0.3}, lambda s, o: s.LinearLR(o), 20),
    "MultiStepLR": (
        {"lr": 0.3, "milestones": [3, 8]},
        lambda s, o: s.MultiStepLR(o, [3, 8]),
        20,
    ),
    "OneCycleLR": (
        {"max_lr": 0.3},
        lambda s, o: s.OneCycleLR(o, 0.3, 1000, cycle_momentum=False),
        1000,
    ),
    "PolynomialLR": ({"lr": 0.3}, lambda s, o: s.PolynomialLR(o), 20),
    "SequentialLR": (
        {"schedules": [exponential(0.3, 0.9), cosine(0.3, steps=4)], "milestones": [5]},
        sequence(
            lambda s, o: s.ExponentialLR(o, 0.9), lambda s, o: s.CosineAnnealingLR(o, 4), 5
        ),
        9,
    ),
    "StepLR": ({"lr": 0.3, "step_size": 4}, lambda s, o: s.StepLR(o, 4), 20),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_what_a_schedule_is_called_here_is_that_of_torch(torch: Any, name: str) -> None:
    given, make, last = ROWS[name]
    text = FOREIGN_NAMES[name].partition(", which")[0]
    rate = eval(text, {**vars(dsl), **given})
    expected = list(itertools.islice(curve_of_torch(torch, 0.3, make, last), last))
    np.testing.assert_allclose([rate(step) for step in range(last)], expected, 1e-6, 1e-9)


def test_each_schedule_of_torch_on_the_page_is_compared() -> None:
    named = {name for name in FOREIGN_NAMES if name.endswith(("LR", "Restarts"))}
    assert named == set(ROWS)


def test_a_cosine_stays_where_torchs_rises_again(torch: Any) -> None:
    rate = cosine(0.3, steps=10, final=0.01)
    theirs = list(curve_of_torch(torch, 0.3, lambda s, o: s.CosineAnnealingLR(o, 10, 0.01), 21))
    assert [rate(step) for step in range(11)] == pytest.approx(theirs[:11], rel=1e-6)
    assert {rate(step) for step in range(10, 21)} == {rate(10)}
    assert theirs[20] == pytest.approx(0.3)


def test_restarts_of_long_trainings_are_at_their_steps() -> None:
    """Where the logarithm of float32 does not tell the cycle."""
    rate = warm_restarts(1.0, period=10, growth=3)
    value = resolve(rate, Input("step", i64[()], "state")(), f32)
    start = 0
    for cycle in range(11):
        feeds = {"step": np.asarray(start, np.int64)}
        assert float(evaluate(value, feeds)) == pytest.approx(1.0, abs=1e-6), cycle
        if start:
            feeds = {"step": np.asarray(start - 1, np.int64)}
            assert float(evaluate(value, feeds)) < 0.1
        start += 10 * 3**cycle


LONG = {
    "exponential": exponential(1.0, 0.99999),
    "exponential to nothing": exponential(1.0, 0.0),
    "steps": step_decay(1.0, 3, 0.99999),
    "cosine": cosine(0.1, steps=1_000_003, warmup=7, final=1e-3),
    "restarts": warm_restarts(0.1, period=3),
    "growing restarts": warm_restarts(0.1, period=7, growth=2),
    "one cycle": one_cycle(0.1, total_steps=1_000_003),
    "warm-up": warmup(cosine(0.1, steps=10**6), steps=300_001),
    "polynomial": polynomial(0.1, steps=1_000_003, power=2.0),
    "linear": linear_decay(0.1, steps=1_000_003),
    "inverse root": inverse_sqrt(0.1, warmup=4000),
    "multi-step": multi_step(0.1, [3, 999_999, 2**24 + 1]),
    "piecewise": piecewise([0.1, exponential(0.1, 0.99999)], [500_000]),
}


def test_rates_are_exact_at_every_step_of_a_long_training() -> None:
    """In onnxruntime, to the rounding of float32."""
    step = Input("step", i64[()], "state")()
    graph = Graph("rates", {name: resolve(rate, step, f32) for name, rate in LONG.items()})
    session = Session(to_model(optimize(graph)))
    for number in (0, 1, 6, 300_000, 999_998, 999_999, 10**6, 2**24 + 1, 10**8 + 1):
        found = session.run({"step": np.asarray(number, np.int64)})
        for name, rate in LONG.items():
            expected = pytest.approx(rate(number), rel=1.2e-7, abs=1e-30)
            assert float(found[name]) == expected, (name, number)
    assert LONG["exponential"](300_000) == pytest.approx(math.exp(3e5 * math.log(0.99999)))


def test_what_is_no_rate_is_told_where_it_is_declared() -> None:
    words = r"schedule or a function of the step, got constant(.|\n)*constant_rate\(0\.1\)"
    for make in (adam, sgd, muon, lambda rate: plateau(rate)):
        with pytest.raises(ModelError, match=words):
            make(initializers.constant(0.1))
    with pytest.raises(ModelError, match="function of the step, got exponential"):
        adam(exponential)
    with pytest.raises(ModelError, match=r"one number at each step, test_(.|\n)* gives 'high'"):
        compose(training(perceptron(), optimizer=adam(lambda step: "high")))


def test_curves_stay_where_they_end() -> None:
    assert polynomial(0.3, steps=5, final=0.1)(100) == pytest.approx(0.1)
    assert one_cycle(1.0, total_steps=20)(500) == pytest.approx(1 / 25 * 1e-4)
    assert piecewise([3.0, 2.0, 1.0], [2, 4])(1000) == 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: multi_step(0.1, [5, 5]),
        lambda: multi_step(0.1, 5),
        lambda: polynomial(-0.1, steps=5),
        lambda: linear_decay(0.1, steps=0),
        lambda: one_cycle(0.1, total_steps=3),
        lambda: one_cycle(0.1, total_steps=30, pct_start=1.0),
        lambda: warm_restarts(0.1, period=5, growth=1.5),
        lambda: warmup(0.1, steps=0),
        lambda: warmup(lambda step: step, steps=3),
        lambda: piecewise([0.1, 0.2], [1, 2]),
        lambda: one_cycle(0.1, total_steps=30, anneal_strategy="cosine"),
        lambda: one_cycle(0.1, total_steps=30, div_factor=0),
        lambda: plateau(0.1, factor=1.0),
        lambda: plateau(0.1, threshold_mode="relative"),
        lambda: plateau(0.1, mode="least"),
        lambda: plateau(0.1, patience=-1),
        lambda: plateau(0.1, monitor=True),
        lambda: plateau(plateau(0.1)),
        lambda: inverse_sqrt(0.1, warmup=0),
    ],
)
def test_figures_out_of_range_are_told(make: Any) -> None:
    with pytest.raises(ModelError):
        make()


METRICS = [5.0, 4.0, 4.5, 4.2, 4.1, 3.9999, 3.0, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 2.0, 2.1, 2.1]
PLATEAUS: list[dict[str, Any]] = [
    {"patience": 2},
    {"patience": 0, "cooldown": 2},
    {"patience": 1, "threshold_mode": "abs", "threshold": 0.5, "min_lr": 0.01},
    {"patience": 1, "mode": "max", "factor": 0.5},
    {"patience": 1, "mode": "max", "threshold_mode": "abs", "cooldown": 1},
]


def falling_in_torch(torch: Any, options: dict[str, Any], metrics: list[float]) -> list[float]:
    """The rate after each look at a metric."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, eps=0.0, **options)
    rates = []
    for metric in metrics:
        scheduler.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("options", PLATEAUS)
def test_a_plateau_that_the_program_measures_is_that_of_torch(
    torch: Any, options: dict[str, Any]
) -> None:
    rate = plateau(0.1, monitor=False, **options)
    step = Input("step", i64[()], "state")()
    state = {path: evaluate(x, {}) for path, x in rate.initial.items()}
    expected = falling_in_torch(torch, options, METRICS)
    assert len(set(expected)) > 1
    for metric, known in zip(METRICS, expected, strict=True):
        state |= rate.after(state, metric)
        now = float(evaluate(rate(step), {**state, "step": np.asarray(0, np.int64)}))
        assert now == pytest.approx(known, rel=1e-5)


def test_a_plateau_lives_in_the_step(torch: Any) -> None:
    """The rate that the training step used, of the means that it saw itself, step by step."""
    rate = plateau(0.1, "loss", every=3, patience=1, factor=0.5, threshold=0.5)
    recipe = training(perceptron(), optimizer={"*.bias": sgd(rate), "*": sgd(rate, 0.9)})
    trainer = Trainer(recipe)
    losses: list[float] = []
    rates = []
    for i in range(36):
        history = trainer.fit([data(16, i % 5)], epochs=1)
        losses.append(history.epochs[0]["loss"])
        rates.append(float(trainer.state["training.plateau.factor"]) * 0.1)
    means = [float(np.mean(losses[i : i + 3])) for i in range(0, 36, 3)]
    expected = falling_in_torch(torch, {"patience": 1, "factor": 0.5, "threshold": 0.5}, means)
    assert len(set(expected)) > 2
    assert rates[2::3] == pytest.approx(expected, rel=1e-5)


def masked() -> Model:
    """A mean of what a mask leaves."""
    x, mask = leaf("x", f32["batch"]), leaf("mask", f32["batch"])
    w = leaf("w", f32[()], "parameter")
    loss = ratio(((w * x - 1) ** 2 * mask).sum(), mask.sum())
    return Model("masked", Graph("masked", {"loss": loss}, (x, mask, w)), {"w": full((), 0.3)})


def test_a_plateau_looks_once_an_update() -> None:
    """At the mean over all batches of the update, weighed as its gradients are."""
    random = np.random.default_rng(2)
    options = {"patience": 0, "factor": 0.5, "threshold": 0.05, "every": 2}
    optimizer = sgd(plateau(0.2, **options))
    several = Trainer(training(masked(), optimizer=optimizer, accumulate=3))
    whole = Trainer(training(masked(), optimizer=optimizer))
    factors = []
    for _ in range(12):
        batch = {
            "x": random.normal(size=10).astype(np.float32),
            "mask": random.integers(0, 2, 10).astype(np.float32),
        }
        cuts = [{n: v[i:j] for n, v in batch.items()} for i, j in ((0, 2), (2, 7), (7, 10))]
        several.fit(cuts, epochs=1, shuffle=False)
        whole.fit([batch], epochs=1)
        for name in ("factor", "best", "waited", "rested", "total"):
            path = f"training.plateau.{name}"
            np.testing.assert_allclose(several.state[path], whole.state[path], rtol=1e-5)
        np.testing.assert_allclose(several.state["w"], whole.state["w"], rtol=1e-5, atol=1e-6)
        factors.append(float(whole.state["training.plateau.factor"]))
    assert len(set(factors)) > 2
    # Before the update nothing is looked at.
    before = several.state["training.plateau.total"]
    several.fit([{n: v[:1] for n, v in batch.items()}], epochs=1)
    assert several.state["training.plateau.total"] == before


@pytest.mark.parametrize(
    "optimizer", [sgd, adam, lambda rate: muon(rate, others=sgd(rate))], ids=["sgd", "adam", "muon"]
)
def test_a_plateau_watches_the_loss_of_its_update(torch: Any, optimizer: Any) -> None:
    rate = plateau(0.1, patience=1, factor=0.5, threshold=0.2)
    trainer = Trainer(training(perceptron(), optimizer=optimizer(rate)))
    losses, rates = [], []
    for i in range(12):
        history = trainer.fit([data(16, i % 3)], epochs=1)
        losses.append(history.epochs[0]["loss"])
        rates.append(float(trainer.state["training.plateau.factor"]) * 0.1)
    expected = falling_in_torch(torch, {"patience": 1, "factor": 0.5, "threshold": 0.2}, losses)
    assert len(set(expected)) > 2
    assert rates == pytest.approx(expected, rel=1e-5)


def test_each_loss_has_a_plateau_of_its_own() -> None:
    """One optimizer for a loss that grows and one that falls; what is maximized is to grow."""
    x, w, v = (leaf(n, f32[()], k) for n, k in (("x", "input"), ("w", "parameter"), ("v", "input")))
    u = leaf("u", f32[()], "parameter")
    outputs = {"first": 1e-6 * w + x, "second": 1e-6 * u + v}
    start = {"w": full((), 0.0), "u": full((), 0.0)}
    net = Model("net", Graph("net", outputs, (x, v, w, u)), start)
    shared = sgd(plateau(0.1, patience=0))
    down, up = (f("second", params="u", optimizer=shared) for f in (minimize, maximize))
    for second, factor in ((down, 1.0), (up, 0.01)):
        step = compose(training(net, updates=[minimize("first", "w", shared), second]))
        state = step.initial(0)
        for i in range(1, 4):
            feeds = {"x": np.float32(i), "v": np.float32(4 - i)}
            found = evaluate(step.step, {**state, **feeds})
            state |= {path: found[following] for path, following in step.state_map.items()}
        factors = [float(state[f"training.plateau.{n}.factor"]) for n in ("first", "second")]
        assert factors == pytest.approx([0.01, factor])


def test_a_plateau_that_watches_is_not_driven() -> None:
    for rate, words in ((plateau(0.1), "watches the loss"), (plateau(0.1, "loss"), "'loss'")):
        with pytest.raises(ModelError, match=rf"{words} (.|\n)*monitor=False"):
            rate.after({}, 1.0)


def test_a_learning_rate_with_a_state_says_what_follows() -> None:
    class Half(Stateful):
        @property
        def monitors(self) -> tuple[str, ...]:
            return ()

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_a_plateau_of_a_schedule_falls_with_both() -> None:
    rate = plateau(step_decay(0.4, 2, 0.5), monitor=False, patience=0)
    trainer = Trainer(training(perceptron(), optimizer=sgd(rate)))
    assert set(rate.initial) <= set(trainer.state)
    trainer.set_params(rate.after(trainer.state, 1.0))
    trainer.set_params(rate.after(trainer.state, 2.0))
    step = compose(trainer.recipe)
    batch = data(8)
    gradients = evaluate(step.gradient, {**trainer.state, **batch})
    trainer.set_params({"step": np.asarray(2, np.int64)})
    before = trainer.params
    trainer.fit([batch], steps=1)
    moved = before["out.weight"] - trainer.params["out.weight"]
    np.testing.assert_allclose(moved, 0.1 * 0.4 * 0.5 * gradients["out.weight.grad"], 1e-3, 1e-7)


def test_a_metric_that_the_model_lacks_is_told() -> None:
    with pytest.raises(ModelError, match="watches 'los'"):
        training(perceptron(), optimizer=sgd(plateau(0.1, "los")))
    one, other = plateau(0.1, "loss"), plateau(0.2, "loss")
    updates = [minimize(optimizer={"hidden.*": sgd(one), "*": sgd(other)})]
    with pytest.raises(ModelError, match="two learning rates use the same state"):
        compose(training(perceptron(), updates=updates))


def test_constant_is_a_schedule() -> None:
    assert [constant(0.25)(step) for step in (0, 9)] == [0.25, 0.25]
