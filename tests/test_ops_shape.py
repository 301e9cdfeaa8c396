"""Rearranging, padding and joining, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.basic import const
from nncompile.ir.dims import symbol
from nncompile.ir.types import boolean, f32, i64
from nncompile.ops.shape.joining import concatenate, split, stack
from nncompile.ops.shape.padding import pad
from nncompile.ops.shape.reshape import (
    expand_dims,
    flatten,
    moveaxis,
    repeat,
    reshape,
    squeeze,
    swapaxes,
    tile,
    transpose,
)
from nncompile.ops.shape.slicing import flip
from tests.leaves import leaf
from tests.shape_checks import SHAPES, assert_same, sample


@given(arrays.array_shapes(max_dims=4, max_side=3), st.data())
def test_orders_of_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    x, rank = sample(shape), len(shape)
    order = data.draw(st.permutations(range(rank)))
    signed = [a - rank if data.draw(st.booleans()) else a for a in order]
    first, second = data.draw(st.tuples(*[st.integers(-rank, rank - 1)] * 2))
    count = data.draw(st.integers(0, rank))
    places = data.draw(st.permutations(range(rank)))[:count]
    assert_same(transpose(const(x), signed), x.transpose(order))
    assert_same(const(x).T, x.T)
    assert_same(swapaxes(const(x), first, second), np.swapaxes(x, first, second))
    assert_same(moveaxis(const(x), signed[:count], places), np.moveaxis(x, signed[:count], places))


@given(SHAPES, st.data())
def test_new_and_repeated_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    x, rank = sample(shape), len(shape)
    axes = data.draw(arrays.valid_tuple_axes(rank + 2, min_size=2, max_size=2))
    axis = data.draw(st.integers(-rank, rank - 1))
    counts = data.draw(st.lists(st.integers(0, 3), max_size=rank + 1).map(tuple))
    wide = expand_dims(const(x), axes)
    assert_same(wide, np.expand_dims(x, axes))
    assert_same(squeeze(wide, axes), x)
    assert_same(squeeze(wide), np.squeeze(x))
    assert_same(tile(const(x), counts), np.tile(x, counts))
    assert_same(repeat(const(x), 3, axis), np.repeat(x, 3, axis))
    assert_same(repeat(const(x), 2), np.repeat(x, 2))
    assert_same(flip(const(x), axis), np.flip(x, axis))
    assert_same(flip(const(x)), np.flip(x))
    assert_same(flatten(const(x)), x.reshape(-1) if x.size else x.reshape(0))


@given(SHAPES, st.data())
def test_joined_and_cut(shape: tuple[int, ...], data: st.DataObject) -> None:
    x, rank = sample(shape), len(shape)
    axis = data.draw(st.integers(-rank, rank - 1))
    points = sorted(data.draw(st.lists(st.integers(0, shape[axis]), max_size=3)))
    parts = split(const(x), points, axis)
    expected = np.split(x, points, axis)
    for part, piece in zip(parts, expected, strict=True):
        assert_same(part, piece)
    assert_same(concatenate(parts, axis), x)
    assert_same(concatenate(parts, None), np.concatenate(expected, None))
    assert_same(stack([const(x), const(-x)], axis), np.stack([x, -x], axis))


@given(arrays.array_shapes(max_dims=3, min_side=4, max_side=6), st.data())
def test_pad_is_numpys(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = sample(shape)
    width = st.integers(0, 3)
    widths = data.draw(st.lists(st.tuples(width, width), min_size=len(shape), max_size=len(shape)))
    assert_same(pad(const(x), widths), np.pad(x, widths))
    assert_same(pad(const(x), 1, constant_values=7), np.pad(x, 1, constant_values=7))
    assert_same(pad(const(x), (1, 2), "edge"), np.pad(x, (1, 2), "edge"))
    assert_same(pad(const(x), widths, "reflect"), np.pad(x, widths, "reflect"))
    assert_same(pad(const(x), widths, "edge"), np.pad(x, widths, "edge"))


def test_sizes_found_from_the_others() -> None:
    n, h = symbol("n"), symbol("h")
    x = leaf("x", f32["n", 4, "3*h"])
    assert reshape(x, (-1, 12 * h)).shape == (n, 12 * h)
    assert reshape(x, (n, -1, h)).shape == (n, 12, h)
    assert x.reshape(-1).shape == (12 * n * h,)
    assert x.reshape("n", 2, "2*h", 3).shape == (n, 2, 2 * h, 3)
    assert flatten(x, 1).shape == (n, 12 * h)
    assert leaf("x", f32[0, 3]).reshape(-1, 3).shape == (0, 3)


def test_what_has_no_elements_is_not_joined() -> None:
    x, none = leaf("x", f32["n", 2]), leaf("none", f32["n", 0])
    assert concatenate([none, x, none], 1) is x
    assert concatenate([x, none, x], 1) is concatenate([x, x], 1)
    assert concatenate([none, none], 1).type == f32["n", 0]
    assert concatenate([leaf("whole", i64[2]), leaf("none", f32[0])]).type == f32[2]
    with pytest.raises(ShapeError, match="may differ along axis 1 only"):
        concatenate([leaf("y", f32[2, 3]), leaf("none", f32[4, 0])], 1)


def test_nothing_to_do_is_nothing() -> None:
    x = leaf("x", f32["n", 3])
    assert reshape(x, ("n", 3)) is x
    assert transpose(x, (0, 1)) is x
    assert x[:] is x
    assert x[..., :3] is x
    assert pad(x, 0) is x
    assert tile(x, 1) is x
    assert concatenate([x]) is x
    assert split(x, 1) == (x,)


def test_dtypes_are_promoted_when_joined() -> None:
    joined = concatenate([leaf("a", i64[2]), leaf("b", f32[3]), leaf("c", boolean[1])])
    assert joined.type == f32[6]


X = leaf("x", f32["n", 6])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: X.reshape(-1, 4), "not known to divide"),
        (lambda: leaf("x", f32[2, 6]).reshape(5, -1), "does not divide"),
        (lambda: X.reshape(-1, -1), "at most one size"),
        (lambda: X.reshape("m", 6), "cannot tell whether"),
        (lambda: leaf("x", f32[2, 6]).reshape(3, 5), "has 12 elements"),
        (lambda: X.transpose((0, 0)), "not a permutation"),
        (lambda: X.transpose((0, 2)), "axes 2 does not exist"),
        (lambda: X.squeeze(0), "has size n, not 1"),
        (lambda: X[:, 6], "out of range for axis 1"),
        (lambda: X[0, 0, 0], "3 indices for the 2 axes"),
        (lambda: X[..., 0, ...], "one ellipsis"),
        (lambda: X[:: symbol("n")], "step of a slice"),
        (lambda: split(X, 4, 1), "4 equal parts"),
        (lambda: split(X, 2, 0), "2 equal parts"),
        (lambda: split(X, [4, 2], 1), "must increase"),
        (lambda: concatenate([X, leaf("x", f32["n", 5])], 0), "may differ along axis 0 only"),
        (lambda: concatenate([]), "at least one"),
        (lambda: concatenate([const(1.0), const(2.0)]), "have no axis"),
        (lambda: pad(X, [(1, 1)] * 3), "a pair of widths for each of 2 axes"),
        (lambda: pad(X, -1), "must not be negative"),
        (
            lambda: pad(X, 1, "circular"),
            "mode must be .*, got 'circular'\n.*\n *hint: mode=\"wrap\"",
        ),
    ],
)
def test_mistakes_are_explained(make: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()
