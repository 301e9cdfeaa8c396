"""What inference and `release` take out: dropout, annotations, declared gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, Dropout, f64, grad, model, tanh
from dsl import sum as total
from nncompile.diagnostics.locations import scope
from nncompile.elementwise import exp, where
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ops import custom_gradient
from nncompile.ops.core.annotations import GradientAnchor
from nncompile.ops.core.modes import Training
from nncompile.ops.random.generator import dropout
from nncompile.ops.reduction.totals import ConcatenatedState, SumState
from nncompile.passes import inference
from nncompile.program.initialization import initial_values
from tests.pass_checks import A, B, after


def test_release_drops_declared_gradients() -> None:
    @formula(derivative=lambda x: 1)
    def hard(x: Value) -> Value:
        return where(x > 0.5, 1.0, 0.0)

    @custom_gradient(lambda g, y, x: g)
    def straight(x: Value) -> Value:
        return hard(x) * 2

    plain = formula(hard.function)
    assert straight(A) is not plain(A) * 2
    assert after("release", straight(A))[0] is plain(A) * 2


@pytest.mark.parametrize(
    "mark",
    [GradientAnchor(), SumState(), ConcatenatedState(), lambda x: Training()(x, 2 * x)],
    ids=["held", "total", "pooled", "training"],
)
def test_release_takes_annotations_off(mark: Callable[[Value], Value]) -> None:
    assert mark(A) is not A
    assert after("release", exp(mark(A)))[0] is exp(A)


def test_inference_removes_dropout() -> None:
    value = dropout(A * 2, 0.5, "drop") + dropout(B, 0.25, "other")
    assert inference(Graph("test", {"y": value})).outputs["y"] is A * 2 + B


def test_inference_of_a_scope_leaves_the_others() -> None:
    with scope("backbone"), scope("block"):
        h = dropout(A * 2, 0.5, "drop")
    with scope("head"):
        y = dropout(h + B, 0.25, "other")
    graph = Graph("test", {"y": y})
    assert inference(graph, "backbone").outputs["y"] is dropout(A * 2 + B, 0.25, "other")
    assert inference(graph, "block").outputs["y"] is dropout(A * 2 + B, 0.25, "other")
    assert inference(graph, "backbone.block").outputs["y"] is dropout(A * 2 + B, 0.25, "other")
    assert inference(graph, "back").outputs["y"] is y


@pytest.mark.parametrize("layer", [BatchNorm, lambda: Dropout(0.5)], ids=["batch", "dropout"])
def test_gradients_in_use_are_those_of_what_is_used(layer: Callable[[], Any]) -> None:
    """Of both orders: neither the statistics of the batch nor a mask is in them."""

    @model
    def net(x=f64["batch", 4]):  # type: ignore[no-untyped-def]
        hidden = x * x >> layer() >> Dense(3, tanh)
        slope = grad(total(hidden * hidden), x)
        return {
            "height": total(hidden * hidden), "slope": slope,
            "bend": total(slope * slope), "curve": grad(total(slope * slope), x),
        }  # fmt: skip

    random = np.random.default_rng(0)
    state = initial_values(net, 0)
    state = {k: v + 0.5 * abs(random.normal(size=v.shape)) for k, v in state.items()}
    x, way = random.normal(size=(2, 5, 4))

    def at(x: Any) -> Any:
        return evaluate(inference(net.graph), {"step": 0, "seed": 0, **state, "x": x})

    here, step = at(x), 1e-5
    after, before = at(x + step * way), at(x - step * way)
    for value, gradient in (("height", "slope"), ("bend", "curve")):
        change = (after[value] - before[value]) / (2 * step)
        assert np.sum(here[gradient] * way) == pytest.approx(change, rel=1e-6)
