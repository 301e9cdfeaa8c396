"""What holds within the body of a loop: rules, masks of dropout, differential equations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.locations import (
    LocationTable,
    current_locations,
    recording_locations,
)
from nncompile.elementwise import exp, log, relu
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f32, f64
from nncompile.ops import (
    broadcast_to,
    const,
    dropout,
    permutation,
    random_key,
    scan,
    seed_leaf,
    uniform,
)
from nncompile.passes import inference, optimize
from tests.backends import optimized, script_of
from tests.leaves import leaf
from tests.scan_checks import body_nodes, check_gradients, scans


def test_naive_spellings_are_stable_in_a_body() -> None:
    x = leaf("x", f32["time", 2])
    _, ys = scan(lambda c, x: (c, log(1 + exp(x + c))), const(np.zeros(2, np.float32)), x)
    graph = optimize(Graph("g", {"y": ys, "gradient": grad(ys.sum(), x)}, (x,)))
    feeds = {"x": np.array([[200.0, -200.0]], np.float32)}
    found = evaluate(graph, feeds)
    np.testing.assert_allclose(found["y"], [[200, 0]])
    np.testing.assert_allclose(found["gradient"], [[1, 0]])


def test_rules_apply_in_a_body() -> None:
    x, w, b = leaf("x", f32["time", "n", 2]), leaf("w", f32[2, 2]), leaf("b", f32[2])
    last = scan(lambda h, x: relu((h @ w + x) * 1.0) + b - b, x[0], x)
    (loop,) = scans(optimize(Graph("g", {"y": last}, (x, w, b))))
    assert [v.op.label for v in body_nodes(loop)] == ["gemm", "elementwise"]


def dropped(salt: str = "a") -> tuple[Value, Value]:
    x = leaf("x", f32["time", 50])
    _, ys = scan(lambda c, x: (c, dropout(x, 0.5, salt)), const(0.0), x)
    return x, ys


def test_each_iteration_has_its_own_mask() -> None:
    """The same in numpy, ONNX and TorchScript, and the gradient has the mask of the iteration."""
    x, ys = dropped()
    gradient = grad(ys.sum(), x)
    graph = Graph("g", {"y": ys, "gradient": gradient}, (x,))
    feeds = {
        "x": np.ones((6, 50), np.float32),
        "seed": np.asarray(3, np.int64),
        "step": np.asarray(1, np.int64),
    }
    found = evaluate(graph, feeds)
    rows = {row.tobytes() for row in found["y"]}
    assert len(rows) == 6
    np.testing.assert_array_equal(found["gradient"], found["y"])
    np.testing.assert_array_equal(optimized(graph, **feeds)["y"], found["y"])
    script = script_of(graph, {n: feeds[n] for n in ("seed", "step")})
    np.testing.assert_array_equal(script(feeds)["y"], found["y"])
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
    of the scheme says; the gradient for the generator is the difference quotient."""
    w, start = leaf("w", f64[2, 2]), const(np.array([1.0, 0.0]))
    feeds = {"w": np.array([[0.0, 1.0], [-1.0, 0.0]])}
    errors = []
    for steps in (100, 200):
        h = 2 * np.pi / steps
        last = scan(lambda y, h=h: scheme(lambda y: y @ w, y, h), start, length=steps)
        errors.append(np.linalg.norm(evaluate(last, feeds) - [1, 0]))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)
    check_gradients((last * const(np.array([0.3, 0.7]))).sum(), [w], feeds)


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
        value, gradient = evaluate(both, feeds)
        feeds["w"] = feeds["w"] - 0.5 * gradient
    assert value < 1e-8
    np.testing.assert_allclose(feeds["w"], [[0, 1], [-1, 0]], atol=1e-3)


def test_a_body_is_one_graph_while_locations_are_recorded_in_one_table() -> None:
    x = leaf("x", f64["time", 3])
    body = scan(lambda c, x: c * x, x[0], x).args[0].op.body  # type: ignore[attr-defined]
    for _ in range(2):
        with recording_locations(LocationTable()):
            assert body.graph is body.graph
            assert body.graph.locations is current_locations()
