"""Reductions and running sums against numpy, beside what every op is tested for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile import ops
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, boolean, f32, f64, i32, i64, u32
from nncompile.ops import const
from nncompile.ops.reduction.products import ProductOfOthers
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.reduction.sums import LogSumExp
from tests.gradient_checks import check_gradient, check_runtime, gradient_at
from tests.leaves import leaf
from tests.reduction_checks import assert_as_numpy, length, reductions


def log_sum_exp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.logaddexp.reduce(x, axis=axis, keepdims=keepdims)  # type: ignore[no-any-return]


# What is defined where there is nothing to reduce, and what is not.
TOTAL: dict[str, tuple[Callable[..., Value], Callable[..., Any]]] = {
    "sum": (ops.sum, np.sum),
    "prod": (ops.prod, np.prod),
    "mean": (ops.mean, np.mean),
    "var": (ops.var, np.var),
    "std": (ops.std, np.std),
    "norm": (ops.norm, length),
    "any": (ops.any, np.any),
    "all": (ops.all, np.all),
}
PARTIAL: dict[str, tuple[Callable[..., Value], Callable[..., Any]]] = {
    "max": (ops.max, np.max),
    "min": (ops.min, np.min),
    "logsumexp": (ops.logsumexp, log_sum_exp),
}
SMOOTH = ["sum", "prod", "mean", "var", "std", "norm", "logsumexp", "max", "min"]


@pytest.mark.parametrize("name", TOTAL)
@given(reductions())
def test_is_numpys(name: str, given_: tuple[Array, dict[str, Any]]) -> None:
    x, options = given_
    ours, numpys = TOTAL[name]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # numpy warns of means of nothing
        assert_as_numpy(ours(const(x), **options), numpys(x, **options))


@pytest.mark.parametrize("name", PARTIAL)
@given(reductions(smallest=1))
def test_of_something_is_numpys(name: str, given_: tuple[Array, dict[str, Any]]) -> None:
    x, options = given_
    ours, numpys = PARTIAL[name]
    assert_as_numpy(ours(const(x), **options), numpys(x, **options))


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=12, deadline=None)
@given(reductions(smallest=2))
def test_gradients(name: str, given_: tuple[Array, dict[str, Any]]) -> None:
    x, options = given_
    x = x + 1e-2 * np.arange(x.size).reshape(x.shape)  # no ties
    ours, _ = (TOTAL | PARTIAL)[name]
    check_gradient(lambda v: ours(v, **options), x)


@pytest.mark.parametrize("name", {**TOTAL, **PARTIAL})
@settings(max_examples=12, deadline=None)
@given(reductions(smallest=2))
def test_runs(name: str, given_: tuple[Array, dict[str, Any]]) -> None:
    x, options = given_
    ours, _ = (TOTAL | PARTIAL)[name]
    check_runtime(lambda v: ours(v, **options), x.astype(np.float32))


@pytest.mark.parametrize("ours", [ops.mean, ops.var, ops.std, ops.norm, ops.sum, ops.any, ops.all])
def test_nothing_at_run_time(ours: Callable[..., Value]) -> None:
    with np.errstate(all="ignore"):
        check_runtime(lambda v: ours(v, axis=0), np.zeros((0, 2), np.float32))


@pytest.mark.parametrize("ddof", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_degrees_of_freedom(ddof: int, size: int) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (size, 4))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = np.var(x, axis=0, ddof=ddof), np.std(x, axis=0, ddof=ddof)
        named = leaf("x", f64["n", 4])
        fixed = const(x)
        for v, feeds in ((named, {"x": x}), (fixed, {})):
            actual = [f(v, axis=0, ddof=ddof) for f in (ops.var, ops.std)]
            for a, e in zip(actual, expected, strict=True):
                np.testing.assert_allclose(evaluate(a, feeds), e, rtol=1e-12)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(reductions(smallest=1), st.booleans())
def test_places_are_numpys(name: str, given_: tuple[Array, dict[str, Any]], ties: bool) -> None:
    x, options = given_
    axis = options["axis"]
    axis = axis if isinstance(axis, int) else None
    x = np.round(x) if ties else x
    keepdims = options["keepdims"]
    y = getattr(ops, name)(const(x), axis, keepdims)
    assert_as_numpy(y, getattr(np, name)(x, axis=axis, keepdims=keepdims))


@given(reductions(), st.booleans(), st.booleans())
def test_running_sums(given_: tuple[Array, dict[str, Any]], exclusive: bool, reverse: bool) -> None:
    x, options = given_
    axis = options["axis"]
    axis = axis if isinstance(axis, int) else None
    row = x.ravel() if axis is None else x
    along = 0 if axis is None else axis
    row = np.flip(row, along) if reverse else row
    sums = np.cumsum(row, along)
    if exclusive:
        sums = sums - row
    expected = np.flip(sums, along) if reverse else sums
    assert_as_numpy(ops.cumsum(const(x), axis, exclusive, reverse), expected)


@pytest.mark.parametrize(
    ("name", "of_integers"),
    [("sum", i64), ("prod", i64), ("cumsum", i64), ("mean", f32), ("var", f32), ("logsumexp", f32)],
)
def test_element_types(name: str, of_integers: object) -> None:
    function = getattr(ops, name)
    for dtype in (boolean, i32, u32, i64):
        assert function(leaf("x", dtype["n", 2]), 0).dtype is of_integers
        assert (
            function(leaf("x", dtype["n", 2]), ()).dtype is of_integers
            if name != "cumsum"
            else True
        )
    for dtype in (f32, f64):
        assert function(leaf("x", dtype["n", 2]), 0).dtype is dtype


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("dtype", [boolean, i32, u32, i64, f32, f64])
def test_extremes_keep_the_element_type(name: str, dtype: Any) -> None:
    x = np.array([[1, 0, 2], [3, 1, 1]]).astype(dtype.numpy)
    assert_as_numpy(getattr(ops, name)(const(x), axis=1), getattr(np, name)(x, axis=1))
    check_runtime(lambda v: getattr(ops, name)(v, axis=1), x)


@pytest.mark.parametrize("name", ["max", "min"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_extremes_of_wide_integers_run(name: str, axis: int | None) -> None:
    """The runtime's own kernels take the wrong one of these."""
    for bound in (2**32, 2**33, 2**62):
        x = np.random.default_rng(0).integers(-bound, bound, (7, 9))
        check_runtime(lambda v: getattr(ops, name)(v, axis), x)
    x = np.random.default_rng(0).integers(0, 2**32, (7, 9)).astype(np.uint32)
    check_runtime(lambda v: getattr(ops, name)(v, axis), x)


