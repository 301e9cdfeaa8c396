"""Loops: what they compute, their gradients of any order, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from nncompile.autodiff.grad import grad, jvp
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.elementwise import cos, sigmoid, tanh, where
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32, f64, i64
from nncompile.ops import broadcast_to, const, iota, scan
from nncompile.passes import optimize
from tests.backends import session, valid_model
from tests.differences import derivative_along
from tests.leaves import leaf
from tests.scan_checks import (
    Memory,
    body_nodes,
    check_everywhere,
    check_gradients,
    feeds_of,
    scans,
    sum_of_squares,
)
from tests.tolerances import assert_close


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


def test_formals_of_one_name_do_not_meet() -> None:
    """Two loops whose bodies have formals of the same names and types, one in the other's
    argument, and both in one graph."""
    x, a, b = leaf("x", f32["n", 2]), leaf("a", f32[2]), leaf("b", f32[2])

    def smooth(carry: Value, x: Value) -> tuple[Value, Value]:
        return carry * 0.5 + x, carry * x

    last, seen = scan(smooth, a, x)
    again, _ = scan(smooth, last, seen)
    third, _ = scan(lambda c, x: (x - c * 0.5, c), b, x)
    graph = Graph("g", {"again": again, "third": third}, (x, a, b))
    check_everywhere(graph, feeds_of(graph, {"n": 4}))


def test_invariant_work_is_outside() -> None:
    """What a body computes from what does not change is an argument of the loop."""
    x, w = leaf("x", f64["n", 3]), leaf("w", f64[3, 3])
    last = scan(lambda c, x: c + x @ tanh(w @ w), const(np.zeros(3)), x)
    (loop,) = scans(Graph("g", {"y": last}, (x, w)))
    assert [v.op.label for v in body_nodes(loop)] == ["matmul", "elementwise"]


@pytest.mark.parametrize("time", [4, 1, 0])
def test_gradients(time: int) -> None:
    """Of order one and two, a captured weight used inside and outside; the runtimes agree."""
    model = Memory()
    loss = model.loss()
    graph = Graph("g", {"loss": loss}, tuple(model.inputs))
    feeds = feeds_of(graph, {"time": time, "b": 2})
    check_gradients(loss, model.inputs, feeds)
    gradients = grad(loss, model.inputs)
    second = sum_of_squares(gradients)
    check_gradients(second, model.inputs, feeds)
    outputs = [loss, *gradients, *grad(second, model.inputs)]
    whole = Graph("g", {f"y{i}": y for i, y in enumerate(outputs)}, tuple(model.inputs))
    check_everywhere(whole, feeds)


def test_third_order() -> None:
    w, x = leaf("w", f64[2, 2]), leaf("x", f64["time", 2])
    y = scan(lambda h, x: (tanh(h @ w) + x, sigmoid(h)), const(np.ones(2)), x)[1].sum()
    for _ in range(2):
        y = sum_of_squares(grad(y, [w, x]))
    feeds = feeds_of(Graph("g", {"y": y}, (w, x)), {"time": 3})
    check_gradients(y, [w, x], feeds)


def test_gradients_where_some_results_are_used() -> None:
    model = Memory()
    h, c, hs = model()
    feeds = feeds_of(Graph("g", {"y": h}, tuple(model.inputs)), {"time": 3, "b": 2})
    for used in (h.sum(), c.sum(), (hs[0] * hs[0]).sum(), hs.sum() + c.mean()):
        check_gradients(used, model.inputs, feeds)


def test_forward_mode() -> None:
    model = Memory()
    y, t = model()[2], leaf("t", f64[3, 12])
    feeds = feeds_of(Graph("g", {"y": y, "t": t}, tuple(model.inputs)), {"time": 3, "b": 2})
    pushed = evaluate(jvp(y, model.w, t), feeds)
    expected = derivative_along(y, feeds, {"w": feeds["t"]})
    np.testing.assert_allclose(pushed, expected, 1e-7, 1e-8)


def test_integers_and_conditions_are_carried() -> None:
    """Carries that have no gradient beside one that has; the count decides what is added."""
    x, w = leaf("x", f64["time", 3]), leaf("w", f64[3])

    def body(n: Value, total: Value, x: Value) -> tuple[Value, ...]:
        return n + 1, where(n % 2 < 1, total * w + x, total), n

    n, total, places = scan(body, (0, const(np.ones(3))), x)
    feeds = feeds_of(Graph("g", {"y": total}, (x, w)), {"time": 5})
    check_gradients((total * total).sum(), [x, w], feeds)
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
    check_gradients(y, leaves, feeds)
    check_gradients(sum_of_squares(grad(y, leaves)), leaves, feeds)


def test_nested_loops_become_one_forward_and_one_back() -> None:
    leaves, y = nested(f32)
    graph = optimize(Graph("g", {"y": y, "gradient": grad(y, leaves[1])}, tuple(leaves)))
    outer = scans(graph)
    assert len(outer) == 2
    assert [len(scans(v.op.body.graph)) for v in outer] == [1, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("sizes", [(3, 2), (1, 1), (2, 0), (0, 2)])
def test_nested_in_the_runtimes(sizes: tuple[int, int]) -> None:
    leaves, y = nested(f32)
    outputs = {"y": y, **{f"s{i}": s for i, s in enumerate(grad(y, leaves))}}
    graph = Graph("g", outputs, tuple(leaves))
    feeds = feeds_of(graph, dict(zip(("n", "m"), sizes, strict=True)))
    check_everywhere(graph, feeds)


def test_the_graph_does_not_grow_with_time() -> None:
    counts = set()
    for time in (3, 300):
        x, w = leaf("x", f32[time, "b", 2]), leaf("w", f32[2, 2])
        start = broadcast_to(0.0, (x.shape[1], 2))
        _, hs = scan(lambda h, x, w=w: (tanh(x + h @ w),) * 2, start, x)
        graph = Graph("g", {"gradient": grad((hs * hs).sum(), w)}, (x, w))
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
        actual = run(feeds, expected)
        for name, x in expected.items():
            assert_close(actual[name], x, "float32", f"{name} at {time}")


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
    with pytest.raises(ShapeError, match="number of iterations is unknown"):
        scan(lambda c: c, const(0.0))
    with pytest.raises(ShapeError, match="no axis to scan"):
        scan(lambda c, x: c, const(0.0), const(1.0))


def test_every_carry_is_given_back() -> None:
    with pytest.raises(ModelError, match="returns 1 values for 2 carries"):
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
    assert "return it from the body" in str(error.value)


def test_types_of_arguments_are_checked() -> None:
    x = leaf("x", f32["time", 3])
    loop = scan(lambda c, x: c + x, x[0], x).args[0]
    with pytest.raises(ShapeError, match=r"argument 0 must be f32\[3\], got f32\[2\]"):
        loop.op(Input("bad", f32[2])(), x)
    with pytest.raises(DTypeError, match=r"argument 1 must be f32\[time, 3\], got i64"):
        loop.op(x[0], Input("bad", i64["time", 3])())
