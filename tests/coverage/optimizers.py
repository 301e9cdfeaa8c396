"""Rows: optimizers and learning rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dsl
from nncompile.ir.basic import as_value
from nncompile.ir.graph import Graph, Input
from nncompile.ir.types import i64
from nncompile.optim import Optimizer
from nncompile.program.composition import compose
from nncompile.program.recipe import Recipe
from tests.coverage.checks import System
from tests.coverage.nets import network
from tests.coverage.peers import Peer, curve, descent

OPTIMIZERS, SCHEDULES = "Optimizers", "Schedules"


def _optimizer(
    name: str, make: Callable[[], Optimizer], peer: Any = None, **options: Any
) -> System:
    """The update, state and gradients to state, as a function with gradients of its own; ten steps
    of a network with it; and the same in torch."""

    def recipe() -> Recipe:
        return dsl.training(network(), optimizer=make(), batch_size=8)

    shown = {"agrees": "torch"} if peer else {}
    return System(
        name,
        OPTIMIZERS,
        lambda: compose(recipe()).step,
        recipe,
        peer=peer and descent(lambda o, p: peer(o, list(p.values()))),
        feeds=lambda rng: {"step": np.asarray(9, np.int64)},  # where RAdam has begun to rectify
        **{**shown, **options},
    )


OPTIMIZER_ROWS = (
    _optimizer("SGD", lambda: dsl.sgd(0.1), lambda o, p: o.SGD(p, 0.1)),
    _optimizer("momentum", lambda: dsl.sgd(0.1, momentum=0.9),
               lambda o, p: o.SGD(p, 0.1, momentum=0.9)),
    _optimizer("Nesterov", lambda: dsl.sgd(0.1, momentum=0.9, nesterov=True),
               lambda o, p: o.SGD(p, 0.1, momentum=0.9, nesterov=True)),
    _optimizer("dampening", lambda: dsl.sgd(0.1, momentum=0.9, dampening=0.5),
               lambda o, p: o.SGD(p, 0.1, momentum=0.9, dampening=0.5)),
    _optimizer("ASGD", lambda: dsl.asgd(0.1, lambd=0.1, t0=3),
               lambda o, p: o.ASGD(p, 0.1, lambd=0.1, t0=3)),
    _optimizer("Rprop", lambda: dsl.rprop(), lambda o, p: o.Rprop(p)),
    _optimizer("AdaGrad", lambda: dsl.adagrad(0.05), lambda o, p: o.Adagrad(p, 0.05)),
    _optimizer("AdaDelta", lambda: dsl.adadelta(), lambda o, p: o.Adadelta(p)),
    _optimizer("RMSProp", lambda: dsl.rmsprop(0.01), lambda o, p: o.RMSprop(p, 0.01)),
    _optimizer("Adam", lambda: dsl.adam(0.01), lambda o, p: o.Adam(p, 0.01)),
    _optimizer("AMSGrad", lambda: dsl.adam(0.01, amsgrad=True),
               lambda o, p: o.Adam(p, 0.01, amsgrad=True)),
    _optimizer("AdamW", lambda: dsl.adamw(0.01, weight_decay=0.1),
               lambda o, p: o.AdamW(p, 0.01, weight_decay=0.1)),
    _optimizer("Adamax", lambda: dsl.adamax(0.01), lambda o, p: o.Adamax(p, 0.01)),
    _optimizer("Adafactor", lambda: dsl.adafactor(0.05), lambda o, p: o.Adafactor(p, 0.05)),
    _optimizer("L-BFGS", lambda: dsl.lbfgs(0.3),
               lambda o, p: o.LBFGS(p, 0.3, max_iter=1, history_size=10)),
    _optimizer("NAdam", lambda: dsl.nadam(0.01), lambda o, p: o.NAdam(p, 0.01)),
    _optimizer("RAdam", lambda: dsl.radam(0.01), lambda o, p: o.RAdam(p, 0.01)),
    _optimizer("Muon", lambda: dsl.muon(0.02), test="tests/test_optim_updates.py",
               agrees="torch in all but its bfloat16"),
    _optimizer("Lion", lambda: dsl.lion(0.01), test="tests/test_optim_papers.py",
               agrees="its paper"),
    _optimizer("LAMB", lambda: dsl.lamb(0.01), test="tests/test_optim_papers.py",
               agrees="its paper"),
)  # fmt: skip


def _descent(rate: Any) -> Recipe:
    return dsl.training(network(), optimizer=dsl.sgd(rate), batch_size=8)


def _schedule(name: str, make: Callable[[], Any], peer: Any = None, **options: Any) -> System:
    """The rates of 61 steps, of integers and so without a gradient; ten steps with them; and the
    rates in torch."""

    def build() -> Graph:
        step = Input("step", i64["steps"])()
        zero = 0 * dsl.cast(step, dsl.f32)  # a constant is a rate for each step, too
        return Graph("schedule", {"rate": as_value(make()(step)) + zero}, (step,))

    shown: dict[str, Any] = {"agrees": "torch", "peer": peer} if peer else {}
    return System(name, SCHEDULES, build, lambda: _descent(make()), order=0,
                  feeds=lambda rng: {"step": np.arange(61)}, **{**shown, **options})  # fmt: skip


def _watching() -> Recipe:
    """A rate that has a state, and is halved where the loss has not fallen by a fifth."""
    return _descent(dsl.plateau(0.3, patience=0, threshold=0.2, factor=0.5))


_WATCHING = descent(
    lambda o, p: o.SGD(list(p.values()), 0.3),
    plateau=lambda s, o: s.ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.2, eps=0.0),
)


def _adjustable() -> Recipe:
    """A rate that a program may set, and that nobody sets, and a slot beside it."""
    return dsl.training(
        network(), optimizer=dsl.sgd(dsl.adjustable(0.3), momentum=0.9), batch_size=8
    )


def _sequence(first: Any, second: Any, milestone: int) -> Peer:
    return curve(0.3, lambda s, o: s.SequentialLR(o, [first(s, o), second(s, o)], [milestone]))


SCHEDULE_ROWS = (
    _schedule("constant rate", lambda: dsl.constant_rate(0.3),
              curve(0.3, lambda s, o: s.LambdaLR(o, lambda step: 1.0))),
    _schedule("step decay", lambda: dsl.step_decay(0.3, 7, 0.5),
              curve(0.3, lambda s, o: s.StepLR(o, 7, 0.5))),
    _schedule("multi-step decay", lambda: dsl.multi_step(0.3, [3, 10, 41], 0.2),
              curve(0.3, lambda s, o: s.MultiStepLR(o, [3, 10, 41], 0.2))),
    _schedule("exponential decay", lambda: dsl.exponential(0.3, 0.9),
              curve(0.3, lambda s, o: s.ExponentialLR(o, 0.9))),
    _schedule("linear decay", lambda: dsl.linear_decay(0.3, steps=40, final=0.03),
              curve(0.3, lambda s, o: s.LinearLR(o, 1.0, 0.1, 40))),
    _schedule("polynomial decay", lambda: dsl.polynomial(0.3, steps=40, power=2.5),
              curve(0.3, lambda s, o: s.PolynomialLR(o, 40, 2.5))),
    _schedule("inverse square root", lambda: dsl.inverse_sqrt(0.3, warmup=5),
              agrees="its formula", test="tests/test_schedules_torch.py"),
    _schedule("cosine decay", lambda: dsl.cosine(0.3, steps=60, final=0.01),
              curve(0.3, lambda s, o: s.CosineAnnealingLR(o, 60, 0.01))),
    _schedule("warm restarts", lambda: dsl.warm_restarts(0.3, period=3, growth=2),
              curve(0.3, lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2))),
    _schedule("warm-up", lambda: dsl.warmup(dsl.cosine(0.3, steps=50), steps=10, start=0.25),
              _sequence(lambda s, o: s.LinearLR(o, 0.25, 1.0, 10),
                        lambda s, o: s.CosineAnnealingLR(o, 50), 10)),
    _schedule("one-cycle", lambda: dsl.one_cycle(0.3, total_steps=62),
              curve(0.3, lambda s, o: s.OneCycleLR(o, 0.3, 62, cycle_momentum=False))),
    _schedule("piecewise", lambda: dsl.piecewise([0.3, dsl.exponential(0.3, 0.8)], [10]),
              _sequence(lambda s, o: s.ConstantLR(o, 1.0, 10),
                        lambda s, o: s.ExponentialLR(o, 0.8), 10)),
    System("plateau", SCHEDULES, lambda: compose(_watching()).step, _watching, agrees="torch",
           peer=_WATCHING),
    System("adjustable", SCHEDULES, lambda: compose(_adjustable()).step, _adjustable,
           agrees="torch", peer=descent(lambda o, p: o.SGD(list(p.values()), 0.3, momentum=0.9)),
           test="tests/test_rates_set.py"),
)  # fmt: skip

ROWS = (*OPTIMIZER_ROWS, *SCHEDULE_ROWS)
