"""Products with Jacobians and Hessians, against finite differences and the mathematics."""

from __future__ import annotations

import numpy as np
import pytest

from nncompile.autodiff.grad import grad, hvp, jacobian, jvp, vjp
from nncompile.elementwise import exp, tanh
from nncompile.ir.basic import const
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Type, f64
from tests.array_checks import uniform
from tests.differences import derivative_along
from tests.leaves import leaf


@pytest.fixture
def x() -> Value:
    return leaf("x", f64["n", 3])


def net(x: Value, w: Value) -> Value:
    return tanh(x @ w) * exp(x[:, :2])


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return {"x": uniform(4, 3), "w": uniform(3, 2, seed=1)}


@pytest.fixture
def w() -> Value:
    return leaf("w", f64[3, 2])


def test_jvp(x: Value, w: Value, feeds: dict[str, np.ndarray]) -> None:
    y = net(x, w)
    dx, dw = uniform(4, 3, seed=2), uniform(3, 2, seed=3)
    tangents = [leaf("dx", x.type), leaf("dw", w.type)]
    forward = jvp(y, [x, w], tangents)
    assert forward.type == y.type
    np.testing.assert_allclose(
        evaluate(forward, feeds | {"dx": dx, "dw": dw}),
        derivative_along(y, feeds, {"x": dx, "w": dw}),
        1e-7,
        1e-9,
    )


def test_jvp_keeps_the_structure_of_its_outputs(x: Value) -> None:
    outputs = {"a": x * x, "b": x.sum(), "c": const(1.0, f64)}
    forward = jvp(outputs, x, x)
    assert list(forward) == ["a", "b", "c"]
    array = uniform(2, 3)
    results = evaluate(forward | {"x": x}, {"x": array})
    np.testing.assert_allclose(results["a"], 2 * array**2)
    np.testing.assert_allclose(results["b"], array.sum())
    assert results["c"] == 0


def test_vjp_is_the_transpose_of_jvp(x: Value, w: Value, feeds: dict[str, np.ndarray]) -> None:
    """⟨cotangent, J·tangent⟩ = ⟨Jᵀ·cotangent, tangent⟩."""
    y = net(x, w)
    cotangent, tangent = leaf("c", y.type), leaf("t", w.type)
    feeds = feeds | {"c": uniform(4, 2, seed=4), "t": uniform(3, 2, seed=5)}
    left = evaluate((cotangent * jvp(y, w, tangent)).sum(), feeds)
    right = evaluate((vjp(y, w, cotangent) * tangent).sum(), feeds)
    np.testing.assert_allclose(left, right, 1e-12)


def test_vjp_of_several_outputs(x: Value, w: Value, feeds: dict[str, np.ndarray]) -> None:
    a, b = x @ w, exp(w)
    ca, cb = leaf("ca", a.type), leaf("cb", b.type)
    feeds = feeds | {"ca": uniform(4, 2, seed=4), "cb": uniform(3, 2, seed=5)}
    together = evaluate(vjp([a, b], w, [ca, cb]), feeds)
    apart = evaluate(vjp(a, w, ca) + vjp(b, w, cb), feeds)
    np.testing.assert_allclose(together, apart)
    twice = evaluate(vjp([a, a], w, [ca, ca]), feeds)
    np.testing.assert_allclose(twice, 2 * evaluate(vjp(a, w, ca), feeds))


def test_hvp(x: Value, w: Value, feeds: dict[str, np.ndarray]) -> None:
    y = (net(x, w) * net(x, w)).sum()
    v = leaf("v", w.type)
    direction = uniform(3, 2, seed=6)
    product = evaluate(hvp(y, w, v), feeds | {"v": direction})
    expected = derivative_along(grad(y, w), feeds, {"w": direction})
    np.testing.assert_allclose(product, expected, 1e-6, 1e-8)
    both = hvp(y, {"x": x, "w": w}, {"x": leaf("vx", x.type), "w": v})
    assert {n: s.type for n, s in both.items()} == {"x": x.type, "w": w.type}


def test_jacobian() -> None:
    x, a = leaf("x", f64[3]), leaf("a", f64[2, 3])
    y = (a @ x) * x.sum()
    feeds = {"x": uniform(3), "a": uniform(2, 3, seed=1)}
    found = jacobian(y, x)
    assert found.type == f64[2, 3]
    array, matrix = feeds["x"], feeds["a"]
    expected = matrix * array.sum() + (matrix @ array)[:, None]
    np.testing.assert_allclose(evaluate(found, feeds), expected, 1e-12)
    hessian = jacobian(grad((y * y).sum(), x), x)
    assert hessian.type == f64[3, 3]
    h = evaluate(hessian, feeds)
    np.testing.assert_allclose(h, h.T, 1e-10)
    for i in range(3):
        column = derivative_along(grad((y * y).sum(), x), feeds, {"x": np.eye(3)[i]})
        np.testing.assert_allclose(h[:, i], column, 1e-6)


@pytest.mark.parametrize(
    ("y_shape", "x_shape"), [((), ()), ((), (2,)), ((2, 1), (1, 3)), ((0,), (2,))]
)
def test_shape_of_a_jacobian(y_shape: tuple[int, ...], x_shape: tuple[int, ...]) -> None:
    x = leaf("x", Type(f64, x_shape))
    y = const(np.ones(y_shape), f64) * x.sum()
    found = jacobian(y, x)
    assert found.shape == y_shape + x_shape
    np.testing.assert_array_equal(
        evaluate([found, x], {"x": np.ones(x_shape)})[0], np.ones(y_shape + x_shape)
    )
