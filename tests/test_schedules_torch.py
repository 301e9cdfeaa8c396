"""Schedules: every step of their curves against torch's, in the graph as in numbers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import dsl
from dsl.foreign_names import FOREIGN_NAMES
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, i64
from nncompile.optim import (
    cosine,
    exponential,
    inverse_sqrt,
    linear_decay,
    multi_step,
    one_cycle,
    piecewise,
    polynomial,
    schedule,
    step_decay,
    warm_restarts,
    warmup,
)
from nncompile.optim.schedules import resolve
from tests.schedule_checks import curve_of_torch

STEPS = 60


def sequence(first: Any, second: Any, milestone: int) -> Any:
    return lambda s, o: s.SequentialLR(o, [first(s, o), second(s, o)], [milestone])


CURVES: dict[str, tuple[Any, Any]] = {
    "step": (step_decay(0.3, 7, 0.5), lambda s, o: s.StepLR(o, 7, 0.5)),
    "multi-step": (
        multi_step(0.3, [3, 10, 41], 0.2),
        lambda s, o: s.MultiStepLR(o, [3, 10, 41], 0.2),
    ),
    "exponential": (exponential(0.3, 0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
    "polynomial": (polynomial(0.3, steps=40, power=2.5), lambda s, o: s.PolynomialLR(o, 40, 2.5)),
    "linear": (linear_decay(0.3, steps=40, final=0.03), lambda s, o: s.LinearLR(o, 1.0, 0.1, 40)),
    "cosine": (
        cosine(0.3, steps=STEPS, final=0.01),
        lambda s, o: s.CosineAnnealingLR(o, STEPS, 0.01),
    ),
    "restarts": (
        warm_restarts(0.3, period=7, final=0.01),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 7, 1, 0.01),
    ),
    "growing restarts": (
        warm_restarts(0.3, period=3, growth=2),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
    ),
    "restarts growing by three": (
        warm_restarts(0.3, period=4, growth=3),
        lambda s, o: s.CosineAnnealingWarmRestarts(o, 4, 3),
    ),
    "one cycle": (
        one_cycle(0.3, total_steps=STEPS + 1),
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
        lambda s, o: s.OneCycleLR(
            o, 0.3, STEPS + 1, anneal_strategy="linear", cycle_momentum=False
        ),
    ),
    "warm-up": (warmup(0.3, steps=10, start=0.25), lambda s, o: s.LinearLR(o, 0.25, 1.0, 10)),
    "warm-up of a cosine": (
        warmup(cosine(0.3, steps=50), steps=10, start=0.25),
        sequence(
            lambda s, o: s.LinearLR(o, 0.25, 1.0, 10), lambda s, o: s.CosineAnnealingLR(o, 50), 10
        ),
    ),
    "piecewise": (
        piecewise([0.3, exponential(0.3, 0.9)], [20]),
        sequence(lambda s, o: s.ConstantLR(o, 1.0, 1), lambda s, o: s.ExponentialLR(o, 0.9), 20),
    ),
    "inverse root": (
        inverse_sqrt(0.3, warmup=10),
        lambda s, o: s.LambdaLR(o, lambda t: min((t + 1) / 10, math.sqrt(10 / (t + 1)))),
    ),
    "a function": (
        schedule(lambda step: 0.3 / (1 + step)),
        lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + t)),
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_every_step_is_that_of_torch(torch: Any, name: str) -> None:
    """Numbers to 1e-6 (CosineAnnealingLR is recursive in torch), float32 in the graph to 1e-5."""
    rate, make = CURVES[name]
    leaf = Input("step", i64[()], "state")()
    value = resolve(rate, leaf, f32)
    assert not isinstance(value, float)
    for step, expected in enumerate(curve_of_torch(torch, 0.3, make, STEPS)):
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
