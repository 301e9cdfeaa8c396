"""Reductions, running sums and softmax against numpy, beside what every op is tested for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile import ops
from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.elementwise import exp
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, boolean, f32, f64, i32, i64, u32
from nncompile.ops import const
from nncompile.ops.reduction.products import ProductOfOthers
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.reduction.sums import LogSumExp
from tests.gradient_checks import check_gradient, check_runtime, gradient_at
from tests.leaves import leaf
from tests.scan_checks import check_everywhere


def log_sum_exp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.logaddexp.reduce(x, axis=axis, keepdims=keepdims)  # type: ignore[no-any-return]


def length(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))  # type: ignore[no-any-return]


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


@st.composite
def reductions(draw: st.DrawFn, smallest: int = 0) -> tuple[Array, dict[str, Any]]:
    """An array of rank 0 to 4, and any legal `axis` and `keepdims`."""
    shape = tuple(draw(st.lists(st.integers(smallest, 4), max_size=4)))
    rank = len(shape)
    several = st.lists(st.integers(0, rank - 1), unique=True) if rank else st.just([])
    axes: Any = draw(st.one_of(st.none(), several))
    if axes is not None:
        axes = tuple(draw(st.sampled_from([a, a - rank])) for a in axes)
        if len(axes) == 1 and draw(st.booleans()):
            axes = axes[0]
    x = np.random.default_rng(draw(st.integers(0, 99))).uniform(-2, 2, shape)
    return x, {"axis": axes, "keepdims": draw(st.booleans())}


def assert_as_numpy(y: Value, expected: Any) -> None:
    expected = np.asarray(expected)
    assert y.shape == expected.shape and y.dtype.numpy == expected.dtype
    np.testing.assert_allclose(evaluate(y, {}), expected, rtol=1e-12, atol=1e-12)


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


ORDERS = [-np.inf, -2, -0.5, 0, 0.3, 0.5, 1, 1.5, 2, 2.5, 3, 4, np.inf]


@pytest.mark.parametrize("order", ORDERS)
def test_norms(order: float) -> None:
    x = np.random.default_rng(0).uniform(-2, 2, (3, 4))
    expected = np.linalg.norm(x, order, axis=1)
    assert_as_numpy(ops.norm(const(x), order, axis=1), expected)
    check_gradient(lambda v: ops.norm(v, order, axis=1), x)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_gradients_of_norms_at_zeros_are_torchs(
    order: float, dtype: DType, torchscript: SimpleNamespace
) -> None:
    torch = torchscript.torch
    points = np.array([[0, 0, 0.0], [0, 1, -2], [3, -3, 1], [2, 0, 0]], dtype.numpy)
    weights = np.array([1, 2, 3, 4], dtype.numpy)
    x, w, u = leaf("x", dtype["n", 3]), leaf("w", dtype["n"]), leaf("u", dtype["n", 3])
    y = ops.norm(x, order, axis=1)
    (dx,) = vjp([y], [x], [w])
    (ddx,) = vjp([dx], [x], [u])
    graph = Graph("norm", {"y": y, "dx": dx, "ddx": ddx}, (x, w, u))
    feeds = {"x": points, "w": weights, "u": np.arange(12, dtype=dtype.numpy).reshape(4, 3)}
    check_everywhere(graph, feeds)
    found = evaluate(graph, feeds, np.float64)
    theirs = torch.tensor(points.astype(np.float64), requires_grad=True)
    length = torch.linalg.vector_norm(theirs, order, dim=1)
    expected = np.zeros_like(points)
    if order != 0:  # which is constant, and has no gradient in torch
        (length * torch.tensor(weights.astype(np.float64))).sum().backward()
        expected = theirs.grad.numpy()
    np.testing.assert_allclose(found["y"], length.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(found["dx"], expected, rtol=1e-12)
    assert np.isfinite(found["ddx"]).all()


@pytest.mark.parametrize("order", [np.nan, "fro"])
def test_norm_needs_a_number(order: Any) -> None:
    with pytest.raises(ShapeError, match="norm: the order must be a number"):
        ops.norm(leaf("x", f32[3]), order)


def test_lengths_are_flat_at_the_origin() -> None:
    assert not gradient_at(ops.norm, np.zeros(3)).any()
    assert not gradient_at(ops.std, np.full(3, 2.0)).any()


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


def test_softmax_far_from_zero() -> None:
    x = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4 - 2]], np.float32)
    for op_type in (Softmax(1), LogSoftmax(1), LogSumExp((1,))):
        assert np.isfinite(evaluate(op_type(const(x)), {})).all()
        check_runtime(op_type, x)
    assert np.isfinite(gradient_at(lambda v: ops.logsumexp(v, 1), x)).all()


def test_logsumexp_of_nothing_possible() -> None:
    x = np.array([[-np.inf, -np.inf], [-np.inf, 1.0], [-np.inf, -200.0], [np.inf, 1.0]])
    sums = evaluate(ops.logsumexp(const(x), 1), {})
    np.testing.assert_array_equal(sums, [-np.inf, 1, -200, np.inf])
    gradients = gradient_at(lambda v: ops.logsumexp(v, 1), x[:3])
    np.testing.assert_array_equal(gradients, [[0, 0], [0, 1], [0, 1]])
    check_runtime(lambda v: ops.logsumexp(v, 1), x.astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(reductions(smallest=1), st.integers(-4, 3))
def test_softmax_sums_to_one(given_: tuple[Array, dict[str, Any]], axis: int) -> None:
    x, _ = given_
    if not -x.ndim <= axis < x.ndim:
        with pytest.raises(ShapeError, match=f"softmax: axis {axis} does not exist"):
            ops.softmax(const(x), axis)
        return
    y, logarithm = ops.softmax(const(x), axis), ops.log_softmax(const(x), axis)
    np.testing.assert_allclose(evaluate(ops.sum(y, axis), {}), np.ones(ops.sum(y, axis).shape))
    np.testing.assert_allclose(evaluate(exp(logarithm), {}), evaluate(y, {}))
    check_runtime(lambda v: ops.softmax(v, axis), x.astype(np.float32))


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
