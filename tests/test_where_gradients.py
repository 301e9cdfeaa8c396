"""The branch that `where` does not take has no part in the gradient, across values too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, f32, i64, model, relu, sgd, training
from dsl.losses import cross_entropy
from nncompile import ops
from nncompile.autodiff.grad import grad, jvp
from nncompile.compiler.compile import compile_step
from nncompile.elementwise import abs as absolute
from nncompile.elementwise import clip, exp, log, maximum, sqrt, where
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f64
from tests.command_line import run, written
from tests.leaves import leaf
from tests.scan_checks import check_everywhere, check_gradients

X = np.array([-2.0, -1.0, -0.25, 0.75, 4.0, 7.0])  # where nothing has a kink
ZERO = np.array([0.0, -3.0, 0.0, 2.0, 0.0, 1e4])
Case = Callable[[Value], Value]


def twice(x: Value) -> Value:
    return ops.expand_dims(x, 1) * ops.cast(np.array([[1.0, 2.0]]), x.dtype)  # type: ignore[no-any-return]


CASES: dict[str, Case] = {
    "a root": lambda x: where(x > 0, sqrt(x), x),
    "the other branch": lambda x: where(x <= 0, x, sqrt(x)),
    "a logarithm": lambda x: where(x > 0, log(x), 0.0),
    "a chain": lambda x: where(x > 0, 3 * sqrt(x) + 1, x),
    "a chain of roots": lambda x: where(x > 0, sqrt(sqrt(sqrt(x))), x),
    "a quotient": lambda x: where(x != 0, 1 / (x * x), 0.0),
    "a power": lambda x: where(x > 0, x**0.3, 0.0),
    "what overflows": lambda x: where(x > 20, x, log(1 + exp(x)) + 0 * exp(x)),
    "an exponential": lambda x: where(x < 20, exp(x), x),
    "a maximum": lambda x: maximum(sqrt(x * x), 1.5),
    "a bound": lambda x: clip(log(absolute(x)), -0.5, 1.0),
    "a rectifier": lambda x: relu(log(absolute(x)) + 0.1),
    "nested": lambda x: where(x > 0, where(x < 5, sqrt(x), log(x)), -x),
    "a product": lambda x: where(x > 0, sqrt(x), 0.0) * where(x > 1, log(x), 1.0),
    "shared": lambda x: (lambda s: where(x > 0, s, 0.0) + where(x > 3, s * s, 1.0))(sqrt(x)),
    "reshaped": lambda x: where(
        ops.reshape(x > 0, (-1, 1)), ops.reshape(sqrt(x), (-1, 1)), 0.0
    ),
    "sliced": lambda x: where(x[1:] > 0, sqrt(x)[1:], 0.0),
    "reversed": lambda x: where(x > 0, sqrt(x[::-1])[::-1], 0.0),
    "joined": lambda x: ops.concatenate(
        [where(x > 0, sqrt(x), 0.0), where(x > 0, log(x), 0.0)], 0
    ),
    "chosen of what is joined": lambda x: where(
        x > 0, ops.concatenate([sqrt(x)[:2], log(x)[2:]], 0), 0.0
    ),
    "chosen of what is stacked": lambda x: where(
        ops.stack([x > 0, x > 1], 1), ops.stack([sqrt(x), log(x)], 1), 0.0
    ),
    "repeated": lambda x: where(
        ops.expand_dims(x > 0, 1), twice(sqrt(x)), 0.0
    ),
    "summed": lambda x: where(
        x > 0, ops.sum(twice(sqrt(x)), 1), 0.0
    ),
    "taken": lambda x: where(ops.take(x, np.array([4, 0])) > 0, ops.take(x, np.array([4, 0])), 0.0),
    "a mean of none": lambda x: where(
        ops.sum(ops.cast(x > 9, x.dtype)) > 0,
        ops.sum(x) / ops.sum(ops.cast(x > 9, x.dtype)), 0.0,
    ) + x.sum(),
}  # fmt: skip


def graph_of(case: Case, dtype: DType) -> tuple[Graph, Value, Value]:
    x, u = leaf("x", dtype["n"]), leaf("u", dtype["n"])
    y = case(x)
    loss = (y * y + y).sum()
    dx = grad(loss, x)
    dxx = grad((dx * u).sum(), x)
    tangent = jvp(y, x, u)
    return Graph("y", {"y": y, "dx": dx, "dxx": dxx, "t": tangent}, (x, u)), x, loss


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_gradients_are_finite_and_alike_everywhere(name: str, dtype: DType) -> None:
    graph, _, _ = graph_of(CASES[name], dtype)
    u = np.linspace(-1, 1, 6).astype(dtype.numpy)
    with np.errstate(all="ignore"):
        check_everywhere(
            graph, *({"x": points.astype(dtype.numpy), "u": u} for points in (X, ZERO))
        )
    for points in (X, ZERO):
        with np.errstate(all="ignore"):
            found = evaluate(graph, {"x": points.astype(dtype.numpy), "u": u}, np.float64)
        for output in ("dx", "dxx", "t"):
            if output != "t" or points is X:  # at a kink the tangent itself may be infinite
                assert np.isfinite(found[output]).all(), output


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_differences(name: str) -> None:
    graph, x, loss = graph_of(CASES[name], f64)
    feeds = {"x": X, "u": np.linspace(-1, 1, 6)}
    with np.errstate(all="ignore"):
        check_gradients(loss, [x], feeds)
        check_gradients((graph.outputs["dx"] * leaf("u", f64["n"])).sum(), [x], feeds)


def test_a_mask_costs_no_node_more() -> None:
    """The choice that keeps the zeros is that of the gradient itself."""
    x, g = leaf("x", f64["n"]), leaf("g", f64["n"])
    for case, count in ((lambda x: where(x > 0, sqrt(x), 0.0), 1), (lambda x: relu(x) * 2, 1)):
        gradient = grad((case(x) * g).sum(), x)  # type: ignore[no-untyped-call]
        maps = [v for v in Graph("gradient", {"dx": gradient}).nodes if v.op.label == "elementwise"]
        choices = [v for v in maps if "where" in str(v.op.attributes["body"])]
        assert len(choices) == count


def test_networks_that_choose_by_their_activations_stay_as_they_are() -> None:
    @model
    def net(x=f32["batch", 8], label=i64["batch"]):
        z = x >> Dense(16, relu) >> Dense(16, relu) >> Dense(3)
        return {"loss": cross_entropy(z, label)}

    def count(batch: int) -> tuple[int, int]:
        recipe = training(net, optimizer=sgd(0.1), batch_size=batch)
        model = compile_step(recipe, kernels=False).step_model
        kinds = [node.op_type for node in model.graph.node]
        return kinds.count("If"), kinds.count("Where")

    assert count(32) == (2, 0)
    assert count(16) == (0, 2)  # of few numbers


MIXED = """
from dsl import Dense, f32, model, sgd, sqrt, training, where, parameter


@model
def net(x=f32["batch", 3]):
    w = parameter("w", (3, 3))
    y = sqrt(x @ w) @ w
    return {"loss": where(y > 0, y, 0.0).mean() + (w * w).sum()}


recipe = training(net, optimizer=sgd(0.1), batch_size=4)
"""


def test_check_names_the_line_where_elements_are_mixed(tmp_path: Path) -> None:
    result: Any = run("check", written(tmp_path, MIXED))
    assert result.exit_code == 1
    line = result.stdout.splitlines()[0]
    assert line.startswith(
        "FAIL  gradient of loss: it is not finite at w, where the loss is: sqrt(a)"
    )
    assert "net.py:8" in line and "sqrt(where(x > 0, x, 1))" in line
    safe = "a = x @ w\n    y = sqrt(where(a > 0, a, 1.0)) @ w"
    chosen = MIXED.replace("y = sqrt(x @ w) @ w", safe)
    assert run("check", written(tmp_path, chosen)).stdout.startswith("pass  gradient of loss")
