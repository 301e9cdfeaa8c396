"""Each rule of each pass: the structure and the numbers, what must be left alone, idempotence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.elementwise import exp, log, negative, relu, sigmoid, softplus, stop_gradient, where
from nncompile.ir.basic import Cast, SizeOf
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.printer import text
from nncompile.ir.types import f32, f64, i32, i64
from nncompile.ops import (
    barrier,
    cast,
    concatenate,
    const,
    gemm,
    log_softmax,
    logsumexp,
    reshape,
    size_value,
    softmax,
    split,
    transpose,
    zeros_like,
)
from nncompile.ops import max as maximum_of
from nncompile.ops import sum as total
from nncompile.ops.shape.gathering import ScatterAdd
from nncompile.passes import PASSES, optimize
from tests.leaves import leaf
from tests.pass_checks import COLUMN, LABEL, A, B, C, G, S, V, W, after, expanded, graph_of
from tests.tolerances import assert_close


@dataclass
class Case:
    """What a pass makes of a value: by interning, exactly this node."""

    name: str
    before: Callable[[], Value]
    after: Callable[[], Value]


CASES = [
    Case("release", lambda: stop_gradient(A) * 2, lambda: A * 2),
    Case("fold", lambda: const(2.0) * const(3.0) * A, lambda: A * 6),
    Case("fold", lambda: A + const(0.0), lambda: A),
    Case("fold", lambda: A * const(1.0), lambda: A),
    Case("fold", lambda: total(const([1.0, 2.0])) * A, lambda: A * 3),
    Case(
        "fold",
        lambda: cast(size_value(A.shape[0]), f32),
        lambda: SizeOf(A.shape[0], f32)(),
    ),
    Case(
        "fold",
        lambda: size_value(A.shape[0]) * 3 + 1,
        lambda: size_value(A.shape[0] * 3 + 1),
    ),
    Case("algebra", lambda: negative(negative(A)), lambda: A),
    Case("algebra", lambda: A - (-B), lambda: A + B),
    Case("algebra", lambda: 2 * (3 * A), lambda: 6 * A),
    Case("algebra", lambda: expanded(S, "n", 3) * A, lambda: S * A),
    Case("algebra", lambda: exp(expanded(C, "n", 3)), lambda: expanded(exp(C), "n", 3)),
    Case("algebra", lambda: zeros_like(A) + A, lambda: A + const(0.0)),
    Case("algebra", lambda: total(expanded(S, 5)), lambda: S * const(5.0)),
    Case(
        "algebra",
        lambda: total(expanded(C, "n", 3), 0),
        lambda: C * size_value(A.shape[0], f32),
    ),
    Case(
        "algebra",
        lambda: total(expanded(C, "n", 3), 1, keepdims=True),
        lambda: expanded(total(C, 0, keepdims=True), "n", 1),
    ),
    Case("algebra", lambda: total(total(A, 1), 0), lambda: total(A)),
    Case("algebra", lambda: total(reshape(A, (-1,))), lambda: total(A)),
    Case("algebra", lambda: total(COLUMN, 1), lambda: reshape(COLUMN, (3,))),
    Case("algebra", lambda: total(A / 2), lambda: total(A) / 2),
    Case(
        "algebra",
        lambda: A * where(B > 0, 1.0, 0.0),
        lambda: A * where(B > 0, 1.0, 0.0),
    ),
    Case("stabilise", lambda: log(softmax(A, 1)), lambda: log_softmax(A, 1)),
    Case("stabilise", lambda: log(total(exp(A), 1)), lambda: logsumexp(A, 1)),
    Case("stabilise", lambda: exp(A) / total(exp(A), 1, True), lambda: softmax(A, 1)),
    Case("stabilise", lambda: exp(A) / reshape(total(exp(A), 1), ("n", 1)), lambda: softmax(A, 1)),
    Case("stabilise", lambda: log(exp(A) / total(exp(A), 1, True)), lambda: log_softmax(A, 1)),
    Case("stabilise", lambda: A - logsumexp(A, 1, True), lambda: log_softmax(A, 1)),
    Case("stabilise", lambda: softmax(A - maximum_of(A, 1, True), 1), lambda: softmax(A, 1)),
    Case("stabilise", lambda: log_softmax(A - S, 1), lambda: log_softmax(A, 1)),
    Case("stabilise", lambda: log(1 + exp(A)), lambda: softplus(A)),
    Case("stabilise", lambda: exp(A) / (1 + exp(A)), lambda: sigmoid(A)),
    Case("casts", lambda: cast(cast(A, f64), f32), lambda: A),
    Case("casts", lambda: cast(cast(LABEL == 1, i32), f32), lambda: cast(LABEL == 1, f32)),
    Case("casts", lambda: Cast(f32)(A), lambda: A),
    Case("reshapes", lambda: reshape(reshape(A, (-1,)), (3, "n")), lambda: reshape(A, (3, "n"))),
    Case("reshapes", lambda: reshape(reshape(A, (-1,)), ("n", 3)), lambda: A),
    Case(
        "reshapes", lambda: expanded(expanded(C, 2, 3), "n", 2, 3), lambda: expanded(C, "n", 2, 3)
    ),
    Case("reshapes", lambda: reshape(expanded(S, "n", 3), (3, "n")), lambda: expanded(S, 3, "n")),
    Case("reshapes", lambda: expanded(reshape(S, (1,)), 7), lambda: expanded(S, 7)),
    Case("reshapes", lambda: reshape(total(A, 1), ("n", 1)), lambda: total(A, 1, True)),
    Case("reshapes", lambda: reshape(total(A, 1, True), ("n",)), lambda: total(A, 1)),
    Case("reshapes", lambda: A * reshape(C, (1, 3)), lambda: A * C),
    Case(
        "scatters",
        lambda: total(ScatterAdd(1)(zeros_like(A), LABEL, expanded(S, "n", 1)), 1),
        lambda: total(expanded(S, "n", 1), 1),
    ),
    Case(
        "scatters",
        lambda: ScatterAdd(1)(zeros_like(A), LABEL, G[:, :1]) - exp(A),
        lambda: ScatterAdd(1)(-exp(A), LABEL, G[:, :1]),
    ),
    Case(
        "scatters",
        lambda: A - S * ScatterAdd(1)(zeros_like(A), LABEL, G[:, :1]),
        lambda: ScatterAdd(1)(A, LABEL, -(S * G[:, :1])),
    ),
    Case("dead", lambda: split(concatenate([A, G], 1), [3], 1)[1], lambda: G),
    Case("dead", lambda: split(A, 3, 1)[1], lambda: A[:, 1:2]),
    Case(
        "dead",
        lambda: concatenate([concatenate([A, G], 1), A[:, :0]], 1),
        lambda: concatenate([A, G], 1),
    ),
    Case("transposes", lambda: transpose(transpose(A)), lambda: A),
    Case("transposes", lambda: transpose(COLUMN), lambda: reshape(COLUMN, (1, 3))),
    Case("transposes", lambda: exp(transpose(A)), lambda: transpose(exp(A))),
    Case("transposes", lambda: transpose(A) * transpose(B), lambda: transpose(A * B)),
    Case("transposes", lambda: total(transpose(A), 0), lambda: total(A, 1)),
    Case("transposes", lambda: transpose(A) @ G, lambda: gemm(A, G, transpose_a=True)),
    Case("transposes", lambda: A @ transpose(B), lambda: gemm(A, B, transpose_b=True)),
    Case("transposes", lambda: gemm(transpose(A), G, V), lambda: gemm(A, G, V, transpose_a=True)),
    Case(
        "transposes",
        lambda: transpose(A @ W),
        lambda: gemm(W, A, transpose_a=True, transpose_b=True),
    ),
    Case("gemm", lambda: A @ W + C[:2], lambda: gemm(A, W, C[:2])),
    Case(
        "update",
        lambda: W - 0.1 * gemm(A, G, transpose_a=True),
        lambda: gemm(A, G, W, transpose_a=True, alpha=-0.1),
    ),
    Case(
        "update",
        lambda: W - S * gemm(A, G, transpose_a=True),
        lambda: gemm(A, S * G, W, transpose_a=True, alpha=-1.0),
    ),
    Case(
        "update",
        lambda: 0.9 * V + gemm(A, G, transpose_a=True),
        lambda: gemm(A, G, V, transpose_a=True, beta=0.9),
    ),
    Case(
        "update",
        lambda: 0.9 * V + 0.25 * gemm(A, G, transpose_a=True),
        lambda: gemm(A, G, V, transpose_a=True, alpha=0.25, beta=0.9),
    ),
    Case(
        "update",
        lambda: C - 0.1 * total(A, 0),
        lambda: C - expanded(const(0.1), "n") @ A,
    ),
    Case(
        "update",
        lambda: C - S * total(A, 0),
        lambda: C - expanded(S, "n") @ A,
    ),
    Case(
        "update",
        lambda: 2 * gemm(A, W, C[:2], alpha=0.5, beta=0.25),
        lambda: gemm(A, W, C[:2], alpha=1.0, beta=0.5),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{CASES.index(case)}")
def test_what_a_pass_makes(case: Case) -> None:
    made, *_ = after(case.name, case.before())
    expected = case.after()
    assert made is expected, text(graph_of(made, expected))


# Beside what the rules of a pass refuse, each by itself: see `test_rules`.
GUARDED = [
    ("fold", lambda: exp(barrier(const(1.0)))),
    ("fold", lambda: expanded(const(1.0), 1000, 1000)),  # a constant that would grow
    ("fold", lambda: A / const(float("inf"))),
    ("stabilise", lambda: exp(A) / total(exp(A), 1)[0]),
    ("stabilise", lambda: exp(A) / total(exp(B), 1, True)),
    ("stabilise", lambda: exp(A) / total(exp(A), (0, 1), True)),
    ("stabilise", lambda: log(total(A, 1))),
    ("stabilise", lambda: softmax(A - C, 1)),
    ("stabilise", lambda: A - logsumexp(B, 1, True)),
    ("stabilise", lambda: log(2 + A)),
    ("hoist", lambda: A * S),
    ("hoist", lambda: S * 2 / leaf("r", f32[()])),
    ("gemm", lambda: leaf("k", i64["n", 3]) @ leaf("l", i64[3, 2]) + 1),
]


@pytest.mark.parametrize(
    ("name", "build"), GUARDED, ids=[f"{name}-{i}" for i, (name, _) in enumerate(GUARDED)]
)
def test_what_a_pass_must_leave(name: str, build: Callable[[], Value]) -> None:
    value = build()
    made, *_ = after(name, value)
    assert made is value, text(graph_of(made, value))


def test_products_with_a_mask_become_choices() -> None:
    """0·∞ is NaN: where a gradient is masked it must not be multiplied."""
    gradient = grad(total(relu(A - 1) * B), A)
    done = optimize(graph_of(gradient)).outputs["y0"]
    assert evaluate(
        done, {"a": np.ones((1, 3), np.float32), "b": np.full((1, 3), np.inf, np.float32)}
    ).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("x", [-100.0, -1e-3, 0.0, 3.0, 100.0])
def test_naive_spellings_and_their_gradients_are_finite(x: float) -> None:
    naive = {
        "log_softmax": total(log(softmax(A, 1)) * B),
        "log_share": total(log(exp(A) / total(exp(A), 1, True)) * B),
        "share": total(exp(A) / total(exp(A), 1, True) * B),
        "log_sum": total(log(total(exp(A), 1)) * total(B, 1)),
        "softplus": total(log(1 + exp(A)) * B),
        "sigmoid": total(1 / (1 + exp(-A)) * B),
    }
    stable = {
        "log_softmax": total(log_softmax(A, 1) * B),
        "log_share": total(log_softmax(A, 1) * B),
        "share": total(softmax(A, 1) * B),
        "log_sum": total(logsumexp(A, 1) * total(B, 1)),
        "softplus": total(softplus(A) * B),
        "sigmoid": total(sigmoid(A) * B),
    }
    graph = PASSES["stabilise"](Graph("naive", naive))
    feeds = {
        "a": np.array([[x, 2 * x, -x]], np.float32),
        "b": np.array([[1, -2, 3]], np.float32),
    }
    for name, value in graph.outputs.items():
        for made, known in ((value, stable[name]), (grad(value, A), grad(stable[name], A))):
            got, expected = evaluate([made, known], feeds)
            assert np.isfinite(got).all()
            assert_close(got, expected, "float32", name)
