"""What inference and `release` take out: dropout, annotations, declared gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nncompile.diagnostics.locations import scope
from nncompile.elementwise import exp, where
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ops import custom_gradient
from nncompile.ops.core.annotations import GradientAnchor
from nncompile.ops.core.modes import Training
from nncompile.ops.random.generator import dropout
from nncompile.ops.reduction.totals import ConcatenatedState, SumState
from nncompile.passes import inference
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
