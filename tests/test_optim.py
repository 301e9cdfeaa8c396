"""Optimizers: their steps against torch's, and what their slots hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f64
from nncompile.optim import (
    Optimizer,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    adamw,
    asgd,
    cosine,
    exponential,
    lbfgs,
    nadam,
    radam,
    rmsprop,
    rprop,
    sgd,
    step_decay,
)
from nncompile.program.composition import compose
from nncompile.program.recipe import training
from nncompile.train import Trainer
from tests.small_models import data, perceptron
from tests.tolerances import assert_close

STEPS = 24


def trained_by_torch(
    torch: Any, start: dict[str, Any], batches: list[dict[str, Any]], case: Case
) -> dict[str, Any]:
    """The parameters after the same steps in torch."""
    p = {path: torch.nn.Parameter(torch.from_numpy(x.copy())) for path, x in start.items()}
    optimizer = case.torch(torch.optim, list(p.values()))
    scheduler = case.schedule and torch.optim.lr_scheduler.LambdaLR(optimizer, case.schedule)
    for batch in batches:
        x, target = (torch.from_numpy(batch[name]) for name in ("x", "target"))
        hidden = torch.tanh(x @ p["hidden.weight"] + p["hidden.bias"])
        loss = ((hidden @ p["out.weight"] - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if case.options.get("clip_value"):
            torch.nn.utils.clip_grad_value_(p.values(), case.options["clip_value"])
        if case.options.get("clip_norm"):
            torch.nn.utils.clip_grad_norm_(p.values(), case.options["clip_norm"])
        if case.options.get("clip_each_norm"):
            for one in p.values():
                torch.nn.utils.clip_grad_norm_([one], case.options["clip_each_norm"])
        optimizer.step(lambda loss=loss: loss)
        if scheduler:
            scheduler.step()
    return {path: x.detach().numpy() for path, x in p.items()}


class Case:
    """One of our optimizers, and a function that makes the same of torch's."""

    def __init__(self, ours: Optimizer, torch: Any, schedule: Any = None, **options: float) -> None:
        self.ours, self.torch, self.schedule = ours, torch, schedule
        self.options: dict[str, Any] = options


def same(ours: Any, theirs: str, *lr: float, falls: float | None = None, **options: Any) -> Case:
    """torch's optimizer of that name, whose options have the names of ours; with a learning rate
    that `falls` by a factor at each step."""
    rate = lr if falls is None else (exponential(*lr, falls),)
    return Case(
        ours(*rate, **options),
        lambda o, p: getattr(o, theirs)(p, *lr, **options),
        schedule=falls and (lambda step: falls**step),
    )


