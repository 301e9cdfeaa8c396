"""Loops: what they compute, their slopes of any order, and how little they do in an iteration."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.backends.onnx import to_model
from nncompile.elementwise import cos, exp, log, relu, sigmoid, tanh, where
from nncompile.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.grad import grad, jvp
from nncompile.graph import Graph, Input, Value
from nncompile.ops import (
    broadcast_to,
    concatenate,
    const,
    dropout,
    expand_dims,
    flip,
    gemm,
    iota,
    pad,
    permutation,
    random_key,
    reshape,
    scan,
    seed_leaf,
    softmax,
    split,
    swapaxes,
    transpose,
    uniform,
)
from nncompile.ops.contract import Gemm, MatMul
from nncompile.ops.scan import Scan
from nncompile.passes import inference, optimize
from nncompile.reference import evaluate
from nncompile.types import DType, f32, f64, i64
from tests.card_checks import session, valid_model
from tests.small_models import leaf
from tests.tolerances import SLOPE, STEP, assert_close

Feeds = dict[str, np.ndarray]


def scans(graph: Graph) -> list[Value]:
    return [v for v in graph.nodes if isinstance(v.op, Scan)]


def body_nodes(v: Value) -> list[Value]:
    """The nodes of a body that take something."""
    assert isinstance(v.op, Scan)
    return [x for x in v.op.body.graph.nodes if x.args]


def feeds_of(graph: Graph, sizes: dict[str, int], seed: int = 0) -> Feeds:
    rng = np.random.default_rng(seed)
    found = {}
    for name, v in graph.leaves.items():
        shape = tuple(d if isinstance(d, int) else sizes[str(d)] for d in v.shape)
        if v.dtype.is_float:
            found[name] = rng.uniform(-1, 1, shape).astype(v.dtype.numpy)
        else:
            found[name] = rng.integers(0, 5, shape).astype(v.dtype.numpy)
    return found


def check_difference(y: Value, wrt: list[Value], feeds: Feeds) -> None:
    """⟨gradient, d⟩ is the central difference of the scalar y along random directions d."""
    rng = np.random.default_rng(1)
    slopes = evaluate(grad(y, wrt), feeds)
    for x, slope in zip(wrt, slopes, strict=True):
        name = x.op.name  # type: ignore[attr-defined]
        d = rng.uniform(-1, 1, slope.shape)
        ends = [evaluate(y, {**feeds, name: feeds[name] + s * STEP * d}) for s in (1, -1)]
        numeric = float(ends[0] - ends[1]) / (2 * STEP)
        relative, absolute = SLOPE
        scale = max(1.0, float(np.abs(slope).max(initial=0.0)))
        assert np.isclose(float(np.vdot(slope, d)), numeric, relative, absolute * scale), name


def check_everywhere(graph: Graph, feeds: Feeds, torchscript: SimpleNamespace) -> None:
    """numpy, onnxruntime and TorchScript agree, before and after the passes."""
    expected = evaluate(graph, feeds, np.float64)
    for form in (graph, optimize(graph)):
        for name, x in evaluate(form, feeds, np.float64).items():
            assert_close(x, expected[name], "float64", name)
        shapes = {name: x.shape for name, x in expected.items()}
        ours = session(valid_model(form))(feeds, shapes)
        script = torchscript.to_script(form, {})
        theirs = script(*(torchscript.torch.from_numpy(feeds[n]) for n in form.leaves))
        for name, y in graph.outputs.items():
            assert_close(ours[name], expected[name], y.dtype.name, f"{name} in ONNX")
            assert_close(theirs[name].numpy(), expected[name], y.dtype.name, f"{name} in torch")


class Memory:
    """A cell with two carries, of which the second is gated, and a weight that is used outside,
    too."""

    def __init__(self, dtype: DType = f64) -> None:
        self.h, self.c = leaf("h", dtype["b", 3]), leaf("c", dtype["b", 3])
        self.x = leaf("x", dtype["time", "b", 2])
        self.w, self.u = leaf("w", dtype[3, 12]), leaf("u", dtype[2, 12])
        self.inputs = [self.h, self.c, self.x, self.w, self.u]

    def __call__(self, **options: Any) -> tuple[Value, Value, Value]:
        def cell(h: Value, c: Value, x: Value) -> tuple[Value, ...]:
            i, f, g, o = split(x @ self.u + h @ self.w, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            return h, c, h

        return scan(cell, (self.h, self.c), self.x, **options)  # type: ignore[no-any-return]

    def loss(self) -> Value:
        h, c, hs = self()
        return (hs * cos(hs)).sum() + (c * c).sum() * self.w.sum() + h.mean()


def test_scan_is_a_loop() -> None:
    x, start = leaf("x", f64["time", 2]), leaf("start", f64[2])
    last, seen = scan(lambda total, x: (total * 0.5 + x, total), start, x)
    feeds = {"x": np.arange(6.0).reshape(3, 2), "start": np.array([8.0, 4.0])}
    total, rows = feeds["start"], []
    for row in feeds["x"]:
        rows.append(total)
        total = total * 0.5 + row
    found = evaluate([last, seen], feeds)
    np.testing.assert_array_equal(found[0], total)
    np.testing.assert_array_equal(found[1], np.stack(rows))


def test_reversed_and_along_another_axis() -> None:
    x = leaf("x", f64[2, "time"])
    last, sums = scan(lambda t, x: (t + x, t + x), const(np.zeros(2)), x, reverse=True, axis=-1)
    assert str(sums.type) == "f64[2, time]"
    given = np.arange(8.0).reshape(2, 4)
    found = evaluate([last, sums], {"x": given})
    np.testing.assert_array_equal(found[1], given[:, ::-1].cumsum(1)[:, ::-1])
    np.testing.assert_array_equal(found[0], given.sum(1))


def test_without_sequences_and_without_carries() -> None:
    x = leaf("x", f64["time", 2])
    power = scan(lambda p: p * 2.0, 1.0, length=10)
    assert evaluate(power, {}) == 1024
    squares = scan(lambda x: x * x, (), x)
    np.testing.assert_array_equal(evaluate(squares, {"x": np.full((3, 2), 3.0)}), 9)
    with_place = scan(lambda x, i: x * i.astype(f64), (), (x, iota(x.shape[0])))
    np.testing.assert_array_equal(
        evaluate(with_place, {"x": np.ones((3, 2))}), [[0, 0], [1, 1], [2, 2]]
    )


def test_equal_bodies_are_one() -> None:
    """Whatever their binders, and what they are given, are called."""

    def rolled(name: str) -> Value:
        h, x, w = (
            leaf(f"h{name}", f32["b", 3]),
            leaf(f"x{name}", f32["n", "b", 3]),
            leaf(name, f32[3, 3]),
        )
        return scan(lambda h, x: (tanh(x + h @ w), h), h, x)[1]  # type: ignore[no-any-return]

    one, other = rolled("a").args[0], rolled("b").args[0]
    assert one is not other
    assert one.op == other.op
    assert one.op.body == other.op.body  # type: ignore[attr-defined]
    assert one.op.digest == other.op.digest
    assert rolled("a").args[0] is one
    assert pickle.loads(pickle.dumps(one)) is one
    assert copy.deepcopy(one) is one


def test_formals_of_one_name_do_not_meet(torchscript: SimpleNamespace) -> None:
    """Two loops whose bodies have formals of the same names and types, one in the other's
    argument, and both in one graph."""
    x, a, b = leaf("x", f32["n", 2]), leaf("a", f32[2]), leaf("b", f32[2])

    def smooth(carry: Value, x: Value) -> tuple[Value, Value]:
        return carry * 0.5 + x, carry * x

    last, seen = scan(smooth, a, x)
    again, _ = scan(smooth, last, seen)
    third, _ = scan(lambda c, x: (x - c * 0.5, c), b, x)
    graph = Graph("g", {"again": again, "third": third}, (x, a, b))
    check_everywhere(graph, feeds_of(graph, {"n": 4}), torchscript)


def test_invariant_work_is_outside() -> None:
    """What a body computes from what does not change is an argument of the loop."""
    x, w = leaf("x", f64["n", 3]), leaf("w", f64[3, 3])
    last = scan(lambda c, x: c + x @ tanh(w @ w), const(np.zeros(3)), x)
    (loop,) = scans(Graph("g", {"y": last}, (x, w)))
    assert [v.op.label for v in body_nodes(loop)] == ["matmul", "elementwise"]


@pytest.mark.parametrize("time", [4, 1, 0])
def test_slopes(time: int, torchscript: SimpleNamespace) -> None:
    """Of order one and two, a captured weight used inside and outside; the runtimes agree."""
    model = Memory()
    loss = model.loss()
    graph = Graph("g", {"loss": loss}, tuple(model.inputs))
    feeds = feeds_of(graph, {"time": time, "b": 2})
    check_difference(loss, model.inputs, feeds)
    slopes = grad(loss, model.inputs)
    second = sum_of_squares(slopes)
    check_difference(second, model.inputs, feeds)
    outputs = [loss, *slopes, *grad(second, model.inputs)]
    whole = Graph("g", {f"y{i}": y for i, y in enumerate(outputs)}, tuple(model.inputs))
    check_everywhere(whole, feeds, torchscript)


def sum_of_squares(values: list[Value]) -> Value:
    total: Value = (values[0] * values[0]).sum()
    for v in values[1:]:
        total = total + (v * v).sum()
    return total


def test_third_order() -> None:
    w, x = leaf("w", f64[2, 2]), leaf("x", f64["time", 2])
    y = scan(lambda h, x: (tanh(h @ w) + x, sigmoid(h)), const(np.ones(2)), x)[1].sum()
    for _ in range(2):
        y = sum_of_squares(grad(y, [w, x]))
    feeds = feeds_of(Graph("g", {"y": y}, (w, x)), {"time": 3})
    check_difference(y, [w, x], feeds)


def test_slopes_where_some_results_are_used() -> None:
    model = Memory()
    h, c, hs = model()
    feeds = feeds_of(Graph("g", {"y": h}, tuple(model.inputs)), {"time": 3, "b": 2})
    for used in (h.sum(), c.sum(), (hs[0] * hs[0]).sum(), hs.sum() + c.mean()):
        check_difference(used, model.inputs, feeds)


def test_forward_mode() -> None:
    model = Memory()
    y, t = model()[2], leaf("t", f64[3, 12])
    feeds = feeds_of(Graph("g", {"y": y, "t": t}, tuple(model.inputs)), {"time": 3, "b": 2})
    pushed = evaluate(jvp(y, model.w, t), feeds)
    ends = [evaluate(y, {**feeds, "w": feeds["w"] + s * STEP * feeds["t"]}) for s in (1, -1)]
    np.testing.assert_allclose(pushed, (ends[0] - ends[1]) / (2 * STEP), 1e-7, 1e-8)


def test_integers_and_conditions_are_carried() -> None:
    """Carries that have no slope beside one that has; the count decides what is added."""
    x, w = leaf("x", f64["time", 3]), leaf("w", f64[3])

    def body(n: Value, total: Value, x: Value) -> tuple[Value, ...]:
        return n + 1, where(n % 2 < 1, total * w + x, total), n

    n, total, places = scan(body, (0, const(np.ones(3))), x)
    feeds = feeds_of(Graph("g", {"y": total}, (x, w)), {"time": 5})
    check_difference((total * total).sum(), [x, w], feeds)
    assert evaluate(n, feeds) == 5
    np.testing.assert_array_equal(evaluate(places, feeds), np.arange(5))


def nested(dtype: DType) -> tuple[list[Value], Value]:
    """A loop within a loop, both of which use the same weight, and the inner one the row and the
    carry of the outer."""
    x, w = leaf("x", dtype["n", "m", 2]), leaf("w", dtype[2, 2])

    def outer(h: Value, rows: Value) -> tuple[Value, ...]:
        inner, seen = scan(lambda c, x: (tanh(c @ w + x * h), c), h, rows)
        return inner + (h @ w), seen.sum(0)

    last, sums = scan(outer, const(np.ones(2), dtype), x)
    return [x, w], (last * last).sum() + (sums * cos(sums)).sum()


def test_nested() -> None:
    leaves, y = nested(f64)
    feeds = feeds_of(Graph("g", {"y": y}, tuple(leaves)), {"n": 3, "m": 2})
    h, total = np.ones(2), 0.0
    for rows in feeds["x"]:
        c, sums = h, np.zeros(2)
        for row in rows:
            c, sums = np.tanh(c @ feeds["w"] + row * h), sums + c
        h = c + h @ feeds["w"]
        total += (sums * np.cos(sums)).sum()
    np.testing.assert_allclose(evaluate(y, feeds), (h * h).sum() + total, 1e-12)
    check_difference(y, leaves, feeds)
    check_difference(sum_of_squares(grad(y, leaves)), leaves, feeds)


def test_nested_loops_become_one_forward_and_one_back() -> None:
    leaves, y = nested(f32)
    graph = optimize(Graph("g", {"y": y, "slope": grad(y, leaves[1])}, tuple(leaves)))
    outer = scans(graph)
    assert len(outer) == 2
    assert [len(scans(v.op.body.graph)) for v in outer] == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("sizes", [(3, 2), (1, 1), (2, 0), (0, 2)])
def test_nested_in_the_runtimes(sizes: tuple[int, int], torchscript: SimpleNamespace) -> None:
    leaves, y = nested(f32)
    outputs = {"y": y, **{f"s{i}": s for i, s in enumerate(grad(y, leaves))}}
    graph = Graph("g", outputs, tuple(leaves))
    feeds = feeds_of(graph, dict(zip(("n", "m"), sizes, strict=True)))
    check_everywhere(graph, feeds, torchscript)


def test_the_graph_does_not_grow_with_time() -> None:
    counts = set()
    for time in (3, 300):
        x, w = leaf("x", f32[time, "b", 2]), leaf("w", f32[2, 2])
        start = broadcast_to(0.0, (x.shape[1], 2))
        _, hs = scan(lambda h, x, w=w: (tanh(x + h @ w),) * 2, start, x)
        graph = Graph("g", {"slope": grad((hs * hs).sum(), w)}, (x, w))
        model = to_model(optimize(graph))
        counts.add((len(graph.nodes), len(model.graph.node), model.ByteSize() // 100))
    assert len(counts) == 1


def test_one_model_for_every_length() -> None:
    model = Memory(f32)
    loss = model.loss()
    outputs = {"loss": loss, **{f"s{i}": s for i, s in enumerate(grad(loss, model.inputs))}}
    graph = Graph("g", outputs, tuple(model.inputs))
    run = session(valid_model(optimize(graph)))
    for time, batch in ((7, 2), (2, 5), (1, 1), (0, 3)):
        feeds = feeds_of(graph, {"time": time, "b": batch})
        expected = evaluate(graph, feeds, np.float64)
        actual = run(feeds, {n: x.shape for n, x in expected.items()})
        for name, x in expected.items():
            assert_close(actual[name], x, "float32", f"{name} at {time}")


# What is left to do in an iteration.


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
    """The body of the reverse loop is linear: sums of slopes, products with factors that are there
    for all iterations, and one matrix product."""
    back = scans(gradient_of_memory())[1]
    labels = sorted(v.op.label for v in body_nodes(back))
    assert labels == ["concat", "elementwise", "elementwise", "elementwise", "elementwise", "gemm"]
    assert back.op.carries == 2  # type: ignore[attr-defined]


def test_weights_get_their_slopes_after_the_loop() -> None:
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
    check_difference(y, [x, w, v], feeds_of(graph, {"time": 4}))
    (back,) = [s for s in scans(Graph("g", {"w": grad(y, w)}, (x, w, v))) if s.op.reverse]  # type: ignore[attr-defined]
    assert back.op.carries == 1  # type: ignore[attr-defined]


def test_what_is_no_product_is_added_up_on_the_way() -> None:
    """The slope of a weight of which each iteration makes something else."""
    x, w = leaf("x", f64["time", 3]), leaf("w", f64[3, 3])
    y = scan(lambda h, x: (tanh(h @ cos(w * x)), h), const(np.ones(3)), x)[1].sum()
    graph = Graph("g", {"y": y}, (x, w))
    feeds = feeds_of(graph, {"time": 4})
    check_difference(y, [x, w], feeds)


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


# What holds within bodies.


def test_naive_spellings_are_stable_in_a_body() -> None:
    x = leaf("x", f32["time", 2])
    _, ys = scan(lambda c, x: (c, log(1 + exp(x + c))), const(np.zeros(2, np.float32)), x)
    graph = optimize(Graph("g", {"y": ys, "slope": grad(ys.sum(), x)}, (x,)))
    feeds = {"x": np.array([[200.0, -200.0]], np.float32)}
    found = evaluate(graph, feeds)
    np.testing.assert_allclose(found["y"], [[200, 0]])
    np.testing.assert_allclose(found["slope"], [[1, 0]])


def test_rules_apply_in_a_body() -> None:
    x, w, b = leaf("x", f32["time", "n", 2]), leaf("w", f32[2, 2]), leaf("b", f32[2])
    last = scan(lambda h, x: relu((h @ w + x) * 1.0) + b - b, x[0], x)
    (loop,) = scans(optimize(Graph("g", {"y": last}, (x, w, b))))
    assert [v.op.label for v in body_nodes(loop)] == ["gemm", "elementwise"]


def dropped(salt: str = "a") -> tuple[Value, Value]:
    x = leaf("x", f32["time", 50])
    _, ys = scan(lambda c, x: (c, dropout(x, 0.5, salt)), const(0.0), x)
    return x, ys


def test_each_iteration_has_its_own_mask(torchscript: SimpleNamespace) -> None:
    """The same in numpy, ONNX and TorchScript, and the gradient has the mask of the iteration."""
    x, ys = dropped()
    slope = grad(ys.sum(), x)
    graph = Graph("g", {"y": ys, "slope": slope}, (x,))
    feeds = {
        "x": np.ones((6, 50), np.float32),
        "seed": np.asarray(3, np.int64),
        "step": np.asarray(1, np.int64),
    }
    found = evaluate(graph, feeds)
    rows = {row.tobytes() for row in found["y"]}
    assert len(rows) == 6
    np.testing.assert_array_equal(found["slope"], found["y"])
    run = session(valid_model(optimize(graph)))
    np.testing.assert_array_equal(run(feeds, dict.fromkeys(found, (6, 50)))["y"], found["y"])
    script = torchscript.to_script(graph, {n: feeds[n] for n in ("seed", "step")})
    results = script(torchscript.torch.from_numpy(feeds["x"]))
    np.testing.assert_array_equal(results["y"].numpy(), found["y"])
    other_step = evaluate(graph, {**feeds, "step": np.asarray(2, np.int64)})
    assert not np.array_equal(other_step["y"], found["y"])


def test_masks_differ_between_all_iterations_of_nested_loops() -> None:
    x = leaf("x", f32["n", "m", 64])

    def outer(c: Value, rows: Value) -> tuple[Value, Value]:
        _, ys = scan(lambda c, x: (c, dropout(x, 0.5, "in")), const(0.0), rows)
        return c, ys

    _, ys = scan(outer, const(0.0), x)
    feeds = {"x": np.ones((3, 4, 64), np.float32)}
    feeds |= {n: np.asarray(0, np.int64) for n in ("seed", "step")}
    found = evaluate(ys, feeds).reshape(12, 64)
    assert len({row.tobytes() for row in found}) == 12


def test_numbers_drawn_outside_are_the_same_in_all_iterations() -> None:
    x = leaf("x", f32["time", 50])
    mask = dropout(broadcast_to(1.0, (50,)), 0.5, "outside")
    _, ys = scan(lambda c, x: (c, x * mask), const(0.0), x)
    feeds = {"x": np.ones((4, 50), np.float32)}
    feeds |= {n: np.asarray(0, np.int64) for n in ("seed", "step")}
    assert len({row.tobytes() for row in evaluate(ys, feeds)}) == 1


def test_dropout_in_a_body_is_gone_in_inference() -> None:
    x, ys = dropped()
    plain = inference(Graph("g", {"y": ys}, (x,)))
    given = np.ones((3, 50), np.float32)
    feeds = {"x": given, **{n: np.asarray(0, np.int64) for n in ("seed", "step")}}
    np.testing.assert_array_equal(evaluate(plain, feeds)["y"], given)
    assert set(optimize(plain).leaves) == {"x"}


def test_any_random_op_in_a_body() -> None:
    key = random_key("k", seed_leaf())
    _, orders = scan(lambda c: (c, permutation(random_key("p", seed_leaf()), 8)), 0, length=5)
    _, numbers = scan(lambda c: (c, uniform(key, (3,))), 0, length=5)
    found = evaluate([orders, numbers], {"seed": np.asarray(1, np.int64)})
    assert len({row.tobytes() for row in found[0]}) == 5
    assert len({row.tobytes() for row in found[1]}) == 1  # its key is from outside


# Differential equations: y' = f(y), a step of a scheme an iteration.


def euler(f: Callable[[Value], Value], y: Value, step: float) -> Value:
    return y + step * f(y)


def runge_kutta(f: Callable[[Value], Value], y: Value, step: float) -> Value:
    a = f(y)
    b = f(y + step / 2 * a)
    c = f(y + step / 2 * b)
    return y + step / 6 * (a + 2 * b + 2 * c + f(y + step * c))


@pytest.mark.parametrize(("scheme", "order"), [(euler, 1), (runge_kutta, 4)])
def test_differential_equation(scheme: Callable[..., Value], order: int) -> None:
    """A rotation by one turn comes back to where it began, with an error that falls as the order
    of the scheme says; the slope at the generator is the difference quotient."""
    w, start = leaf("w", f64[2, 2]), const(np.array([1.0, 0.0]))
    feeds = {"w": np.array([[0.0, 1.0], [-1.0, 0.0]])}
    errors = []
    for steps in (100, 200):
        h = 2 * np.pi / steps
        last = scan(lambda y, h=h: scheme(lambda y: y @ w, y, h), start, length=steps)
        errors.append(np.linalg.norm(evaluate(last, feeds) - [1, 0]))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
    check_difference((last * const(np.array([0.3, 0.7]))).sum(), [w], feeds)


def test_neural_differential_equation_learns() -> None:
    """Gradient descent through the solver finds the generator of a rotation from where it takes
    points to."""
    w, points, ends = leaf("w", f64[2, 2]), leaf("points", f64["n", 2]), leaf("ends", f64["n", 2])
    solved = scan(lambda y: runge_kutta(lambda y: y @ w, y, 0.1), points, length=10)
    error = ((solved - ends) * (solved - ends)).mean()
    both = [error, grad(error, w)]
    rng = np.random.default_rng(0)
    given = rng.normal(size=(20, 2))
    turn = np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    feeds = {"points": given, "ends": given @ turn, "w": np.zeros((2, 2))}
    for _ in range(100):
        value, slope = evaluate(both, feeds)
        feeds["w"] = feeds["w"] - 0.5 * slope
    assert value < 1e-8
    np.testing.assert_allclose(feeds["w"], [[0, 1], [-1, 0]], atol=1e-3)


# Mistakes.


def test_a_carry_keeps_its_type() -> None:
    x = leaf("x", f32["time", 3])
    with pytest.raises(ShapeError, match=r"carry 0 is f32\[\] at first and f32\[3\] after") as e:
        scan(lambda c, x: c + x, const(0.0), x)
    assert "broadcast_to(init, shape)" in str(e.value)
    with pytest.raises(DTypeError, match=r"carry 0 is i64\[\] at first and f32\[\]"):
        scan(lambda c, x: c + x.sum(), 0, x)


def test_lengths_agree() -> None:
    x, y = leaf("x", f32["n", 3]), leaf("y", f32["m", 3])
    with pytest.raises(ShapeError, match="known to be equal, got n, m"):
        scan(lambda c, x, y: c, const(0.0), (x, y))
    with pytest.raises(ShapeError, match="nothing says how often"):
        scan(lambda c: c, const(0.0))
    with pytest.raises(ShapeError, match="no axis to go along"):
        scan(lambda c, x: c, const(0.0), const(1.0))


def test_every_carry_is_given_back() -> None:
    with pytest.raises(ModelError, match="gives 1 values for 2 carries"):
        scan(lambda a, b: a, (const(0.0), const(1.0)), length=3)


def test_what_is_of_one_iteration_stays_there() -> None:
    kept: list[Value] = []
    x = leaf("x", f32["time", 3])

    def body(c: Value, x: Value) -> Value:
        kept.append(c + x)
        return c + x

    scan(body, x[0], x)
    with pytest.raises(CompileError, match="a value of one iteration of a scan") as error:
        to_model(Graph("g", {"y": kept[0] * 2}, (x,)))
    assert "let the body return it" in str(error.value)


def test_types_of_arguments_are_checked() -> None:
    x = leaf("x", f32["time", 3])
    loop = scan(lambda c, x: c + x, x[0], x).args[0]
    with pytest.raises(ShapeError, match=r"argument 0 must be f32\[3\], got f32\[2\]"):
        loop.op(Input("bad", f32[2])(), x)
    with pytest.raises(DTypeError, match=r"argument 1 must be f32\[time, 3\], got i64"):
        loop.op(x[0], Input("bad", i64["time", 3])())
