"""Gradients accumulated over several batches are those of all their examples together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import Dense, f32, model, mse, parameter, relu
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f64
from nncompile.optim import adafactor, adam, adamw, asgd, lbfgs, sgd, step_decay
from nncompile.program.composition import compose
from nncompile.program.recipe import assign, ema, minimize, training
from nncompile.train import Trainer
from tests.small_models import data, perceptron
from tests.step_checks import state_after
from tests.tolerances import assert_close


@pytest.mark.parametrize(
    "optimizer",
    [
        sgd(0.1, 0.9),
        sgd(0.1, 0.9, dampening=0.5),
        adam(step_decay(0.01, 2)),
        adamw(0.01),
        adafactor(step_decay(0.1, 2)),
        asgd(0.1, lambd=0.1, t0=1),
        lbfgs(0.3),
    ],
)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_four_batches_of_sixteen_are_one_of_64(optimizer: Any, clip: float | None) -> None:
    """Three updates, in float64; only the order of the sums differs."""
    recipe = training(perceptron(f64), optimizer=optimizer, clip_norm=clip, average=ema(0.5))
    parts = training(
        perceptron(f64), optimizer=optimizer, clip_norm=clip, average=ema(0.5), accumulate=4
    )
    whole, micro = compose(recipe), compose(parts)
    one, other = whole.initial(1), micro.initial(1)
    for i in range(3):
        batch = data(64, i, "float64")
        one = state_after(whole, one, batch)
        for k in range(4):
            before = other
            other = state_after(
                micro, other, {n: x[16 * k : 16 * k + 16] for n, x in batch.items()}
            )
            changed = not np.array_equal(before["out.weight"], other["out.weight"])
            assert changed == (k == 3)
    for path in one.keys() - {"step"}:
        np.testing.assert_allclose(other[path], one[path], 1e-10, 1e-12, err_msg=path)
    assert other["step"] == 12
    assert not other["out.weight.accumulated"].any()


def mean_of_examples(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    error = (x >> Dense(2, name="out")) - target
    return {"loss": (error * error).mean()}


def mean_and_penalty(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    w = parameter("w", (4, 2), dtype=f64)
    return {"loss": mse(x @ w, target) + 0.1 * (w * w).sum()}


def mean_of_what_a_mask_leaves(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    return {"loss": mse(x >> Dense(2, name="out"), target, mask=x[:, 0] > 0.8)}


def mean_of_tokens(x: Any = f64["batch", "time", 4], target: Any = f64["batch", "time", 2]) -> Any:
    return {"loss": mse(x >> Dense(2, name="out"), target)}


@pytest.mark.parametrize(
    "function", [mean_of_examples, mean_and_penalty, mean_of_what_a_mask_leaves, mean_of_tokens]
)
def test_batches_of_unequal_sizes_are_one_of_all_their_examples(function: Any) -> None:
    net = model(function)
    options: dict[str, Any] = {"optimizer": sgd(0.1, 0.9), "clip_norm": 0.5}
    whole = compose(training(net, **options))
    parts = compose(training(net, accumulate=4, **options))
    one, other = whole.initial(1), parts.initial(1)
    for i in range(2):
        sizes = (16, 5, 16, 3) if i else (16, 16, 16, 5)
        batch = data(sum(sizes), i, "float64")
        batch["x"][16:21, 0] = 0.0  # where the mask leaves nothing of a batch
        ends = np.cumsum(sizes)
        pieces = [
            {n: x[b - a : b] for n, x in batch.items()} for a, b in zip(sizes, ends, strict=True)
        ]
        if function is mean_of_tokens:
            batch = {n: x[None] for n, x in batch.items()}
            pieces = [{n: x[None] for n, x in piece.items()} for piece in pieces]
            pieces[0] = {n: x.reshape(4, 4, -1) for n, x in pieces[0].items()}
        one = state_after(whole, one, batch)
        for piece in pieces:
            other = state_after(parts, other, piece)
        assert one["step"] * 4 == other["step"]
        for path in one.keys() - {"step"}:
            np.testing.assert_allclose(other[path], one[path], 1e-12, 1e-14, err_msg=path)
    assert other["training.loss.accumulated"] == 0


def test_batches_without_any_weight_change_nothing() -> None:
    step = compose(training(model(mean_of_what_a_mask_leaves), accumulate=2))
    start = state = step.initial(0)
    batch = {n: np.zeros_like(x) for n, x in data(8, 0, "float64").items()}
    for _ in range(2):
        state = state_after(step, state, batch)
    np.testing.assert_array_equal(state["out.weight"], start["out.weight"])


def test_a_sum_of_a_masked_mean_and_a_penalty_weighs_by_the_mask() -> None:
    def function(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
        w = parameter("w", (4, 2), dtype=f64)
        return {"loss": mse(x @ w, target, mask=x[:, 0] > 0) + (w * w).sum()}

    step = compose(training(model(function), optimizer=sgd(1.0), accumulate=2))
    start = state = step.initial(0)
    batch = data(15, 0, "float64")
    gradient = evaluate(step.gradient, {**start, **batch})["w.grad"]
    for piece in ({n: x[:12] for n, x in batch.items()}, {n: x[12:] for n, x in batch.items()}):
        state = state_after(step, state, piece)
    np.testing.assert_allclose(start["w"] - state["w"], gradient, 1e-12)


def test_the_halves_of_an_accumulating_step_are_the_step() -> None:
    """What a batch weighs is handed from `gradient` to `update`."""
    step = compose(training(model(mean_of_what_a_mask_leaves), accumulate=2))
    state = apart = step.initial(0)
    for i, count in enumerate((9, 4)):
        batch = data(count, i, "float64")
        given = evaluate(step.gradient, {**apart, **batch})
        assert given["loss.batch_weight"] == (batch["x"][:, 0] > 0.8).sum() * 2
        found = {**given, **evaluate(step.update, {**apart, **given})}
        apart = apart | {path: found[n] for path, n in step.state_map.items()}
        state = state_after(step, state, batch)
    for path, x in state.items():
        np.testing.assert_allclose(apart[path], x, 1e-12, err_msg=path)
    assert not np.array_equal(state["out.weight"], step.initial(0)["out.weight"])


def test_a_last_batch_that_is_smaller_is_accumulated_by_onnxruntime() -> None:
    one = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=53))
    other = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=16, accumulate=4))
    for trainer in (one, other):
        trainer.fit(data(53), epochs=5, shuffle=False)
    for path, x in one.params.items():
        np.testing.assert_allclose(other.params[path], x, 1e-4, 1e-5, err_msg=path)


def test_accumulation_trains_through_onnxruntime() -> None:
    examples = data(64)
    one = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=64))
    other = Trainer(training(perceptron(), optimizer=adam(0.01), batch_size=16, accumulate=4))
    one.fit(examples, epochs=5, shuffle=False)
    other.fit(examples, epochs=5, shuffle=False)
    for path, x in one.params.items():
        np.testing.assert_allclose(other.params[path], x, 1e-4, 1e-5, err_msg=path)


def test_the_mean_gradient_of_two_processes_is_that_of_one() -> None:
    """`gradient` on each half of a batch, the mean of both in `update`: the step on the whole."""
    step = compose(training(perceptron(f64), optimizer=adam(0.01), clip_norm=0.1))
    state, batch = step.initial(0), data(32, 0, "float64")
    halves = [
        evaluate(step.gradient, {**state, **{n: x[k : k + 16] for n, x in batch.items()}})
        for k in (0, 16)
    ]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    result = evaluate(step.update, {**state, **mean})
    for path, x in state_after(step, state, batch).items():
        if path in step.state_map:
            np.testing.assert_allclose(result[f"{path}.next"], x, 1e-12, 1e-14, err_msg=path)


def test_rules_are_made_at_every_step_of_an_accumulation() -> None:
    net = perceptron()
    updates = [minimize(), assign("hidden.bias", lambda v: v["hidden.bias"] + 1)]
    trainer = Trainer(training(net, updates=updates, accumulate=3))
    start = trainer.params["hidden.bias"]
    trainer.fit([data(16), data(16)], epochs=1)
    np.testing.assert_allclose(trainer.params["hidden.bias"], start + 2, rtol=1e-6)


@pytest.mark.parametrize("options", [{"noise": 0.1}, {"average": ema(0.9)}, {"max_norm": 1.0}])
def test_accumulation_goes_with_recomputing(options: dict[str, Any]) -> None:
    @model
    def net(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> dict[str, Any]:
        h = x >> Dense(8, relu, name="a") >> Dense(8, relu, name="b") >> Dense(8, relu, name="c")
        return {"loss": mse(h >> Dense(2, name="d"), target)}

    kept, again = (
        Trainer(training(net, optimizer=adam(), accumulate=2, recompute=layers, **options))
        for layers in ((), ["a", "b"])
    )
    for trainer in (kept, again):
        trainer.fit([data(16, i) for i in range(4)], epochs=1, shuffle=False)
    for path, x in kept.state.items():
        assert_close(again.state[path], x, "float32")
