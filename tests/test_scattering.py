"""Scattering: elements that replace others, and that are combined with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.op import Value
from nncompile.ir.types import DTYPES, DType, f32, f64, i32, i64
from tests.array_checks import Everywhere, check_numpy, integers
from tests.gradient_checks import check_gradient, gradient_at
from tests.leaves import leaf

NAN, INF = np.nan, np.inf
UFUNCS: dict[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
SIZES = [(4, 6), (1, 1), (3, 0), (5, 2)]


drawn = partial(integers, high=4)


def put(x: np.ndarray, indices: np.ndarray, values: np.ndarray, axis: int, reduction: str) -> Any:
    """numpy's, one after the other."""
    y = x.copy()
    grid: list[Any] = list(np.ogrid[tuple(map(slice, indices.shape))])
    grid[axis] = indices
    if reduction == "none":
        np.put_along_axis(y, indices, values, axis)
    else:
        UFUNCS[reduction].at(y, tuple(grid), values)
    return y


@pytest.mark.parametrize("reduction", ["none", *UFUNCS])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_along_an_axis_of_any_type(dtype: DType, reduction: str) -> None:
    cases = []
    for size, count in SIZES:
        indices = np.random.default_rng(size).integers(-size, size, (count, 3))
        cases.append((drawn((size, 3), dtype), indices, drawn((count, 3), dtype, 1)))
    check_numpy(
        lambda x, i, v: ops.put_along_axis(x, i, v, 0, reduction),
        lambda x, i, v: put(x, i, v, 0, reduction),
        (dtype["n", "k"], i64["m", "k"], dtype["m", "k"]),
        *cases,
    )


@pytest.mark.parametrize("reduction", ["none", *UFUNCS])
def test_slices_across_an_axis(reduction: str) -> None:
    everywhere = Everywhere(
        lambda x, i, u: ops.scatter(x, i, u, 1, reduction),
        f64["a", "n", "b"], i32["k", "m"], f64["a", "k", "m", "b"],
    )  # fmt: skip
    for size, k, m in ((5, 2, 2), (1, 1, 3), (3, 0, 2), (2, 4, 3)):
        x, updates = drawn((2, size, 3)), drawn((2, k, m, 3), seed=1)
        indices = np.random.default_rng(k).integers(-size, size, (k, m))
        expected = np.moveaxis(x, 1, 0).copy()
        rows = np.moveaxis(updates, 0, 2).reshape(k * m, 2, 3)
        for place, row in zip(indices.ravel(), rows, strict=True):
            expected[place] = (
                row if reduction == "none" else UFUNCS[reduction](expected[place], row)
            )
        np.testing.assert_array_equal(everywhere(x, indices, updates), np.moveaxis(expected, 0, 1))


def test_what_is_put_is_taken_again_and_the_last_stays() -> None:
    x = np.arange(6.0)
    everywhere = Everywhere(lambda x, i, u: ops.scatter(x, i, u), f64["n"], i64["m"], f64["m"])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        indices, updates = rng.integers(0, 6, 40), rng.normal(size=40)
        expected = x.copy()
        for place, update in zip(indices, updates, strict=True):
            expected[place] = update
        np.testing.assert_array_equal(everywhere(x, indices, updates), expected)
    same = Everywhere(lambda x, i: ops.scatter(x, i, ops.take(x, i, 1), 1), f64["n", "k"], i64["m"])
    x = drawn((3, 4))
    np.testing.assert_array_equal(same(x, [1, 3, -1]), x)


def test_numbers_broadcast() -> None:
    x = drawn((3, 4))
    put_one = Everywhere(lambda x: ops.put_along_axis(x, [[1], [2], [0]], 9, 1), f64[3, "n"])
    expected = x.copy()
    np.put_along_axis(expected, np.array([[1], [2], [0]]), 9, 1)
    np.testing.assert_array_equal(put_one(x), expected)
    zeroed = Everywhere(lambda x, i: x.scatter(i, 0), f64["n", "k"], i64["m"])
    expected = x.copy()
    expected[[0, 2]] = 0
    np.testing.assert_array_equal(zeroed(x, [0, 2]), expected)


