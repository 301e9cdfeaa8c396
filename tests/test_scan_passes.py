"""What passes leave to do in an iteration of a loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.elementwise import cos, exp, log, tanh
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import f32, f64
from nncompile.ops import (
    broadcast_to,
    concatenate,
    const,
    expand_dims,
    flip,
    gemm,
    log_softmax,
    pad,
    reshape,
    scan,
    softmax,
    split,
    swapaxes,
    transpose,
)
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.passes import optimize
from nncompile.passes.loops import loops
from tests.leaves import leaf
from tests.scan_checks import Memory, body_nodes, check_gradients, feeds_of, scans
from tests.tolerances import assert_close


def gradient_of_memory() -> Graph:
    model = Memory(f32)
    _, _, hs = model()
    loss = (hs * hs).sum()
    outputs = {"loss": loss, "w": grad(loss, model.w), "u": grad(loss, model.u)}
    return optimize(Graph("g", outputs, tuple(model.inputs)))


def test_one_loop_forward_and_one_back() -> None:
    """What is saved for the gradient is stacked by the loop that was there."""
    graph = gradient_of_memory()
    assert [v.op.reverse for v in scans(graph)] == [False, True]  # type: ignore[attr-defined]


def test_derivatives_are_computed_outside() -> None:
    """The body of the reverse loop is linear: sums of gradients, products with factors that are
    there for all iterations, and one matrix product."""
    back = scans(gradient_of_memory())[1]
    labels = sorted(v.op.label for v in body_nodes(back))
    assert labels == ["concat", "elementwise", "elementwise", "elementwise", "elementwise", "gemm"]
    assert back.op.carries == 2  # type: ignore[attr-defined]


def test_weights_get_their_gradients_after_the_loop() -> None:
    """One product over time and rows each, and nothing of a weight's size is carried."""
    graph = gradient_of_memory()
    for v in scans(graph):
        assert all(x.shape != (3, 12) for x in v.args[: v.op.carries])  # type: ignore[attr-defined]
    for name in ("w", "u"):
        product = graph.outputs[name]
        assert isinstance(product.op, Gemm)
        assert product.op.transpose_a
    inside = [x for v in scans(graph) for x in body_nodes(v) if isinstance(x.op, Gemm | MatMul)]
    assert len(inside) == 2  # h·w forward, and its transpose back


def test_a_weight_on_the_left_and_the_right() -> None:
    """Products whose inner axis is the last of the left factor, or the first of the right one."""
    x, w, v = leaf("x", f64["time", 3, 2]), leaf("w", f64[3, 3]), leaf("v", f64[2, 2])
    start = const(np.ones((3, 2)))
    y = scan(lambda h, x: (tanh(w @ h @ v + transpose(v @ transpose(x))), h), start, x)[1].sum()
    graph = Graph("g", {"y": y}, (x, w, v))
    check_gradients(y, [x, w, v], feeds_of(graph, {"time": 4}))
    (back,) = [s for s in scans(Graph("g", {"w": grad(y, w)}, (x, w, v))) if s.op.reverse]  # type: ignore[attr-defined]
    assert back.op.carries == 1  # type: ignore[attr-defined]


def test_what_is_no_product_is_added_up_on_the_way() -> None:
    """The gradient of a weight of which each iteration makes something else."""
    x, w = leaf("x", f64["time", 3]), leaf("w", f64[3, 3])
    y = scan(lambda h, x: (tanh(h @ cos(w * x)), h), const(np.ones(3)), x)[1].sum()
    graph = Graph("g", {"y": y}, (x, w))
    feeds = feeds_of(graph, {"time": 4})
    check_gradients(y, [x, w], feeds)


def test_what_nobody_needs_is_not_computed() -> None:
    x = leaf("x", f64["time", 3])

    def body(a: Value, b: Value, x: Value) -> tuple[Value, ...]:
        return a + x, b * x, a, exp(b)

    results = scan(body, (const(np.zeros(3)), const(np.ones(3))), x)
    graph = optimize(Graph("g", {"y": results[0]}, (x,)))
    (loop,) = scans(graph)
    assert len(loop.type.items) == 1
    assert [v.op.label for v in body_nodes(loop)] == ["elementwise"]


def test_products_with_rows_are_ahead_and_of_results_behind() -> None:
    x, w, v = leaf("x", f64["time", "b", 3]), leaf("w", f64[3, 3]), leaf("v", f64[3, 5])

    def body(h: Value, x: Value) -> tuple[Value, Value]:
        h = tanh(tanh(x @ w) + h)
        return h, h @ v

    _, ys = scan(body, broadcast_to(const(0.0, f64), (x.shape[1], 3)), x)
    graph = Graph("g", {"y": ys}, (x, w, v))
    small = optimize(graph)
    (loop,) = scans(small)
    assert [x.op.label for x in body_nodes(loop)] == ["elementwise", "elementwise"]
    feeds = feeds_of(graph, {"time": 3, "b": 2})
    assert_close(evaluate(small, feeds)["y"], evaluate(graph, feeds)["y"], "float64")


