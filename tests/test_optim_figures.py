"""Learning rates, clipping, and the hyperparameters of optimizers: formulas, and what is
refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError
from nncompile.ir.basic import Constant, const
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, i64
from nncompile.optim import (
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    asgd,
    cosine,
    exponential,
    lamb,
    lbfgs,
    lion,
    muon,
    nadam,
    radam,
    rmsprop,
    rprop,
    schedule,
    sgd,
    step_decay,
)
from nncompile.optim.clipping import clip_by_norm, clip_by_value, global_norm
from nncompile.optim.schedules import constant, resolve
from nncompile.program.composition import compose
from nncompile.program.recipe import training
from tests.small_models import perceptron


def learning_rate(rate: Any, step: int) -> float:
    """A schedule as the graph computes it."""
    value = resolve(rate, Input("step", i64[()], "state")(), f32)
    assert not isinstance(value, float)
    return float(evaluate(value, {"step": np.asarray(step, np.int64)}))


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9, 10, 99, 100, 150, 10**6])
def test_schedules_follow_their_formulas(step: int) -> None:
    def expected_cosine(t: int) -> float:
        if t < 10:
            return 0.3 * (t + 1) / 10
        progress = min((t - 10) / 90, 1.0)
        return 0.03 + 0.27 * (1 + math.cos(math.pi * progress)) / 2

    expected = {
        step_decay(0.3, 5, 0.5): 0.3 * 0.5 ** (step // 5),
        exponential(0.3, 0.9, step_size=2): 0.3 * 0.9 ** (step / 2),
        cosine(0.3, warmup=10, steps=100, final=0.03): expected_cosine(step),
        schedule(lambda t: 0.3 / (1 + t)): 0.3 / (1 + step),
    }
    for rate, number in expected.items():
        assert rate(step) == pytest.approx(number, rel=1e-9, abs=1e-300)
        assert learning_rate(rate, step) == pytest.approx(number, rel=1e-5, abs=1e-9)


def test_a_constant_schedule_is_a_number() -> None:
    step = Input("step", i64[()], "state")()
    assert resolve(constant(0.25), step, f32) == 0.25
    assert resolve(0.25, step, f32) == 0.25
    assert constant(0.25)(7) == 0.25
    assert isinstance(resolve(lambda step: const(0.25), step, f32), float)


@pytest.mark.parametrize(
    "make",
    [
        lambda: sgd(-0.1),
        lambda: sgd(math.nan),
        lambda: sgd(0.1, momentum=1.0),
        lambda: sgd(0.1, nesterov=True),
        lambda: sgd(0.1, 0.9, nesterov=True, dampening=0.1),
        lambda: sgd(0.1, 0.9, dampening=None),
        lambda: adamax(betas=(0.9, 1.0)),
        lambda: adamax(eps=-1e-8),
        lambda: asgd(t0=-1),
        lambda: asgd(lambd=None),
        lambda: rprop(step_decay(0.1, 3)),
        lambda: rprop(etas=(1.2, 0.5)),
        lambda: rprop(etas=0.5),
        lambda: rprop(step_sizes=(50, 1e-6)),
        lambda: adafactor(beta2_decay=0.8),
        lambda: adafactor(d=0.5),
        lambda: adafactor(eps=1e-3),
        lambda: adafactor(eps=(1e-3, None)),
        lambda: lbfgs(tolerance_grad=-1),
        lambda: lbfgs(history_size=0),
        lambda: adam(betas=(1.0, 0.999)),
        lambda: adam(betas=(0.9, -0.1)),
        lambda: adamw(weight_decay=-1.0),
        lambda: rmsprop(alpha=1.5),
        lambda: adagrad(initial_accumulator_value=-1.0),
        lambda: adadelta(rho=1.0),
        lambda: lion(betas=(0.9, 1.0)),
        lambda: nadam(momentum_decay=-1),
        lambda: muon(ns_steps=0),
        lambda: muon(adjust_lr_fn="none"),
        lambda: cosine(0.1, steps=10, warmup=10),
        lambda: cosine(0.1, steps=0),
        lambda: exponential(-0.1, 0.9),
        lambda: step_decay(0.1, 0),
        lambda: sgd("0.1"),
        lambda: sgd(None),
        lambda: sgd(np.ones(2)),
        lambda: adam(1e-3, 0.9),
        lambda: adamw(1e-3, 0.1),
        lambda: sgd(0.1, nesterov=1),
        lambda: sgd(0.1, 0.9, True),
        lambda: adamw(weight_decay="1"),
        lambda: cosine("0.1", steps=10),
        lambda: cosine(0.1, steps="10"),
        lambda: constant(True),
    ],
)
def test_figures_out_of_range_are_told(make: Any) -> None:
    with pytest.raises(ModelError, match=r"must|needs|is a number"):
        make()


def test_a_line_search_is_none_of_lbfgs() -> None:
    assert lbfgs(line_search_fn=None) == lbfgs()
    with pytest.raises(ModelError, match="no line search"):
        lbfgs(line_search_fn="strong_wolfe")


@pytest.mark.parametrize("number", [np.float32, np.float64, np.array, float])
def test_figures_may_be_those_of_numpy(number: Any) -> None:
    for made in (sgd(number(0.1), momentum=number(0.9)), sgd(0.1, 0.9)):
        assert made == sgd(0.1, momentum=0.9)
        assert type(made.lr) is float
    assert constant(number(0.1))(3) == pytest.approx(0.1, rel=1e-12)


def test_a_schedule_with_axes_is_told() -> None:
    step = Input("step", i64[()], "state")()
    with pytest.raises(ModelError, match="one number"):
        resolve(lambda step: const([0.1, 0.2]), step, f32)


def clipped(clip: Any, *gradients: Any, bound: float) -> list[Any]:
    arrays = {f"g{i}": np.asarray(g, np.float32) for i, g in enumerate(gradients)}
    leaves = {name: Input(name, f32[x.shape])() for name, x in arrays.items()}
    return list(evaluate(clip(leaves, bound), arrays).values())


def test_clipping_by_norm() -> None:
    first, second = clipped(clip_by_norm, [3.0, 0.0], [[4.0]], bound=1.0)
    np.testing.assert_allclose(first, [0.6, 0.0], 1e-6)
    np.testing.assert_allclose(second, [[0.8]], 1e-6)
    within = clipped(clip_by_norm, [0.3, 0.0], [[0.4]], bound=1.0)
    np.testing.assert_array_equal(within[0], np.float32([0.3, 0.0]))
    (zero,) = clipped(clip_by_norm, [0.0, 0.0], bound=1.0)
    np.testing.assert_array_equal(zero, [0.0, 0.0])
    assert np.isnan(clipped(clip_by_norm, [np.nan, 1.0], bound=1.0)[0]).all()


def test_clipping_by_value() -> None:
    (g,) = clipped(clip_by_value, [-3.0, 0.5, 3.0, np.nan], bound=1.0)
    np.testing.assert_array_equal(g, np.float32([-1.0, 0.5, 1.0, np.nan]))


def test_the_norm_does_not_depend_on_the_order_of_the_parameters() -> None:
    a, b = Input("a", f32[3])(), Input("b", f32[2])()
    assert global_norm({"a": a, "b": b}) is global_norm({"b": b, "a": a})


def test_a_zero_gradient_leaves_the_parameter() -> None:
    w, step = Input("w", f32[2], "parameter")(), Input("step", i64[()], "state")()
    start = np.float32([1.0, -2.0])
    zeros = np.zeros(2, np.float32)
    several = (sgd(0.1, momentum=0.9), rmsprop(), rmsprop(centered=True), adagrad(), adadelta())
    several += (adamax(), asgd(lambd=0), rprop(), adafactor(), lbfgs())
    for optimizer in (
        *several,
        adam(),
        adam(amsgrad=True),
        nadam(),
        radam(),
        lion(),
        lamb(0.1, weight_decay=0),
    ):
        first = optimizer.initial(w)
        slots = {slot: Input(slot, x.type, "state")() for slot, x in first.items()}
        following, _ = optimizer.update(w, Input("g", f32[2])(), slots, step)
        feeds = {"w": start, "g": zeros, "step": np.zeros((), np.int64)}
        held = dict(zip(first, evaluate(list(first.values()), {"w": start}), strict=True))
        result = evaluate(following, feeds | held)
        np.testing.assert_array_equal(result, start)


def test_a_number_is_a_literal_of_the_graph() -> None:
    """So that passes can put it into a matrix product."""
    step = compose(training(perceptron(), optimizer=sgd(0.25)))
    assert not any(isinstance(v.op, Constant) for v in step.update.nodes if v.dtype is f32)
