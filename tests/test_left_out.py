"""Gradients of masked losses: what is left out has none, whatever the prediction is there."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import boolean, cross_entropy, f32, i64, log_softmax, mse, negative_log_likelihood, sigmoid
from nncompile import evaluate, grad
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value

MASKED = [
    name
    for name in dsl.losses.__all__
    if "mask" in inspect.signature(getattr(dsl, name)).parameters and name != "ctc_loss"
]
ROWS, CLASSES = 4, 3
COUNTS = np.array([True, False, True, False])
RNG = np.random.default_rng(0)

p = Input("p", f32[ROWS, CLASSES])()
t = Input("t", f32[ROWS, CLASSES])()
labels = Input("labels", i64[ROWS])()
several = Input("several", i64[ROWS, CLASSES])()
sides = Input("sides", f32[ROWS])()
same = Input("same", boolean[ROWS])()
mask = Input("mask", boolean[ROWS])()

FEEDS = {
    "p": RNG.uniform(0.1, 0.9, (ROWS, CLASSES)).astype("f4"),
    "t": RNG.uniform(0.1, 0.9, (ROWS, CLASSES)).astype("f4"),
    "labels": np.array([0, 2, 1, 1]),
    "several": np.full((ROWS, CLASSES), -1),
    "sides": np.array([1, -1, 1, -1], "f4"),
    "same": np.array([True, False, False, True]),
    "mask": COUNTS,
}
TARGETS: dict[str, tuple[Value, ...]] = {
    "contrastive_loss": (t, same),
    "cosine_embedding_loss": (t, sides),
    "focal_loss": (labels,),
    "gaussian_nll": (t, t * t + 1),
    "margin_ranking_loss": (t, t),
    "multiclass_hinge": (labels,),
    "multilabel_margin_loss": (several,),
    "negative_log_likelihood": (labels,),
    "cross_entropy": (labels,),
    "triplet_loss": (t, t * 0.5),
}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("name", MASKED)
def test_a_prediction_that_is_left_out(name: str, wrong: float) -> None:
    """Loss and gradient are those of the rows that count."""
    targets = TARGETS.get(name, (t,))
    loss = getattr(dsl, name)
    y = loss(p, *targets, mask=mask)
    outputs = [y, grad(y, p)]
    expected = evaluate(outputs, FEEDS)
    spoiled = np.where(COUNTS[:, None], FEEDS["p"], np.float32(wrong))
    with np.errstate(all="ignore"):
        found = evaluate(outputs, {**FEEDS, "p": spoiled})
    # The divisor apart, it is the loss without these rows at all.
    np.testing.assert_array_equal(found[1][~COUNTS], 0)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_channels_in_the_middle() -> None:
    x = Input("x", f32[2, 3, 4, 5])()
    numbers = Input("numbers", i64[2, 4, 5])()
    here = Input("here", boolean[2, 4, 5])()
    y = cross_entropy(x, numbers, axis=1, mask=here)
    feeds = {
        "x": RNG.standard_normal((2, 3, 4, 5)).astype("f4"),
        "numbers": RNG.integers(0, 3, (2, 4, 5)),
        "here": RNG.random((2, 4, 5)) < 0.5,
    }
    spoiled = np.where(feeds["here"][:, None], feeds["x"], np.nan).astype("f4")
    outputs = [y, grad(y, x)]
    clean, found = (evaluate(outputs, {**feeds, "x": data}) for data in (feeds["x"], spoiled))
    np.testing.assert_array_equal(found[0], clean[0])
    np.testing.assert_array_equal(found[1], clean[1])


def test_targets_that_are_missing() -> None:
    """NaN for what was not measured, and the mask says so."""
    y = mse(p, target=t, mask=dsl.isfinite(t))
    missing = FEEDS["t"].copy()
    missing[0, 1] = missing[2, 2] = np.nan
    loss, gradient = evaluate([y, grad(y, p)], {**FEEDS, "t": missing})
    there = np.isfinite(missing)
    assert loss == pytest.approx(np.mean((FEEDS["p"] - missing)[there] ** 2), rel=1e-6)
    expected = np.where(there, 2 * (FEEDS["p"] - missing), 0) / there.sum()
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "function", "target"),
    [
        (dsl.binary_cross_entropy, sigmoid, t),
        (dsl.binary_cross_entropy, lambda x: 1 - sigmoid(x), t),
        (negative_log_likelihood, lambda x: log_softmax(x, -1), labels),
    ],
)
def test_naive_spellings_stay_stable(loss: Any, function: Any, target: Value) -> None:
    """log(sigmoid(x)) far out: no `where` stands between the two."""
    y, masked = loss(function(p), target), loss(function(p), target, mask=mask)
    far = {**FEEDS, "p": 200 * (FEEDS["p"] - 0.5)}
    every = {**far, "mask": np.ones(ROWS, bool)}
    expected, found = (evaluate([a, grad(a, p)], every) for a in (y, masked))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)
    spoiled = {**far, "p": np.where(COUNTS[:, None], far["p"], np.nan).astype("f4")}
    assert np.isfinite(evaluate([masked, grad(masked, p)], spoiled)[1]).all()


def test_a_loss_without_a_mask_is_as_it_was() -> None:
    nodes = [v.op for v in Graph("g", {"y": mse(p, t)}).nodes]
    assert len(nodes) == 5  # two leaves, the squares of the differences, their sum, its share