A, B = f64["time", 2, 6], f64["time", 6, 4]


@pytest.mark.parametrize(
    "body",
    [
        lambda a, b, w: tanh(a) * w[0] + a[0],
        lambda a, b, w: a @ b,
        lambda a, b, w: a[0] @ b,
        lambda a, b, w: b @ w[:4],
        lambda a, b, w: a @ w,
        lambda a, b, w: w @ b,
        lambda a, b, w: gemm(a, w, a[0, :1], transpose_b=False, alpha=0.5, beta=2.0),
        lambda a, b, w: gemm(b, a, transpose_a=True, transpose_b=True),
        lambda a, b, w: gemm(w, b, transpose_a=True),
        lambda a, b, w: reshape(a, (3, 4)),
        lambda a, b, w: transpose(a),
        lambda a, b, w: swapaxes(expand_dims(b, 0), 0, 1),
        lambda a, b, w: softmax(a, 0),
        lambda a, b, w: a.sum(1) + a.max(),
        lambda a, b, w: b.mean(0, keepdims=True).cumsum(1),
        lambda a, b, w: concatenate([a, w[:2]], 0),
        lambda a, b, w: split(a, 3, 1)[1] * 2.0,
        lambda a, b, w: a[1:, ::-2],
        lambda a, b, w: pad(flip(a, 1), ((1, 0), (0, 2)), constant_values=3.0),
        lambda a, b, w: broadcast_to(a[0], (5, 6)),
        lambda a, b, w: (a > 0).astype(f64) * a.prod(1, keepdims=True),
    ],
)
def test_all_at_once(body: Callable[[Value, Value, Value], Value]) -> None:
    """What does not depend on the iteration before needs no loop."""
    a, b, w = leaf("a", A), leaf("b", B), leaf("w", f64[6, 6])
    graph = Graph("g", {"y": scan(lambda a, b: body(a, b, w), (), (a, b))}, (a, b, w))
    small = optimize(graph)
    assert not scans(small)
    for time in (3, 1):
        feeds = feeds_of(graph, {"time": time})
        assert_close(evaluate(small, feeds)["y"], evaluate(graph, feeds)["y"], "float64")


def test_equal_loops_become_one() -> None:
    x, w = leaf("x", f64["time", 3]), leaf("w", f64[3])
    _, one = scan(lambda c, x: (c * w + x, c), const(np.ones(3)), x)
    _, other = scan(lambda c, x: (c * w + x, c * c), const(np.ones(3)), x)
    _, behind = scan(lambda c, x: (c * w + x, c + other[0]), const(np.ones(3)), x)
    graph = Graph("g", {"one": one, "other": other, "behind": behind}, (x, w))
    small = optimize(graph)
    feeds = feeds_of(graph, {"time": 3})
    for name, expected in evaluate(graph, feeds).items():
        assert_close(evaluate(small, feeds)[name], expected, "float64")
    both = optimize(Graph("g", {"one": one, "other": other}, (x, w)))
    assert len(scans(both)) == 1


def test_loops_that_go_on_in_another_way_stay_two() -> None:
    """They begin alike and go through the same rows."""
    x, w = leaf("x", f64["time", 3]), leaf("w", f64[3])
    one = scan(lambda c, x: c * w + x, const(np.ones(3)), x)
    other = scan(lambda c, x: c * w - x, const(np.ones(3)), x)
    graph = Graph("g", {"one": one, "other": other}, (x, w))
    small, feeds = optimize(graph), feeds_of(graph, {"time": 3})
    assert len(scans(small)) == 2
    for name, expected in evaluate(graph, feeds).items():
        assert_close(evaluate(small, feeds)[name], expected, "float64")


def test_loops_become_one_that_are_alike_once_they_are_stable() -> None:
    x, v = leaf("x", f64["time", 3]), leaf("v", f64[3])
    starts = log(softmax(v)), log_softmax(v)
    ends = [scan(lambda c, x: c * x, start, x) for start in starts]
    graph = Graph("g", {"one": ends[0], "other": ends[1]}, (x, v))
    assert len(scans(optimize(graph))) == 1


def test_a_body_is_looked_at_again_with_other_values_around_it() -> None:
    """A loop over two sequences does no more than it has to, until both are one."""
    x, y = leaf("x", f64["time", 3]), leaf("y", f64["time", 3])
    end = scan(lambda c, a, b: tanh(c * a) + b, x[0], (x, y))
    (two,) = scans(loops(Graph("g", {"end": end}, (x, y))))
    (one,) = scans(loops(Graph("g", {"end": replace([end], {y: x})[0]}, (x,))))
    assert two.op.elements == 2  # type: ignore[attr-defined]
    assert one.op.elements == 1  # type: ignore[attr-defined]