CASES = {
    "sgd": same(sgd, "SGD", 0.1),
    "sgd, weight decay": same(sgd, "SGD", 0.1, weight_decay=0.1),
    "sgd, scheduled": Case(
        sgd(step_decay(0.1, 3, 0.5)),
        lambda o, p: o.SGD(p, 0.1),
        schedule=lambda step: 0.5 ** (step // 3),
    ),
    "momentum": same(sgd, "SGD", 0.1, momentum=0.9),
    "momentum, weight decay": same(sgd, "SGD", 0.1, momentum=0.9, weight_decay=0.1),
    "momentum, scheduled": same(sgd, "SGD", 0.1, falls=0.8, momentum=0.9),
    "nesterov": same(sgd, "SGD", 0.1, momentum=0.9, nesterov=True),
    "nesterov, scheduled": same(sgd, "SGD", 0.1, falls=0.8, momentum=0.9, nesterov=True),
    "dampening": same(sgd, "SGD", 0.1, momentum=0.9, dampening=0.3),
    "dampening, scheduled": same(
        sgd, "SGD", 0.1, falls=0.8, momentum=0.9, dampening=-0.5, weight_decay=0.1
    ),
    "asgd": same(asgd, "ASGD", 0.1),
    "asgd, all options": same(asgd, "ASGD", 0.1, lambd=0.1, alpha=0.6, t0=3, weight_decay=0.1),
    "rprop": same(rprop, "Rprop", 0.01),
    "rprop, all options": same(rprop, "Rprop", 0.01, etas=(0.7, 1.1), step_sizes=(5e-3, 0.012)),
    "adamax": same(adamax, "Adamax", 0.01),
    "adamax, all options": Case(
        adamax(exponential(0.01, 0.9), (0.8, 0.7), 1e-3, 0.1),
        lambda o, p: o.Adamax(p, 0.01, betas=(0.8, 0.7), eps=1e-3, weight_decay=0.1),
        schedule=lambda step: 0.9**step,
    ),
    "adafactor": same(adafactor, "Adafactor", 0.05),
    "adafactor, all options": Case(
        adafactor(exponential(0.5, 0.9), -0.5, (1e-4, 1e-2), 1.5, 0.1),
        lambda o, p: o.Adafactor(
            p, 0.5, beta2_decay=-0.5, eps=(1e-4, 1e-2), d=1.5, weight_decay=0.1
        ),
        schedule=lambda step: 0.9**step,
    ),
    "lbfgs": Case(lbfgs(0.5), lambda o, p: o.LBFGS(p, 0.5, max_iter=1, history_size=10)),
    "lbfgs, short memory": Case(
        lbfgs(exponential(0.5, 0.9), history_size=3),
        lambda o, p: o.LBFGS(p, 0.5, max_iter=1, history_size=3),
        schedule=lambda step: 0.9**step,
    ),
    "rmsprop": same(rmsprop, "RMSprop", 0.01),
    "rmsprop, momentum and weight decay": same(
        rmsprop, "RMSprop", 0.01, momentum=0.5, weight_decay=0.1, eps=1e-3
    ),
    "adam": same(adam, "Adam", 0.01),
    "adam, weight decay and epsilon": same(adam, "Adam", 0.01, weight_decay=0.1, eps=1e-2),
    "adam, scheduled": Case(
        adam(cosine(0.01, warmup=3, steps=8)),
        lambda o, p: o.Adam(p, 0.01),
        schedule=lambda step: cosine(1.0, warmup=3, steps=8)(step),
    ),
    "adamw": same(adamw, "AdamW", 0.01, weight_decay=0.1),
    "adamw, scheduled": Case(
        adamw(step_decay(0.01, 4), weight_decay=0.1),
        lambda o, p: o.AdamW(p, 0.01, weight_decay=0.1),
        schedule=lambda step: 0.1 ** (step // 4),
    ),
    "adagrad": same(adagrad, "Adagrad", 0.05),
    "adagrad, all options": same(
        *(adagrad, "Adagrad", 0.05),
        lr_decay=0.1,
        weight_decay=0.1,
        initial_accumulator_value=0.3,
        eps=1e-3,
    ),
    "adadelta": same(adadelta, "Adadelta"),
    "adadelta, all options": same(adadelta, "Adadelta", 0.5, rho=0.8, eps=1e-4, weight_decay=0.1),
    "rmsprop, centered": same(rmsprop, "RMSprop", 0.01, centered=True, eps=1e-3),
    "rmsprop, centered with momentum": same(
        rmsprop, "RMSprop", 0.01, alpha=0.9, centered=True, momentum=0.5, eps=1e-3
    ),
    "amsgrad": same(adam, "Adam", 0.01, amsgrad=True),
    "amsgrad, short memory": Case(
        adamw(0.01, (0.9, 0.5), weight_decay=0.1, amsgrad=True),
        lambda o, p: o.AdamW(p, 0.01, betas=(0.9, 0.5), weight_decay=0.1, amsgrad=True),
    ),
    "nadam": same(nadam, "NAdam", 0.01),
    "nadam, weight decay": same(nadam, "NAdam", 0.01, weight_decay=0.1, momentum_decay=0.1),
    "nadam, decoupled and scheduled": same(
        nadam, "NAdam", 0.01, falls=0.8, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "radam": same(radam, "RAdam", 0.01),
    "radam, weight decay": same(radam, "RAdam", 0.01, betas=(0.9, 0.9), weight_decay=0.1),
    "radam, decoupled": same(radam, "RAdam", 0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "clip_each_norm": Case(sgd(0.5), lambda o, p: o.SGD(p, 0.5), clip_each_norm=0.1),
    "clip_norm": Case(sgd(0.5), lambda o, p: o.SGD(p, 0.5), clip_norm=0.3),
    "clip_value": Case(sgd(0.5), lambda o, p: o.SGD(p, 0.5), clip_value=0.05),
    "both clips, adam": Case(
        adam(0.01), lambda o, p: o.Adam(p, 0.01), clip_value=0.1, clip_norm=0.2
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_torch(torch: Any, name: str) -> None:
    case = CASES[name]
    recipe = training(perceptron(), optimizer=case.ours, **case.options)
    trainer = Trainer(recipe)
    start = trainer.params
    batches = [data(16, seed) for seed in range(STEPS)]
    trainer.fit(batches, epochs=1)
    # In double precision, so that what is measured is our rounding alone.
    wide = [{name: x.astype(np.float64) for name, x in batch.items()} for batch in batches]
    doubled = {path: x.astype(np.float64) for path, x in start.items()}
    expected = trained_by_torch(torch, doubled, wide, case)
    for path, x in trainer.params.items():
        assert not np.array_equal(x, start[path]), path
        if name.startswith("lbfgs"):  # the change of a gradient has fewer digits than it
            np.testing.assert_allclose(x, expected[path], 1e-3, 2e-5, err_msg=path)
        else:
            assert_close(x, expected[path], "float32", path)


@pytest.mark.parametrize("name", CASES)
def test_steps_in_double_are_those_of_torch(torch: Any, name: str) -> None:
    """The formulas themselves, where rounding does not hide a difference."""
    case = CASES[name]
    step = compose(training(perceptron(f64), optimizer=case.ours, **case.options))
    state = step.initial(0)
    start = {path: state[path] for path in step.parameters}
    batches = [data(16, seed, "float64") for seed in range(STEPS)]
    for batch in batches:
        result = evaluate(step.step, {**state, **batch})
        state |= {path: result[following] for path, following in step.state_map.items()}
    # torch's clip_grad_norm_ divides by norm + 1e-6, its NAdam multiplies the momenta in float32,
    # its ASGD keeps the falling rate in float32, and schedules here are float32.
    rounded = case.schedule is not None or case.options.keys() & {"clip_norm", "clip_each_norm"}
    rounded = rounded or name.startswith(("nadam", "asgd"))
    tolerance = 3e-6 if rounded else 1e-10
    for path, x in trained_by_torch(torch, start, batches, case).items():
        np.testing.assert_allclose(state[path], x, tolerance, tolerance, err_msg=path)


def test_the_slots_of_each_optimizer() -> None:
    slots = {
        name: set(compose(training(perceptron(), optimizer=case.ours)).state)
        for name, case in CASES.items()
    }
    paths = {"hidden.weight", "hidden.bias", "out.weight"}
    assert slots["sgd"] == {"step", "seed"} | paths
    assert slots["momentum"] - slots["sgd"] == {f"{path}.u" for path in paths}
    assert slots["lbfgs"] - slots["sgd"] == {
        f"training.lbfgs.{slot}" for slot in ("s", "y", "rho", "g", "move", "scale")
    }
    assert slots["adafactor"] - slots["sgd"] == {
        "hidden.bias.variance",
        *(f"{p}.weight.{slot}" for p in ("hidden", "out") for slot in ("row_var", "col_var")),
    }
    assert slots["adam"] - slots["sgd"] == {f"{p}.{slot}" for p in paths for slot in "mv"}
