"""Gradients against differences: a gradient that is zero up to rounding passes, a wrong one does
not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import Dense, MultiHeadAttention, cross_entropy, f32, i64, model
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.locations import recording_locations
from nncompile.verify.finite_differences import GRADIENT_TOLERANCE, derivative_error, worst_gradient
from nncompile.verify.gradients import gradient_error
from nncompile.verify.inputs import Case, Inputs


@model
def attention(x=f32["batch", 6, 8], label=i64["batch"]):
    z = (x >> MultiHeadAttention(2, name="heads")).mean(1) >> Dense(3, name="dense")
    return {"loss": cross_entropy(z, label)}


def case_of(seed: int) -> Case:
    inputs = Inputs(attention, None, seed)
    return next(inputs.cases(inputs.base({}), 1))


@pytest.mark.parametrize("seed", range(24))
def test_a_gradient_that_is_zero_but_for_rounding_passes(seed: int) -> None:
    """That of the bias of attention's keys is."""
    loss, trained = attention.outputs["loss"], attention.parameters
    found = gradient_error(attention.whole, loss, trained, iter([case_of(seed)]), seed)
    assert found.count == len(trained) and not found.skipped
    assert not found.mismatches, found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("heads.key.bias", lambda gradient: gradient + 1e-8),
        ("heads.key.weight", lambda gradient: gradient * 1.0002),
        ("heads.query.bias", lambda gradient: -gradient),
        ("dense.bias", lambda gradient: gradient * 0.9998),
    ],
)
def test_a_gradient_that_is_wrong_is_found(
    path: str, wrong: Callable[[Any], Any], seed: int
) -> None:
    feeds, random = case_of(seed).feeds, np.random.default_rng(seed)
    leaf, loss = attention.parameters[path], attention.outputs["loss"]
    with recording_locations(attention.graph.locations):
        gradient = grad(loss, leaf)
    right, _ = worst_gradient(loss, {path: gradient}, feeds, random)
    error, where = worst_gradient(loss, {path: wrong(gradient)}, feeds, random)
    assert right <= GRADIENT_TOLERANCE < error
    assert where == path


FUNCTIONS: dict[str, tuple[Callable[[float], float], float]] = {
    "constant": (lambda h: 3.0, 0.0),
    "a rounding": (lambda h: (1e8 + h) - 1e8, 1.0),
    "large": (lambda h: 1e12 * math.cos(h + 1), -1e12 * math.sin(1)),
    "flat": (lambda h: 1e6 + math.cosh(h), 0.0),
    "nothing": (lambda h: 0.0, 0.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_floor_follows_the_noise(name: str) -> None:
    function, derivative = FUNCTIONS[name]
    assert derivative_error(function, derivative, abs(derivative)) <= GRADIENT_TOLERANCE
    size = max(1.0, abs(derivative))
    for error in (1e-3, -1e-2, 1.0):
        planted = derivative + error * size
        assert derivative_error(function, planted, abs(planted)) > GRADIENT_TOLERANCE


def test_what_is_not_finite_has_no_derivative() -> None:
    for function in (lambda h: math.inf, lambda h: math.nan, lambda h: math.inf if h > 0 else 1.0):
        assert derivative_error(function, 1.0, 1.0) > GRADIENT_TOLERANCE
