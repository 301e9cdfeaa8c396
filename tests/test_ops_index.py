"""Elements by their places, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.basic import const
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import boolean, f32, f64, i32, i64, u32
from nncompile.ops.shape.gathering import (
    add_along_axis,
    one_hot,
    scatter_add,
    take,
    take_along_axis,
)
from nncompile.ops.shape.sorting import argsort, sort, top_k
from tests.array_checks import Everywhere
from tests.leaves import leaf
from tests.shape_checks import assert_same, sample

SHAPES = arrays.array_shapes(max_dims=4, max_side=4)


def places(size: int, shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.int64, shape, elements=st.integers(-size, size - 1))


@given(SHAPES, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), st.data())
def test_take_and_its_inverse(
    shape: tuple[int, ...], picked: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    indices = data.draw(places(shape[axis], picked))
    x = sample(shape)
    assert_same(take(const(x), const(indices), axis), np.take(x, indices, axis))
    updates = np.take(x, indices, axis) + 1
    expected = np.moveaxis(x, axis, 0).copy()
    rest = range(axis % len(shape), axis % len(shape) + len(picked))
    rows = np.moveaxis(updates, list(rest), list(range(len(picked))))
    np.add.at(expected, indices, rows)
    added = scatter_add(const(x), const(indices), const(updates), axis)
    assert_same(added, np.moveaxis(expected, 0, axis))


@given(SHAPES, st.data())
def test_along_axis(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    count = data.draw(st.integers(0, 3))
    narrow = [1 if data.draw(st.booleans()) else size for size in shape]
    narrow[axis] = count
    indices = data.draw(places(shape[axis], tuple(narrow)))
    x = sample(shape)
    assert_same(
        take_along_axis(const(x), const(indices), axis - len(shape)),
        np.take_along_axis(x, indices, axis),
    )
    expected = x.copy()
    wide = np.broadcast_to(indices, (*shape[:axis], count, *shape[axis + 1 :]))
    grid = list(np.ogrid[tuple(map(slice, wide.shape))])
    grid[axis] = wide
    np.add.at(expected, tuple(grid), 2.0)
    assert_same(add_along_axis(const(x), const(indices), 2.0, axis), expected)


@given(
    arrays.arrays(
        np.float64, arrays.array_shapes(max_dims=3, max_side=5), elements=st.integers(-2, 2)
    ),
    st.data(),
)
def test_order_is_stable(x: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    count = data.draw(st.integers(0, x.shape[axis]))
    rising = np.argsort(x, axis, kind="stable")
    falling = np.argsort(-x, axis, kind="stable")
    assert_same(sort(const(x), axis), np.sort(x, axis))
    assert_same(argsort(const(x), axis), rising)
    assert_same(argsort(const(x), axis, descending=True), falling)
    for largest, order in ((True, falling), (False, rising)):
        values, indices = top_k(const(x), count, axis, largest)
        kept = np.take(order, np.arange(count), axis)
        assert_same(indices, kept)
        assert_same(values, np.take_along_axis(x, kept, axis))


def test_gradient_of_top_k_goes_to_the_chosen() -> None:
    x = leaf("x", f64[5])
    values, places_ = top_k(x, 3)
    gradient = grad((values * values).sum(), x)
    data = np.array([1.0, 5.0, 2.0, 5.0, 0.0])
    np.testing.assert_array_equal(evaluate(gradient, {"x": data}), [0, 10, 4, 10, 0])
    np.testing.assert_array_equal(evaluate(places_, {"x": data}), [1, 3, 2])


@pytest.mark.parametrize("dtype", [f32, i64, boolean, u32])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(dtype: Any, axis: int) -> None:
    indices = np.array([[0, 2], [3, -1]])
    expected = np.moveaxis(indices[..., None] == np.arange(3), -1, axis)
    assert_same(one_hot(const(indices), 3, dtype, axis), expected.astype(dtype.numpy))


def test_repeated_rows_of_a_table_add_their_gradients() -> None:
    table = leaf("x", f64["words", 2])
    rows = take(table, const(np.array([[1, 1], [0, -1]], np.int32)), axis=0)
    gradient = grad(rows.sum(), table)
    expected = [[1, 1], [2, 2], [0, 0], [1, 1]]
    result, _ = evaluate([gradient, table], {"x": np.zeros((4, 2))})  # the table has the size
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: take(leaf("x", f32[3]), leaf("i", f32[2]), 0), "indices must be integers"),
        (lambda: take(leaf("x", f32[3]), leaf("i", i64[2]), 1), "axis 1 does not exist"),
        (lambda: take_along_axis(leaf("x", f32[3, 2]), leaf("i", i64[2]), 0), "ranks differ"),
        (lambda: take_along_axis(leaf("x", f32["n", 2]), leaf("i", i64["m", 1]), 1), "n = m|m = n"),
        (lambda: top_k(leaf("x", f32["n", 3]), 4), "k = 4 is more than the 3 elements"),
        (lambda: top_k(leaf("x", f32[3]), -1), "must not be negative"),
        (lambda: add_along_axis(leaf("x", boolean[3]), leaf("i", i32[2]), True, 0), "cannot add"),
        (lambda: one_hot(leaf("x", f32[3]), 3), "indices must be integers"),
    ],
)
def test_mistakes_are_explained(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        make()


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_nan_is_greater_than_all_and_equal_ones_keep_their_order(dtype: Any, largest: bool) -> None:
    greatest = np.finfo(dtype.numpy).max
    x = np.array(
        [3, np.nan, 1, np.inf, greatest, np.nan, -np.inf, 1, np.inf, -np.nan, 0.0, -0.0]
    ).astype(dtype.numpy)
    reverse = np.flip if largest else (lambda x: x)
    rising = np.argsort(reverse(x), kind="stable")
    order = len(x) - 1 - np.flip(rising) if largest else rising
    for count in (12, 4, 1, 0):
        everywhere = Everywhere(lambda x, k=count: top_k(x, k, 0, largest), dtype["n", "m"])
        rows = np.stack([x, np.arange(12.0), np.full(12, np.nan)], 1).astype(dtype.numpy)
        values, places = everywhere(rows)
        np.testing.assert_array_equal(places[:, 0], order[:count])
        np.testing.assert_array_equal(values[:, 0], x[order[:count]])
        np.testing.assert_array_equal(places[:, 2], np.arange(count))
    everywhere = Everywhere(lambda x: sort(x, 0), dtype["n"])
    assert everywhere(x[:0]).shape == (0,)
    np.testing.assert_array_equal(everywhere(x), np.sort(x))
