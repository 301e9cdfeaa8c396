"""Medians, quantiles and k-th smallest elements, against numpy and torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise import where
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DTYPES, DType, f32, f64
from nncompile.ops.reduction.order_statistics import METHODS
from tests.array_checks import Everywhere, check_numpy, normal_or_integers
from tests.everywhere import check_against_torch
from tests.gradient_checks import check_gradient, gradient_at
from tests.leaves import leaf

NAN, INF = np.nan, np.inf
SPECIAL = np.array(
    [
        [1, NAN, 3, 2, 5],
        [INF, 1, 2, -INF, 3],
        [INF, INF, -INF, -INF, 0],
        [NAN, INF, NAN, -INF, 1],
        [-0.0, 0.0, -0.0, 1, -1],
        [3e38, 3e38, 3e38, 1, 2],
    ]
)


drawn = partial(normal_or_integers, high=9)


AXES: list[Any] = [None, 0, 1, -1, (0, 2)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_medians_of_any_type_and_size(dtype: DType) -> None:
    cases = [(drawn(s, dtype),) for s in [(3, 4, 5), (4, 3, 2), (1, 1, 1), (2, 1, 4)]]

    def medians(x: Any) -> tuple[Any, ...]:
        wide = x.astype(np.float64)
        return tuple(np.median(wide, axis, keepdims=axis == 1) for axis in AXES)

    check_numpy(
        lambda x: tuple(x.median(axis, keepdims=axis == 1) for axis in AXES),
        medians,
        (dtype["a", "b", "c"],),
        *cases,
    )


@pytest.mark.parametrize("method", METHODS)
def test_quantiles_by_every_method_of_numpy(method: Any) -> None:
    shares = [0, 0.1, 0.25, 1 / 3, 0.5, 0.6, 0.75, 0.9, 1]
    cases = [(np.round(drawn((n, 2)), 1),) for n in (1, 2, 3, 4, 5, 8, 10, 13)]
    check_numpy(
        lambda x: ops.quantile(x, shares, 0, method),
        lambda x: np.quantile(x, shares, 0, method=method),
        (f64["n", 2],),
        *cases,
    )


def test_shapes_of_quantiles() -> None:
    x = drawn((3, 4, 5))
    names = (f64["a", "b", "c"],)
    for axis in (None, 1, (0, 2)):
        for q in (0.3, [0.3], [[0.1, 0.2, 0.9], [0.5, 0.0, 1.0]]):
            for keepdims in (False, True):
                check_numpy(
                    lambda x, a=axis, q=q, k=keepdims: x.quantile(q, a, keepdims=k),
                    lambda x, a=axis, q=q, k=keepdims: np.quantile(x, q, a, keepdims=k),
                    names,
                    (x,),
                )
    by_value = Everywhere(lambda x, q: ops.quantile(x, q, 1), f64["n", "m"], f64["k"])
    q = np.array([0.2, 0.7])
    np.testing.assert_allclose(by_value(x[0], q), np.quantile(x[0], q, 1))


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_nan_and_infinities(dtype: DType) -> None:
    x = SPECIAL.astype(dtype.numpy)
    for rows in (x, x[:, :4], x[:, 1:3]):
        everywhere = Everywhere(lambda x: ops.median(x, 1), dtype["n", "m"])
        with np.errstate(invalid="ignore"):  # in float32 numpy's overflows
            expected = np.median(rows.astype(np.float64), 1)
        np.testing.assert_allclose(everywhere(rows), expected, 1e-6)
    # numpy's interpolation is NaN beside an infinite element, also at an element.
    everywhere = Everywhere(lambda x: ops.quantile(x, [0, 0.4, 0.5, 1], 1), dtype["n", "m"])
    found = everywhere(x).T
    assert np.isnan(found[[0, 3]]).all()
    np.testing.assert_allclose(found[1], [-INF, 1.6, 2, INF])
    np.testing.assert_array_equal(found[2], [-INF, -INF, 0, INF])
    np.testing.assert_array_equal(everywhere(np.full((1, 3), INF, dtype.numpy)), INF)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [1, 3])
def test_kth_smallest(k: int, dtype: DType) -> None:
    everywhere = Everywhere(lambda x: ops.kthvalue(x, k, 0), dtype["n", "m"])
    cases = [drawn((n, 3), dtype) for n in (3, 8)]
    if dtype.is_float:
        with np.errstate(over="ignore"):
            cases.append(SPECIAL.astype(dtype.numpy))
    for x in cases:
        values, places = everywhere(x)
        wide = x.astype(np.float64)  # numpy puts NaN of bfloat16 anywhere
        order = np.argsort(wide, 0, kind="stable")[k - 1]
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(values, np.sort(wide, 0)[k - 1])


@pytest.mark.parametrize("dtype", [f32, f64])
def test_nothing_along_a_symbolic_axis_has_no_middle(dtype: DType) -> None:
    for function in (
        lambda x: ops.median(x, 1),
        lambda x: ops.median(x, 1, keepdims=True),
        lambda x: ops.quantile(x, [0.0, 0.3, 1.0], 1),
        lambda x: ops.quantile(x, 0.5, 1, "inverted_cdf"),
    ):
        everywhere = Everywhere(function, dtype[2, "n"])
        assert np.isnan(everywhere(np.zeros((2, 0)))).all()
    check_numpy(
        lambda x: (ops.median(x, 1), ops.quantile(x, 0.3, 1)),
        lambda x: (np.median(x, 1), np.quantile(x, 0.3, 1)),
        (dtype[2, "n"],),
        *((drawn((2, n), dtype),) for n in range(1, 6)),
    )


def test_the_kth_may_be_a_size() -> None:
    x = drawn((3, 5))
    everywhere = Everywhere(lambda x: x.kthvalue(x.shape[0], keepdims=True)[0], f64["n", "m"])
    np.testing.assert_array_equal(everywhere(x), np.sort(x)[:, 2:3])


def test_gradients() -> None:
    x = drawn((3, 6))
    check_gradient(lambda x: ops.median(x, 1) ** 2, x)
    check_gradient(lambda x: ops.median(x, 0) ** 2, x)
    check_gradient(lambda x: ops.quantile(x, [0.3, 0.71], (0, 1)) ** 3, x)
    check_gradient(lambda x: ops.kthvalue(x, 2)[0] ** 2, x)
    check_gradient(lambda x, q: ops.quantile(x, q, 1) ** 2, x, [0.31, 0.77])


def test_gradients_go_to_the_elements_that_were_chosen() -> None:
    np.testing.assert_array_equal(gradient_at(ops.median, [5, 1, 3, 2]), [0, 0, 0.5, 0.5])
    np.testing.assert_array_equal(gradient_at(ops.median, [2.0, 2, 2]), [0, 1, 0])
    np.testing.assert_array_equal(
        gradient_at(lambda x: ops.kthvalue(x, 2)[0], [2.0, 2, 2]), [0, 1, 0]
    )
    np.testing.assert_array_equal(gradient_at(ops.median, [1, NAN, 3]), [0, 1, 0])
    gradients = gradient_at(lambda x: ops.quantile(x, 0.25), [4.0, 0, 8])
    np.testing.assert_array_equal(gradients, [0.5, 0.5, 0])


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_gradients_of_both_orders_are_those_of_torch(method: str) -> None:
    torch = pytest.importorskip("torch")
    q = torch.tensor([0.2, 0.5, 0.95], dtype=torch.float64)
    check_against_torch_without_ties(
        lambda x: ops.quantile(x, q.numpy(), 1, method),
        lambda x: torch.quantile(x, q, 1, interpolation=method),
    )


def check_against_torch_without_ties(ours: Any, theirs: Any) -> None:
    """Of equal elements torch takes another one for its gradient than the first."""

    def spread(x: Any) -> Any:
        columns = x.shape[1]
        if isinstance(x, Value):
            return x + 1e-3 * ops.iota(columns, f64)
        import torch

        return x + 1e-3 * torch.arange(columns, dtype=torch.float64)

    check_against_torch(
        lambda x: ours(spread(x)),
        lambda x: theirs(spread(x)),
        ("n", "m"),
        (3, 6),
        (2, 1),
        dtypes=[f64],
    )


def test_nothing_flows_through_a_branch_with_nan() -> None:
    x = leaf("x", f64["n"])
    safe = where(ops.any(x != x), 0.0, ops.median(x))
    gradients = evaluate(grad(safe, x), {"x": np.array([1.0, NAN, 3.0])})
    np.testing.assert_array_equal(gradients, 0)


X = leaf("x", f32["n", 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.median(X[:, :0], 1), "size 0: there is nothing to choose from"),
        (lambda: ops.median(X, 2), "median: axis 2 does not exist"),
        (lambda: ops.quantile(X, 1.5), "q must be in \\[0, 1\\]"),
        (lambda: ops.quantile(X, [0.1, NAN]), "q must be in \\[0, 1\\]"),
        (lambda: ops.quantile(X, 0.5, method="linaer"), "no method 'linaer'"),
        (lambda: ops.quantile(X, 0.5, interpolation="lower"), "interpolation"),  # type: ignore[call-arg]
        (lambda: ops.kthvalue(X, 0), "k counts from 1"),
        (lambda: ops.kthvalue(X, 5), "k = 5 is more than the 4 elements"),
    ],
)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        call()
