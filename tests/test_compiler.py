"""Compilation: what it reports, and what passes make of a training step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.compiler.compile import compile_model, compile_step
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.optim import adam, cosine, sgd
from nncompile.program.composition import compose
from nncompile.program.recipe import Recipe, training
from tests.small_models import data, perceptron
from tests.tolerances import assert_close


def recipe(**options: Any) -> Recipe:
    options = {"optimizer": adam(1e-2), "batch_size": 16, **options}
    return training(perceptron(drop=0.5), **options)


def test_a_compilation_reports_what_it_did() -> None:
    seen: list[str] = []
    compiled = compile_step(recipe(), observe=lambda name, before, after: seen.append(name))
    model = compiled.step_model
    report = compiled.report
    assert report.nodes["step, ONNX"] == len(model.graph.node)
    assert report.nodes["step, after passes"] == len(compiled.step.nodes)
    assert set(report.seconds) == {"gradients", "passes", "lowering"}
    assert report.total == pytest.approx(sum(report.seconds.values()))
    assert "gemm" in seen


def test_passes_do_not_change_what_is_computed() -> None:
    declared = recipe(optimizer=sgd(0.1, momentum=0.9))
    compiled = compile_step(declared)
    plain = compose(declared).step
    state = compose(declared).initial(0)
    expected = evaluate(plain, {**state, **data(16)})
    for without in ((), ("gemm", "update")):
        graph = compile_step(declared, without).step
        assert list(graph.leaves) == list(plain.leaves)
        for name, x in evaluate(graph, {**state, **data(16)}).items():
            assert_close(x, expected[name], str(x.dtype), name)
    labels = [v.op.label for v in compiled.step.nodes]
    assert labels.count("gemm") > [
        v.op.label for v in compile_step(declared, ("gemm", "update")).step.nodes
    ].count("gemm")


@pytest.mark.parametrize(
    ("optimizer", "updated", "factors"),
    [
        (sgd(0.1), "weight", (-0.1, 1.0)),
        (sgd(cosine(0.1, steps=9)), "weight", (1.0, 1.0)),
        (sgd(0.1, momentum=0.9), "weight.u", (0.1, 0.9)),
        (sgd(cosine(0.1, steps=9), momentum=0.9), "weight.u", (1.0, 0.9)),
    ],
)
def test_updates_go_into_matrix_products(
    optimizer: Any, updated: str, factors: tuple[float, float]
) -> None:
    """The product that makes a gradient makes the next weight, or velocity, at once."""
    step = compile_step(training(perceptron(), optimizer=optimizer)).step
    for layer in ("hidden", "out"):
        following = step.outputs[f"{layer}.{updated}.next"]
        assert following.op.label == "gemm"
        assert following.args[2] is step.leaves[f"{layer}.{updated}"]
        np.testing.assert_allclose((following.op.alpha, following.op.beta), factors)  # type: ignore[attr-defined]


def test_a_pass_that_does_not_exist_is_told() -> None:
    with pytest.raises(ModelError, match="no pass"):
        compile_model(perceptron(), without=("gem",)).graph  # noqa: B018
