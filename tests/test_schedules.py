"""Schedules: long trainings, the ends of curves, and what is refused as a learning rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dsl import initializers
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, i64
from nncompile.optim import (
    adam,
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
    sgd,
    step_decay,
    warm_restarts,
    warmup,
)
from nncompile.optim.schedules import constant, resolve
from nncompile.passes import optimize
from nncompile.program.composition import compose
from nncompile.program.recipe import training
from nncompile.runtime import Session
from tests.small_models import perceptron


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


def test_constant_is_a_schedule() -> None:
    assert [constant(0.25)(step) for step in (0, 9)] == [0.25, 0.25]
