"""Gradients as graph transformations, of every order, against finite differences and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad, hvp, jacobian, jvp, vjp
from nncompile.diagnostics.errors import FeedError, GradientError, ShapeError
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.elementwise import exp, log, maximum, sin, stop_gradient, tanh, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast, const
from nncompile.ir.graph import items
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Op, Value
from nncompile.ir.types import TupleType, Type, f32, f64, i64
from nncompile.ops import log_softmax, softmax
from nncompile.ops.core.annotations import custom_gradient
from tests.array_checks import uniform
from tests.differences import gradient_of_sum
from tests.leaves import leaf


@pytest.fixture
def x() -> Value:
    return leaf("x", f64["n", 3])


# The structure of arguments and results.


def test_results_have_the_structure_of_wrt(x: Value) -> None:
    w, v = leaf("w", f64[3]), leaf("v", f64[()])
    y = (x * w).sum() * v
    single, listed, named = grad(y, w), grad(y, [x, w]), grad(y, {"a": v, "b": w})
    assert single is listed[1] is named["b"]
    assert list(named) == ["a", "b"]
    for gradient, at in zip([*listed, named["a"]], [x, w, v], strict=True):
        assert gradient.type == at.type


def test_what_does_not_matter_has_gradient_zero(x: Value) -> None:
    other = leaf("other", f64["m"])
    gradient = grad(x.sum(), other)
    assert gradient.type == other.type
    feeds = {"x": uniform(2, 3), "other": uniform(4)}
    np.testing.assert_array_equal(evaluate([gradient, other, x], feeds)[0], np.zeros(4))


def test_gradient_at_an_intermediate_value(x: Value) -> None:
    h = x * x
    y = (h * sin(h)).sum()
    array = uniform(2, 3)
    expected = np.sin(array**2) + array**2 * np.cos(array**2)
    np.testing.assert_allclose(evaluate(grad(y, h), {"x": array}), expected, 1e-12)


def test_gradients_of_all_uses_add_up(x: Value) -> None:
    y = (x * x + exp(x) * x).sum() + x.sum() * x.max()
    feeds = {"x": uniform(2, 3)}
    np.testing.assert_allclose(
        evaluate(grad(y, x), feeds), gradient_of_sum(y, feeds, "x"), 1e-7, 1e-8
    )


def test_value_that_is_its_own_gradient_target(x: Value) -> None:
    y = x.sum()
    assert evaluate(grad(y, y), {"x": uniform(1, 3)}) == 1.0


# Ops with several results.


class Pair(Op):
    """x², x³ and the sign of x as an integer."""

    def infer(self, x: Type) -> TupleType:
        return TupleType((x, x, Type(i64, x.shape)))

    def pullback(self, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        assert len(g) == 3
        parts = [s * f for s, f in zip(g[:2], (2.0 * x, 3.0 * x * x), strict=True) if s is not None]
        return (sum(parts[1:], parts[0]),)

    def numpy(self, x: np.ndarray) -> Any:
        return x**2, x**3, np.sign(x).astype(np.int64)


PAIR_CASES = {
    "the first": lambda a, b: a,
    "the second": lambda a, b: b,
    "both": lambda a, b: a * 3.0 + b,
    "their product": lambda a, b: a * b,
    "one twice": lambda a, b: a * a + a,
    "one within the other's use": lambda a, b: b * exp(a) + a,
    "none": lambda a, b: None,
}


@pytest.mark.parametrize("use", PAIR_CASES.values(), ids=PAIR_CASES)
def test_gradients_of_an_op_with_several_results(x: Value, use: Any) -> None:
    first, second, _ = items(Pair()(x))
    used = use(first, second)
    y = (x * x).sum() if used is None else (used + x).sum()
    feeds = {"x": uniform(2, 3)}
    gradient = grad(y, x)
    total = (gradient * gradient).sum()
    first, second, _ = evaluate([gradient, grad(total, x), x], feeds)
    np.testing.assert_allclose(first, gradient_of_sum(y, feeds, "x"), 1e-6, 1e-8)
    np.testing.assert_allclose(second, gradient_of_sum(total, feeds, "x"), 1e-6, 1e-7)


def test_gradient_at_one_of_several_results(x: Value) -> None:
    """A result is a value like any other to differentiate at."""
    first, second, _ = items(Pair()(x))
    array = uniform(2, 3)
    gradients = grad((first * second).sum(), [first, second])
    at_first, at_second = evaluate(gradients, {"x": array})
    np.testing.assert_allclose(at_first, array**3)
    np.testing.assert_allclose(at_second, array**2)


# Errors.


class Opaque(Op):
    """An op without a gradient."""

    def infer(self, x: Type) -> Type:
        return x


def test_an_op_without_gradient_is_named_with_the_users_line(x: Value) -> None:
    with recording_locations(LocationTable()) as locations:
        bad = Opaque()(x * 2)
        y = exp(bad).sum()
        line = locations.location(bad)
        with pytest.raises(GradientError, match="opaque has no gradient") as caught:
            grad(y, x)
    assert line is not None and line.file == __file__
    assert caught.value.location == line
    assert Path(__file__).name in str(caught.value)
    assert caught.value.hint is not None and "stop_gradient" in caught.value.hint


def test_an_op_without_gradient_off_the_way_does_not_matter(x: Value) -> None:
    w = leaf("w", f64[3])
    assert grad((Opaque()(x) * w).sum(), w).type == w.type
    assert grad((stop_gradient(Opaque()(x)) * x).sum(), x).type == x.type


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: grad(x, x), GradientError, "scalar"),
        (lambda x: grad(cast(x, i64).sum(), x), GradientError, "not real"),
        (lambda x: grad(x.sum(), cast(x, i64)), GradientError, "not real"),
        (lambda x: vjp(x, x, x.sum()), GradientError, "cotangent"),
        (lambda x: vjp([x, x], x, [x]), GradientError, "1 cotangents for 2 outputs"),
        (lambda x: jvp(x, x, cast(x, f32)), GradientError, "tangent"),
        (lambda x: jvp(x, [x], [x, x]), GradientError, "2 tangents for 1 inputs"),
        (lambda x: hvp(x.sum(), [x], [x, x]), GradientError, "2 vectors for 1 inputs"),
        (lambda x: jacobian(x, x), ShapeError, "symbolic number of rows"),
    ],
)
def test_mistakes(x: Value, make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(x)


class Wrong(Op):
    """Its gradient has another type than its argument."""

    def infer(self, x: Type) -> Type:
        return x

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (g.sum(),)


def test_a_gradient_of_another_type_is_the_ops_fault(x: Value) -> None:
    with pytest.raises(Exception, match="the gradient of op Wrong is wrong"):
        grad(Wrong()(x).sum(), x)


# Declared gradients.


def test_stop_gradient_holds_its_input_constant(x: Value) -> None:
    array = uniform(2, 3)
    y = (x * stop_gradient(x * x)).sum()
    np.testing.assert_allclose(evaluate(grad(y, x), {"x": array}), array**2)
    second = grad(grad(y, x).sum(), x)
    np.testing.assert_array_equal(evaluate([second, x], {"x": array})[0], np.zeros((2, 3)))


def test_custom_gradient_replaces_the_gradient(x: Value) -> None:
    @custom_gradient(lambda g, y, x: g * 7.0)
    def rounded(x: Value) -> Value:
        return x.astype(i64).astype(f64)

    array = uniform(2, 3) * 5
    np.testing.assert_array_equal(evaluate(rounded(x), {"x": array}), np.trunc(array))
    gradient = grad((rounded(x) * x).sum(), x)
    np.testing.assert_allclose(evaluate(gradient, {"x": array}), np.trunc(array) + 7 * array)


def test_custom_gradient_of_several_inputs_and_orders(x: Value) -> None:
    """The declared gradient is part of the graph: the next order differentiates it."""

    @custom_gradient(lambda g, y, a, b: (g * a * a, None))
    def product(a: Value, b: Value) -> Value:
        return a * b

    other = leaf("other", x.type)
    feeds = {"x": uniform(2, 3), "other": uniform(2, 3, seed=1)}
    gradients = grad(product(x, other).sum(), [x, other])
    at_x, at_other, _ = evaluate([*gradients, other], feeds)
    np.testing.assert_allclose(at_x, feeds["x"] ** 2)
    np.testing.assert_array_equal(at_other, np.zeros((2, 3)))
    second = grad(gradients[0].sum(), x)
    np.testing.assert_allclose(evaluate(second, feeds), 2 * feeds["x"])


def test_custom_gradient_with_a_wrong_number_of_gradients(x: Value) -> None:
    @custom_gradient(lambda g, y, a: (g, g))
    def same(a: Value) -> Value:
        return a * 1.5

    with pytest.raises(GradientError, match="2 gradients for 1 inputs"):
        grad(same(x).sum(), x)


def test_formula_with_a_declared_gradient(x: Value) -> None:
    def through(x: Any) -> Any:
        return 1

    @formula(derivative=through)
    def quantised(x: Any) -> Any:
        return where(x > 0, 1.0, -1.0)

    array = uniform(2, 3)
    y = (quantised(x) * x).sum()
    np.testing.assert_allclose(evaluate(grad(y, x), {"x": array}), np.sign(array) + array)


# Orders.


def test_every_order_of_one_function() -> None:
    """The derivatives of x⁵, and of sin, one after the other."""
    x = leaf("x", f64[()])
    point = {"x": np.float64(0.7).reshape(())}
    y, expected = x**5, [5 * 0.7**4, 20 * 0.7**3, 60 * 0.7**2, 120 * 0.7, 120.0, 0.0]
    for number in expected:
        y = grad(y, x)
        np.testing.assert_allclose(evaluate([y, x], point)[0], number, 1e-12)
    y = sin(x)
    for number in (np.cos(0.7), -np.sin(0.7), -np.cos(0.7), np.sin(0.7)):
        y = grad(y, x)
        np.testing.assert_allclose(evaluate(y, point), number, 1e-12)


def test_gradient_of_a_step_of_gradient_descent(x: Value) -> None:
    """The loss after a step, differentiated through the step."""
    w = leaf("w", f64[3, 2])

    def loss(w: Value) -> Value:
        y = tanh(x @ w)
        return (y * y).mean()

    feeds = {"x": uniform(4, 3), "w": uniform(3, 2, seed=1)}
    after = loss(w - 0.5 * grad(loss(w), w))
    gradient = evaluate(grad(after, w), feeds)
    np.testing.assert_allclose(gradient, gradient_of_sum(after, feeds, "w"), 1e-6, 1e-8)


def test_a_masked_infinity_has_no_gradient() -> None:
    """`where` between values: the branch not taken adds nothing to a finite gradient."""
    x = leaf("x", f64["n"])
    y = where(x > 0, x, const(-np.inf, f64)).max()
    np.testing.assert_array_equal(
        evaluate(grad(y, x), {"x": np.array([-1.0, 2.0, 1.0])}), [0, 1, 0]
    )


def test_ties_share_the_gradient() -> None:
    x, y = leaf("x", f64["n"]), leaf("y", f64["n"])
    ones = {"x": np.ones(2), "y": np.ones(2)}
    at_x, at_y = evaluate(grad(maximum(x, y).sum(), [x, y]), ones)
    np.testing.assert_array_equal(at_x + at_y, [1, 1])
    np.testing.assert_array_equal(evaluate(grad(x.max(), x), ones), [0.5, 0.5])


def test_broadcast_gradients_have_the_shape_of_their_argument() -> None:
    x = leaf("x", f64["b", 1, 3])
    for shape in ((3,), (1, 3), ("t", 1), (), ("b", "t", 3), (1, "t", 1)):
        other = leaf("other", f64[shape])
        y = (log(x * x + 1) * other).sum()
        feeds = {
            "x": uniform(2, 1, 3),
            "other": uniform(*[{"b": 2, "t": 4}.get(d, d) for d in shape]),
        }
        for name, gradient in zip(("x", "other"), grad(y, [x, other]), strict=True):
            found, *_ = evaluate([gradient, x, other], feeds)
            np.testing.assert_allclose(found, gradient_of_sum(y, feeds, name), 1e-6, 1e-8)


def test_deep_graphs_differentiate() -> None:
    x = leaf("x", f64["n"])
    y = x
    for _ in range(2000):
        y = y + sin(y) * 1e-4
    feeds = {"x": uniform(2)}
    gradient = grad(y.sum(), x)
    np.testing.assert_allclose(evaluate(gradient, feeds), gradient_of_sum(y, feeds, "x"), 1e-6)


def test_a_size_that_the_data_do_not_tell(x: Value) -> None:
    """The gradient of a sum is made of ones, as many as `x` has, whose data it does not need."""
    with pytest.raises(FeedError, match="the size n of expand"):
        evaluate(grad(x.sum(), x), {"x": uniform(2, 3)})


@pytest.mark.parametrize("twice", [False, True])
def test_outputs_that_become_one_value_give_both_their_cotangents(twice: bool) -> None:
    """log(softmax) becomes the log-softmax that stands beside it; and one may be given twice."""
    z, v, w = leaf("z", f64[2, 3]), leaf("v", f64[2, 3]), leaf("w", f64[2, 3])
    first = log_softmax(z, 1)
    outputs = [first, first if twice else log(softmax(z, 1))]
    feeds = {"z": uniform(2, 3), "v": uniform(2, 3, seed=1), "w": uniform(2, 3, seed=2)}
    both = evaluate(vjp(outputs, z, [v, w]), feeds)
    np.testing.assert_allclose(both, evaluate(vjp(first, z, v + w), feeds), rtol=1e-12)
