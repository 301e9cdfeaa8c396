"""Naive spellings, within one formula and spread over values: values and gradients that onnxruntime
computes in float32 are right between −100 and 100."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from nncompile.autodiff.grad import grad, hvp, jacobian, jvp, vjp
from nncompile.elementwise import cosh, exp, log, log1p, sigmoid, sinh, tanh
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32
from nncompile.ops import const, log_softmax, logsumexp, mean, reshape, softmax, take_along_axis
from nncompile.ops import sum as total
from nncompile.ops.core.annotations import GradientAnchor
from nncompile.passes import optimize, stabilise
from tests.backends import optimized
from tests.leaves import leaf, vector

NEGATIVE = (-100, -88.8, -50, -30, -19, -17, -15, -9, -3.5, -1, -1e-3)
POSITIVE = (1e-3, 0.7, 2, 5, 10, 15, 17, 19, 25, 40, 50, 87, 88.8, 100)
POINTS = np.array([*NEGATIVE, *POSITIVE], np.float32)
DIGITS = 250  # of the naive spelling itself, which then cancels nothing

SPELLINGS: dict[str, Callable[[Any], Any]] = {
    "softplus": lambda u: log(1 + exp(u)),
    "softplus of a negative": lambda u: log(exp(-u) + 1),
    "softplus by log1p": lambda u: log1p(exp(u)),
    "logistic": lambda u: 1 / (1 + exp(-u)),
    "logistic by a quotient": lambda u: exp(u) / (1 + exp(u)),
    "logistic by its complement": lambda u: 1 - 1 / (1 + exp(u)),
    "logistic of two's powers": lambda u: 2**u / (1 + 2**u),
    "gradient of the logistic": lambda u: exp(-u) / (1 + exp(-u)) ** 2,
    "product of a logistic": lambda u: exp(u) * (1 / (1 + exp(u))),
    "product of sigmoid": lambda u: exp(u) * sigmoid(-u),
    "log of the logistic": lambda u: log(1 / (1 + exp(-u))),
    "log of sigmoid": lambda u: log(sigmoid(u)),
    "log of 1 - sigmoid": lambda u: log(1 - sigmoid(u)),
    "tanh": lambda u: (exp(u) - exp(-u)) / (exp(u) + exp(-u)),
    "tanh by squares": lambda u: (exp(2 * u) - 1) / (exp(2 * u) + 1),
    "tanh by a logistic": lambda u: 2 / (1 + exp(-2 * u)) - 1,
    "tanh by sinh": lambda u: sinh(u) / cosh(u),
    "tanh by factors": lambda u: sinh(u) * (1 / cosh(u)),
    "sech": lambda u: 2 / (exp(u) + exp(-u)),
    "logistic by sech": lambda u: exp(u) * (1 / (exp(u) + exp(-u))),
    "square root of the logistic's gradient": lambda u: exp(u / 2) / (1 + exp(u)),
    "log cosh": lambda u: log(cosh(u)),
    "silu": lambda u: u / (1 + exp(-u)),
    "mish": lambda u: u * tanh(log(1 + exp(u))),
    "log of an exponential": lambda u: log(3 * exp(u)),
    "log of a product": lambda u: log(sigmoid(u) * (2 + sigmoid(u))),
}
# Functions that grow, or are not defined everywhere.
SOME: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "exponential less one": (lambda u: exp(u) - 1, -100, 80),
    "log of one more": (lambda u: log(1 + u), -0.9, 100),
    "log of one more than a square": (lambda u: log(1 + u * u), -100, 100),
}


def exactly(function: Callable[[Any], Any], x: float, order: int) -> float:
    """The derivative of a spelling at a float32, from as many digits as it takes."""
    scope = {name: getattr(mpmath, name) for name in ("log", "exp", "cosh", "sinh", "tanh")}
    scope |= {"sigmoid": lambda u: 1 / (1 + mpmath.exp(-u)), "log1p": lambda u: mpmath.log(1 + u)}
    plain = type(function)(function.__code__, scope)
    with mpmath.workdps(DIGITS):
        return float(mpmath.diff(plain, mpmath.mpf(float(x)), order) if order else plain(x))


def gradients(y: Value, x: Value) -> dict[str, Value]:
    first = grad(y.sum(), x)
    return {"value": y, "first": first, "second": grad(first.sum(), x)}


def check(function: Callable[[Any], Any], spread: bool, points: np.ndarray) -> None:
    x = vector()
    y = function(x) if spread else formula(function)(x)
    found = optimized(gradients(y, x), x=points)
    for order, (name, values) in enumerate(found.items()):
        expected = np.array([exactly(function, u, order) for u in points])
        # Differences of numbers near one, as σ − σ², are right to some 1e-7.
        np.testing.assert_allclose(values, expected, 1e-5, 2e-6, err_msg=name)


@pytest.mark.parametrize("spread", [False, True], ids=["formula", "values"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_naive_spellings_are_right_everywhere(name: str, spread: bool) -> None:
    check(SPELLINGS[name], spread, POINTS)


@pytest.mark.parametrize("spread", [False, True], ids=["formula", "values"])
@pytest.mark.parametrize("name", SOME)
def test_spellings_with_a_domain_are_right_on_it(name: str, spread: bool) -> None:
    function, low, high = SOME[name]
    points = np.array([x for x in POINTS if low <= x <= high], np.float32)
    check(function, spread, points)


# Sums of exponentials.

LOGITS = np.float32([[-100, 0, 100], [100, 99, 98], [-100, -100.5, -99], [3, -2, 0.5]])
WEIGHTS = np.float32([[0.3, -1, 2], [1, 0.2, -0.7], [-0.1, 0.4, 0.9], [2, -3, 1]])
NORMALISED: dict[str, tuple[Callable[[Value], Value], Callable[[Value], Value]]] = {
    "softmax": (
        lambda x: exp(x) / total(exp(x), 1, True),
        lambda x: softmax(x, 1),
    ),
    "softmax by an inverse": (
        lambda x: exp(x) * (1 / total(exp(x), 1, True)),
        lambda x: softmax(x, 1),
    ),
    "softmax in a formula": (
        lambda x: formula(lambda u, s: 3 * exp(u) / s)(x, total(exp(x), 1, True)),
        lambda x: 3 * softmax(x, 1),
    ),
    "log softmax": (
        lambda x: log(exp(x) / total(exp(x), 1, True)),
        lambda x: log_softmax(x, 1),
    ),
    "log of a softmax": (lambda x: log(softmax(x, 1)), lambda x: log_softmax(x, 1)),
    "log of one share": (lambda x: log(softmax(x, 1)[:, 1:2]), lambda x: log_softmax(x, 1)[:, 1:2]),
    "log of the chosen share": (
        lambda x: log(take_along_axis(softmax(x, 1), const([[0]]), 1)),
        lambda x: take_along_axis(log_softmax(x, 1), const([[0]]), 1),
    ),
    "log of a mean without its axis": (
        lambda x: reshape(log(exp(x).mean(-1)), ("n", 1)),
        lambda x: logsumexp(x, 1, True) - float(np.log(3)),
    ),
    "log of a softmax in a formula": (
        lambda x: formula(lambda p: 1 - 2 * log(p))(softmax(x, 1)),
        lambda x: 1 - 2 * log_softmax(x, 1),
    ),
    "log of a sum": (lambda x: log(total(exp(x), 1, True)), lambda x: logsumexp(x, 1, True)),
    "log of a mean": (
        lambda x: log(mean(exp(x), 1, True)),
        lambda x: logsumexp(x, 1, True) - float(np.log(3)),
    ),
    "log of a mean of many": (
        lambda x: log(mean(exp(x), 0, True)),
        lambda x: logsumexp(x, 0, True) - log(total(x * 0 + 1, 0, True)),
    ),
    "log of half a sum": (
        lambda x: log(0.5 * exp(x).sum(1, keepdims=True)),
        lambda x: logsumexp(x, 1, True) - float(np.log(2)),
    ),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_sums_of_exponentials_are_right_everywhere(name: str) -> None:
    spelled, stable = NORMALISED[name]
    x, w = leaf("x", f32["n", 3]), leaf("w", f32["n", 3])

    def whole(function: Callable[[Value], Value]) -> dict[str, Value]:
        y = function(x)
        first = grad((w * y).sum(), x)
        return {"value": y, "first": first, "second": grad((w * first).sum(), x)}

    found = optimized(whole(spelled), x=LOGITS, w=WEIGHTS)
    feeds = {"x": LOGITS.astype(np.float64), "w": WEIGHTS.astype(np.float64)}
    expected = evaluate(whole(stable), feeds, np.float64)
    for order, values in found.items():
        np.testing.assert_allclose(values, expected[order], 1e-5, 1e-5, err_msg=order)


# Every way to differentiate.


def test_every_kind_of_gradient_is_of_the_stable_form() -> None:
    x, v = leaf("x", f32[3]), leaf("v", f32[3])
    y = log(1 + exp(x))
    values = {
        "vjp": vjp(y, x, v),
        "jvp": jvp(y, x, v),
        "jacobian": jacobian(y, x).sum(0),
        "hvp": hvp((y * y).sum(), x, v) / v / 2,
    }
    points, ones = np.float32([-100, 17, 100]), np.ones(3, np.float32)
    found = optimized(values, x=points, v=ones)
    for name in ("vjp", "jvp", "jacobian", "hvp"):
        np.testing.assert_allclose(found[name], [0, 1, 1], 1e-5, 1e-6, err_msg=name)


def test_a_loss_on_values_is_finite() -> None:
    z = vector("z")
    loss = 1.0 - log(sigmoid(z)).mean()
    found = optimized({"loss": loss, "gradient": grad(loss, z)}, z=np.float32([-100, -100]))
    np.testing.assert_allclose(found["loss"], 101)
    np.testing.assert_allclose(found["gradient"], [-0.5, -0.5])


# Values that are differentiated at are kept.


def test_what_is_differentiated_at_is_not_rewritten() -> None:
    x = vector()
    e = exp(x)
    s = 1 + e
    y = log(s).sum()
    at_s, at_e, at_x = grad(y, [s, e, x])
    points = np.float32([-100, -1, 0, 3])
    found = optimized({"at s": at_s, "at e": at_e, "at x": at_x}, x=points)
    inverse = 1 / (1 + np.exp(points.astype(np.float64)))
    np.testing.assert_allclose(found["at s"], inverse, 1e-6)
    np.testing.assert_allclose(found["at e"], inverse, 1e-6)
    np.testing.assert_allclose(found["at x"], 1 - inverse, 1e-6, 1e-7)
    assert grad(y, x) is not at_x  # nothing is held there
    np.testing.assert_allclose(
        optimized({"gradient": grad(y, x)}, x=np.float32([100]))["gradient"], 1
    )


def test_values_that_are_differentiated_at_are_those_of_the_user() -> None:
    x, w = vector(), vector("w")
    h = w * x
    gradient = grad((h * h).sum(), h)
    nodes = toposort([gradient])
    assert h in set(nodes)
    assert not any(isinstance(v.op, GradientAnchor) for v in nodes)


def test_shared_work_is_not_done_twice() -> None:
    """What a stable form keeps of several values stays theirs."""
    x = vector()
    long = tanh(x) * 0.3 + cosh(x)
    e = exp(long)
    graph = optimize(Graph("shared", {"y": log(1 + e), "long": long, "e": e}))
    assert sum(v.op.body.count(type(cosh(x).op.body)) for v in graph.nodes if v.args) == 1  # type: ignore[attr-defined]


def test_complements_of_named_functions_are_seen_across_values() -> None:
    """2σ(u) − 1 cancels at small u: it is a tanh of half of it."""
    u = apply(Input("u", f32["n"]))
    half, negative, mirrored = (
        formula(function)(u)
        for function in (lambda x: tanh(x / 2), lambda x: -tanh(x / 2), lambda x: sigmoid(-x))
    )
    for spelled, stable in (
        (2 * sigmoid(u) - 1, half),
        (formula(lambda s: 2 * s - 1)(sigmoid(u)), half),
        (1 - 2 * sigmoid(u), negative),
        (formula(lambda s: 1 - 2 * s)(sigmoid(u)), negative),
        (1 - sigmoid(u), mirrored),
    ):
        assert stabilise(Graph("complement", {"y": spelled})).outputs["y"] is stable
