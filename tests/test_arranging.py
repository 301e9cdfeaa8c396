"""Rolling, rotating and gridding arrays, triangles, diagonals and products, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.types import DTYPES, DType, f32, f64, i64
from tests.array_checks import Everywhere, check_numpy, integers
from tests.gradient_checks import check_gradient
from tests.leaves import leaf

SHAPES = [(3, 4), (4, 3), (1, 1), (0, 3), (3, 0), (1, 5)]


drawn = partial(integers, low=-9, high=9)


def matrices(dtype: DType) -> list[tuple[np.ndarray]]:
    return [(drawn(shape, dtype),) for shape in SHAPES]


OF_MATRICES: dict[str, Callable[..., Any]] = {
    "roll": lambda np, x: np.roll(x, 2, 1),
    "roll back": lambda np, x: np.roll(x, -7, 0),
    "roll all": lambda np, x: np.roll(x, 5),
    "roll both": lambda np, x: np.roll(x, (1, -2), (0, 1)),
    "rot90": lambda np, x: np.rot90(x),
    "rot90 twice": lambda np, x: np.rot90(x, 2),
    "rot90 back": lambda np, x: np.rot90(x, -1, (1, 0)),
    "tril": lambda np, x: np.tril(x),
    "tril above": lambda np, x: np.tril(x, 2),
    "triu": lambda np, x: np.triu(x),
    "triu below": lambda np, x: np.triu(x, -1),
    "diagonal": lambda np, x: np.diagonal(x),
    "diagonal above": lambda np, x: np.diagonal(x, 2),
    "diagonal below": lambda np, x: np.diagonal(x, -1, 0, 1),
    "diag": lambda np, x: np.diag(x, 1),
    "trace": lambda np, x: np.trace(x, -1),
}


def every(library: Any) -> Callable[[Any], tuple[Any, ...]]:
    return lambda x: tuple(function(library, x) for function in OF_MATRICES.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_functions_of_matrices_of_any_size_and_type(dtype: DType) -> None:
    check_numpy(every(ops), every(np), (dtype["n", "m"],), *matrices(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_differences(dtype: DType) -> None:
    cases = [(drawn(s, dtype),) for s in [(3, 4), (4, 3), (1, 1), (2, 5)]]
    check_numpy(ops.diff, np.diff, (dtype["n", "m"],), *cases)
    check_numpy(
        lambda x: ops.diff(x, axis=0), lambda x: np.diff(x, axis=0), (dtype["n", "m"],), *cases
    )


def test_differences_of_higher_order_and_of_joined_ends() -> None:
    x, y = drawn((3, 5), f64), drawn((3, 2), f64)
    many = Everywhere(lambda x: ops.diff(x, 3), f64[3, 5])
    np.testing.assert_array_equal(many(x), np.diff(x, 3))
    joined = Everywhere(lambda x, y: ops.diff(x, prepend=0, append=y), f64[3, "n"], f64[3, "m"])
    np.testing.assert_array_equal(joined(x, y), np.diff(x, prepend=0, append=y))
    np.testing.assert_array_equal(Everywhere(lambda x: ops.diff(x, 0), f64[3, "n"])(x), x)


@pytest.mark.parametrize("k", [-2, 0, 1])
def test_a_vector_on_a_diagonal(k: int) -> None:
    cases = [(drawn((n,), f32),) for n in (3, 1, 0)]
    check_numpy(lambda x: ops.diag(x, k), lambda x: np.diag(x, k), (f32["n"],), *cases)


def test_triangles_and_diagonals_of_each_matrix() -> None:
    x = drawn((2, 3, 4, 5), f64)
    names = (f64["a", "b", "c", "d"],)
    check_numpy(lambda x: ops.tril(x, -1), lambda x: np.tril(x, -1), names, (x,))
    check_numpy(
        lambda x: x.diagonal(1, 1, 3), lambda x: x.diagonal(1, 1, 3), names, (x,), (x[:, :0],)
    )
    check_numpy(lambda x: x.trace(0, -1, 0), lambda x: x.trace(0, -1, 0), names, (x,))
    check_numpy(ops.triu, np.triu, (f64["n"],), (x[0, 0, 0],), (x[0, 0, 0, :1],))


def test_shifts_and_diagonals_may_be_sizes_and_values() -> None:
    x = drawn((3, 5), f64)
    by_size = Everywhere(lambda x: ops.roll(x, x.shape[0], 1), f64["n", "m"])
    np.testing.assert_array_equal(by_size(x), np.roll(x, 3, 1))
    by_value = Everywhere(lambda x, k: ops.roll(x, k, 1), f64["n", "m"], i64[()])
    for k in (-7, 0, 2, 5):
        np.testing.assert_array_equal(by_value(x, k), np.roll(x, k, 1))
    diagonal = Everywhere(lambda x: ops.diagonal(x, x.shape[0] - 1), f64["n", "m"])
    np.testing.assert_array_equal(diagonal(x), np.diagonal(x, 2))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@pytest.mark.parametrize("sparse", [False, True])
def test_grids(indexing: str, sparse: bool) -> None:
    options: Any = {"indexing": indexing, "sparse": sparse}
    vectors = [drawn((n,), f32) for n in (2, 3, 4)]
    for count in (1, 2, 3):
        check_numpy(
            lambda *v: (
                ops.meshgrid(*v, **options) if len(v) > 1 else ops.meshgrid(*v, **options)[0]
            ),
            lambda *v: np.meshgrid(*v, **options) if len(v) > 1 else v[0],
            tuple(f32[name] for name in "abc"[:count]),
            tuple(vectors[:count]),
            tuple(v[: i % 2] for i, v in enumerate(vectors[:count])),
        )
    assert ops.meshgrid() == ()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if not d.is_bool], ids=str)
def test_kronecker_products(dtype: DType) -> None:
    a, b = drawn((2, 3), dtype), drawn((4, 1), dtype, 1)
    check_numpy(
        ops.kron, np.kron, (dtype["a", "b"], dtype["c", "d"]), (a, b), (a[:0], b), (a, b[:0])
    )
    check_numpy(ops.kron, np.kron, (dtype["a"], dtype["b", "c"]), (a[0], b))
    check_numpy(ops.kron, np.kron, (dtype["a", "b"], dtype["c"]), (a, b[0]))


@pytest.mark.parametrize("axis", [-1, 0])
def test_vector_products(axis: int) -> None:
    a, b = drawn((3, 3), f64), drawn((3, 3), f64, 1)
    types = (f64["n", 3], f64["n", 3]) if axis else (f64[3, "n"], f64[3, "n"])
    check_numpy(
        lambda a, b: ops.cross(a, b, axis=axis),
        lambda a, b: np.cross(a, b, axis=axis),
        types,
        (a, b),
        (a[:, :1], b[:, :1]) if not axis else (a[:0], b[:0]),
    )
    one = Everywhere(ops.cross, f64["n", 3], f64[3])
    np.testing.assert_array_equal(one(a, b[0]), np.cross(a, b[0]))


@pytest.mark.parametrize("name", [n for n in OF_MATRICES if n not in ("diag",)])
def test_gradients(name: str) -> None:
    check_gradient(lambda x: OF_MATRICES[name](ops, x) ** 2, drawn((3, 4), f64))


def test_gradients_of_products_and_differences() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(4, 3))
    check_gradient(ops.kron, a, b)
    check_gradient(ops.cross, a, b[:2])
    check_gradient(lambda x: ops.diff(x, 2) ** 3, a)
    check_gradient(lambda v: ops.diag(v, 1) ** 2, a[0])
    check_gradient(lambda x, y: ops.meshgrid(x, y)[0] * ops.meshgrid(x, y)[1], a[0], b[:, 0])


def test_an_infinite_or_unknown_element_beside_a_triangle_does_not_matter() -> None:
    x = np.array([[1.0, np.inf], [np.nan, 2.0]])
    np.testing.assert_array_equal(Everywhere(ops.tril, f64["n", 2])(x), [[1, 0], [np.nan, 2]])
    np.testing.assert_array_equal(Everywhere(ops.triu, f64["n", 2])(x), [[1, np.inf], [0, 2]])


X = leaf("x", f32["n", 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.roll(X, (1, 2), (0, 1, 1)), "2 shifts for 3 axes"),
        (lambda: ops.roll(X, X.astype(i64), 0), "a shift must be one number"),
        (lambda: ops.rot90(X, 1, (0, -2)), "two different axes"),
        (lambda: ops.diff(X, -1), "must not be negative"),
        (lambda: ops.diff(X, 1, 2), "axis 2 does not exist"),
        (lambda: ops.meshgrid(X), "coordinates must be vectors"),
        (lambda: ops.meshgrid(X[0], indexing="yx"), '"xy" or "ij"'),
        (lambda: ops.diagonal(X, 0, 1, -1), "two axes must differ"),
        (lambda: ops.diagonal(X[0]), "needs two axes"),
        (lambda: ops.diag(X[None]), "needs a vector or a matrix"),
        (lambda: ops.tril(X[0, 0]), "a triangle needs a matrix"),
        (lambda: ops.cross(X, X), "three elements along axis -1"),
    ],
)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        call()