def test_mean_of_truth_values_counts_exactly() -> None:
    x = np.ones(2**24 + 3, bool)
    x[0] = False
    assert evaluate(ops.sum(leaf("x", boolean["n"])), {"x": x}) == 2**24 + 2
    assert evaluate(ops.mean(leaf("x", boolean["n"])), {"x": x[:4]}) == np.float32(0.75)


def test_equal_extremes_share_the_gradient() -> None:
    x = [[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]]
    np.testing.assert_allclose(
        gradient_at(lambda v: ops.max(v, 1), x), [[0.5, 0, 0.5], [1 / 3] * 3]
    )
    np.testing.assert_allclose(gradient_at(lambda v: ops.min(v, 1), x), [[0, 1, 0], [1 / 3] * 3])
    np.testing.assert_allclose(gradient_at(ops.max, x), [[0.5, 0, 0.5], [0, 0, 0]])


@pytest.mark.parametrize(
    "point",
    [
        [2.0, 3.0, -1.5, 0.5],
        [2.0, 0.0, 3.0, -1.0],
        [0.0, 2.0, 0.0, 3.0],
        [0.0, 0.0, 0.0, 2.0],
        [0.0, 0.0, 0.0, 0.0],
        [[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]],
    ],
)
def test_gradients_of_a_product_with_zeros(point: list[Any]) -> None:
    check_gradient(ops.prod, point, order=3)
    check_gradient(lambda v: ops.prod(v, axis=0, keepdims=True), point)
    check_gradient(ProductOfOthers(0), point)
    check_runtime(ProductOfOthers(0), np.asarray(point, np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.sum(x, 2), "sum: axis 2 does not exist in a tensor of rank 2"),
        (lambda x: ops.max(x, (0, -2)), r"max: axis \(0, -2\) names one axis twice"),
        (lambda x: ops.mean(x, 1.0), "mean: axis must be an integer, got 1.0"),
        (lambda x: ops.prod(x, True), "prod: axis must be an integer, got True"),
        (lambda x: ops.argmax(x, -3), "argmax: axis -3 does not exist"),
        (lambda x: ops.cumsum(x, 2), "cumsum: axis 2 does not exist"),
        (lambda x: ops.max(x, 1), r"max: axis 1 of f32\[n, 0\] has size 0"),
        (lambda x: ops.min(x), r"min: axis 1 of f32\[n, 0\] has size 0"),
        (lambda x: ops.argmin(x, 1), r"argmin: axis 1 of f32\[n, 0\] has size 0"),
    ],
)
def test_errors(call: Callable[[Value], Value], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call(leaf("x", f32["n", 0]))


@pytest.mark.parametrize("op", [Softmax(0), LogSoftmax(0), LogSumExp((0,)), ProductOfOthers(0)])
def test_ops_of_real_numbers(op: Callable[[Value], Value]) -> None:
    with pytest.raises(DTypeError, match="elements must be real"):
        op(leaf("x", i64[3]))


def test_methods_of_values() -> None:
    x = leaf("x", f32["n", 3])
    for name in ("sum", "mean", "max", "min", "prod", "var", "std", "argmax", "argmin", "cumsum"):
        assert getattr(x, name)(axis=1) is getattr(ops, name)(x, axis=1)