@pytest.mark.parametrize("reduction", ["max", "min", "mul", "add", "none"])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_nan_and_infinities(dtype: DType, reduction: str) -> None:
    x = np.array([1, NAN, 3, INF, -INF, 0], dtype.numpy)
    indices = np.array([0, 0, 0, 1, 2, 3, 4, 5, 5, 2])
    updates = np.array([5, NAN, 7, 1, 4, -1, 2, -0.0, NAN, INF], dtype.numpy)
    for last in (10, 7):
        check_numpy(
            lambda x, i, u: ops.scatter(x, i, u, reduction=reduction),
            lambda x, i, u: put(x, i, u, 0, reduction),
            (dtype["n"], i64["m"], dtype["m"]),
            (x, indices[:last], updates[:last]),
            (x[2:], indices[2:3] * 0, updates[4:5]),
        )


INDICES = np.array([0, 2, 2, 1, 2, 0])


@pytest.mark.parametrize("reduction", ["none", "add", "max", "min", "mul"])
def test_gradients(reduction: str) -> None:
    rng = np.random.default_rng(0)
    x, updates = rng.normal(size=(4, 2)), rng.normal(size=(6, 2))
    check_gradient(lambda x, u: ops.scatter(x, INDICES, u, 0, reduction) ** 2, x, updates)
    column = np.stack([INDICES, INDICES[::-1]], 1)
    check_gradient(lambda x, u: ops.put_along_axis(x, column, u, 0, reduction) ** 2, x, updates)


@pytest.mark.parametrize("zeros", [(1,), (1, 2), (0, 1, 2), (3, 5)])
def test_gradients_of_products_are_right_at_zeros(zeros: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, updates = rng.normal(size=4), rng.normal(size=6)
    updates[list(zeros)] = 0
    check_gradient(lambda x, u: ops.scatter(x, INDICES, u, 0, "mul"), x, updates)
    x[2] = 0
    check_gradient(lambda x, u: ops.scatter(x, INDICES, u, 0, "mul"), x, updates)


def test_gradients_of_products_in_every_backend() -> None:
    from nncompile.autodiff.grad import vjp

    def gradients(x: Value, i: Value, u: Value) -> tuple[Value, ...]:
        y = ops.scatter(x, i, u, 0, "mul")
        return tuple(vjp(y, [x, u], y))

    everywhere = Everywhere(gradients, f64["n"], i64["m"], f64["m"])
    rng = np.random.default_rng(0)
    for size, count in ((4, 6), (2, 70), (1, 1), (3, 0)):
        updates = np.round(rng.normal(size=count), 1)
        everywhere(rng.normal(size=size), rng.integers(-size, size, count), updates)


def test_gradients_go_to_what_stays() -> None:
    x, updates = [5.0, 1, 1], [2.0, 3, 1, 5]
    places = np.array([1, 1, 2, 0])

    def of_updates(reduction: str) -> Any:
        return gradient_at(
            lambda u: ops.scatter(ops.const(np.array(x)), places, u, 0, reduction), updates
        )

    np.testing.assert_array_equal(of_updates("none"), [0, 1, 1, 1])
    np.testing.assert_array_equal(of_updates("max"), [0, 1, 0.5, 0.5])
    of_x = gradient_at(lambda x: ops.scatter(x, places, np.array(updates), 0, "max"), x)
    np.testing.assert_array_equal(of_x, [0.5, 0, 0.5])


@pytest.mark.parametrize("kind", ["amax", "amin"])
def test_gradients_of_ties_are_those_of_torch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, updates = rng.integers(0, 3, (4, 2)) * 1.0, rng.integers(0, 3, (6, 2)) * 1.0
    places = rng.integers(0, 4, (6, 2))
    given = [torch.tensor(a, requires_grad=True) for a in (x, updates)]
    y = given[0].scatter_reduce(0, torch.tensor(places), given[1], kind)
    expected = torch.autograd.grad((y**2).sum(), given)
    reduction = {"amax": "max", "amin": "min"}[kind]
    at_x = gradient_at(lambda v: ops.put_along_axis(v, places, updates, 0, reduction) ** 2, x)
    at_updates = gradient_at(lambda v: ops.put_along_axis(x, places, v, 0, reduction) ** 2, updates)
    np.testing.assert_allclose(at_x, expected[0].numpy())
    np.testing.assert_allclose(at_updates, expected[1].numpy())


X = leaf("x", f32["n", 4])
I = leaf("i", i64["m"])  # noqa: E741


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.scatter(X, I, 0, reduction="amax"), 'here it is "max"'),
        (lambda: ops.scatter(X, I, 0, reduction="maks"), "no reduction 'maks'"),
        (lambda: ops.put_along_axis(X, I, 0, 0), "ranks differ"),
        (lambda: ops.scatter(X, X, 0), "indices must be integers"),
        (lambda: ops.scatter(X, I, leaf("u", f32["m", 3])), "do not broadcast"),
    ],
)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        call()
