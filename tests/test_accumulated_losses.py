"""Losses over several batches: sums and means, their factors and additions, in evaluation and in
accumulated gradients."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    Dense,
    cast,
    cross_entropy,
    exp,
    f32,
    i64,
    l2,
    mae,
    maximum,
    model,
    mse,
    ratio,
    sgd,
    total,
    training,
)
from nncompile.ir.basic import size_value
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import boolean
from nncompile.program import linear_terms
from nncompile.program.linear_terms import is_data
from nncompile.program.metric_aggregation import accumulation, weight_of
from nncompile.train import Trainer
from tests.leaves import leaf

ROUNDING = 1e-6
RNG = np.random.default_rng(0)
DATA = {
    "x": RNG.normal(size=(8, 4)).astype(np.float32),
    "y": np.array([0, 1, 2, 0, 1, 1, 0, 2]),
}


@model(predict="o")
def counted(x=f32["batch", 4], y=i64["batch"]):  # type: ignore[no-untyped-def]
    o = x >> Dense(3)
    losses, n = cross_entropy(o, y, reduction="sum", mask=y > 0), dsl.sum(cast(y > 0, f32))
    weighted = mse(o, 0.5 * o, reduction="sum", weight=cast(y, f32))
    return {
        "o": o,
        "loss": losses / n,
        "guarded": losses / maximum(dsl.sum(y > 0), 1),
        "perplexity": exp(losses / n),
        "marked": losses / total(n),
        "ratio": ratio(losses, n),
        "weighted": weighted / dsl.sum(y),
        "examples": losses / o.shape[0],
        "sum": losses,
    }


def test_sums_divided_by_a_count_are_those_of_all_batches() -> None:
    trainer = Trainer(training(counted, minimize="loss"), seed=0)
    whole = trainer.evaluate(DATA, batch_size=8)
    assert whole["loss"] == pytest.approx(whole["ratio"], rel=ROUNDING)
    for batch in (4, 3, 1):
        assert trainer.evaluate(DATA, batch_size=batch) == pytest.approx(whole, rel=ROUNDING)


LOSSES: dict[str, Any] = {
    "masked": lambda o, y: cross_entropy(o, y, ignore_index=0),
    "penalty": lambda o, y: cross_entropy(o, y, ignore_index=0) + l2("*.weight", 0.1),
    "factor": lambda o, y: 0.5 * cross_entropy(o, y, ignore_index=0) + 1,
    "two": lambda o, y: mse(o, 0.5 * o, mask=y > 0) + 0.1 * mae(o, 0.3 * o, mask=y > 0),
    "plain": lambda o, y: 2 * cross_entropy(o, y) + mse(o, 0.5 * o),
    "sum": lambda o, y: cross_entropy(o, y, reduction="sum"),
    "sum of losses": lambda o, y: 0.5 * dsl.sum(cross_entropy(o, y, reduction="none")),
}


@pytest.mark.parametrize("name", LOSSES)
def test_accumulated_batches_are_one(name: str) -> None:
    @model(predict="o")
    def net(x=f32["batch", 4], y=i64["batch"]):  # type: ignore[no-untyped-def]
        o = x >> Dense(3, name="head")
        return {"o": o, "loss": LOSSES[name](o, y)}

    trained = []
    for count, batch in ((1, 8), (2, 4), (3, 3), (4, 2)):
        recipe = training(net, optimizer=sgd(0.1), accumulate=count, batch_size=batch)
        trainer = Trainer(recipe, seed=0)
        trainer.fit(DATA, epochs=1, shuffle=False)
        trained.append(trainer.params["head.weight"])
    assert np.abs(trained[0] - Trainer(training(net), seed=0).params["head.weight"]).max() > 1e-3
    for weight in trained[1:]:
        np.testing.assert_allclose(weight, trained[0], atol=ROUNDING)


N = f32["n"].shape[0]


def test_means_that_weigh_unlike_weigh_as_the_examples() -> None:
    x, y = leaf("x", f32["n"]), leaf("y", f32["n"])
    one, other = leaf("one", boolean["n"]), leaf("other", boolean["n"])
    same = mse(x, y, mask=one) + mae(x, y, mask=one)
    assert weight_of(same, N) is cast(one, f32).sum()
    for unlike in (
        mse(x, y, mask=one) + mae(x, y, mask=other),
        mae(x, y, mask=other) + mse(x, y),
        mse(x, y) + mse(x[1:], y[1:]),
    ):
        assert weight_of(unlike, N) is size_value(N, f32)


def test_a_loss_of_many_penalties_takes_linear_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are far from each of the sums, and looked for once."""
    seen: list[Value] = []

    def noted(v: Value) -> bool:
        seen.append(v)
        return is_data(v)

    monkeypatch.setattr(linear_terms, "is_data", noted)
    x, count = leaf("x", f32["n", 2]), 300
    weights = [Input(f"w{i}", f32[2], "parameter")() for i in range(count)]
    loss = reduce(lambda sum_, w: sum_ + 0.1 * (w * w).sum(), weights, (x * x).mean())
    found = linear_terms.linear_terms(loss, N)
    assert found.terms == [(x * x).mean()]
    assert len(found.leaves_of_rest) == count
    assert len(seen) < 10 * count


def test_totals_beside_means_are_left_together() -> None:
    """exp(Σ) times a mean is no sum over batches of anything, nor follows from both."""
    x, y = leaf("x", f32["n"]), leaf("y", f32["n"])
    mixed = exp(total(x.sum())) * y.mean()
    assert accumulation({"m": mixed}, N).parts.keys() == {"m"}
    apart = exp(total(x.sum())) * total(y.sum())
    assert len(accumulation({"m": apart}, N).parts) == 2
