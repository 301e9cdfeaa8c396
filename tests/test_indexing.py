"""Indices and slices, against numpy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nncompile.autodiff.grad import grad, vjp
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.basic import const
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import dim, substitute, symbol
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import apply
from nncompile.ir.types import f32, f64, i64
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.slicing import Slice
from tests.backends import script_of, session, valid_model
from tests.gradient_checks import check_gradient
from tests.leaves import leaf
from tests.scan_checks import check_everywhere
from tests.shape_checks import SHAPES, assert_same, sample

X = leaf("x", f32["n", 6])


@given(st.data())
def test_indexing_is_numpys(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    key = data.draw(arrays.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = sample(shape)
    assert_same(const(x)[key], np.asarray(x[key]))


@given(st.data())
def test_gradient_of_indexing_puts_back(data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    key = data.draw(arrays.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = leaf("x", f64[shape])
    cut = x[key]
    weights = sample(cut.shape) + 1
    expected = np.zeros(shape)
    expected[key] += weights
    gradient = grad((cut * const(weights)).sum(), x)
    np.testing.assert_array_equal(evaluate(gradient, {"x": sample(shape)}), expected)


@given(st.data())
def test_tensors_index_as_numpys(data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(first, len(shape) - 1))
    picked = data.draw(arrays.array_shapes(min_dims=0, max_dims=2, max_side=3))
    keys: list[Any] = [slice(None, None, -1)] * first
    for size in shape[first : last + 1]:
        places = arrays.arrays(np.int64, picked, elements=st.integers(-size, size - 1))
        keys.append(data.draw(places))
    key = tuple(keys)
    x = sample(shape)
    assert_same(const(x)[tuple(const(k) if isinstance(k, np.ndarray) else k for k in key)], x[key])


def test_tensor_and_number_index_together() -> None:
    x = sample((3, 4, 5))
    rows = np.array([2, -1, 0])
    assert_same(const(x)[const(rows), -2], x[rows, -2])
    assert_same(const(x)[1, [3, 0]], x[1, [3, 0]])
    with pytest.raises(ShapeError, match="on adjacent axes"):
        const(x)[const(rows), :, 1]


@pytest.mark.parametrize(
    ("key", "sizes"),
    [
        (np.s_[1:], "n - Min(1, n)"),
        (np.s_[:-1], "n - Min(1, n)"),
        (np.s_[2:-1], "n - Min(3, n)"),
        (np.s_[:3], "Min(3, n)"),
        (np.s_[-3:], "Min(3, n)"),
        (np.s_[-5:-2], "Min(5, n) - Min(2, n)"),
        (np.s_[5:2], "0"),
        (np.s_[::-1], "n"),
        (np.s_[::2], "(n + 1)//2"),
        (np.s_[-2::-1], "n - Min(1, n)"),
        (np.s_[5:1:-1], "Min(6, n) - Min(2, n)"),
        (np.s_[symbol("n") // 2 :], None),
        (np.s_[: symbol("n") - 2], "n - 2"),
        (np.s_[-symbol("n") :], "n"),
    ],
)
@pytest.mark.parametrize("size", [6, 7, 8])
def test_slices_of_symbolic_sizes(key: Any, sizes: str | None, size: int) -> None:
    x = leaf("x", i64["n"])[key]
    if sizes is not None:
        assert x.type == i64[sizes]
    data = np.arange(size)
    bound = slice(*(_bound(b, size) for b in (key.start, key.stop, key.step)))
    np.testing.assert_array_equal(evaluate(x, {"x": data}), data[bound])


def test_slices_of_at_least_so_many() -> None:
    x = leaf("x", f32["n + 3"])
    assert [x[k].type for k in (np.s_[:3], np.s_[3:], np.s_[1:-1])] == [
        f32[3], f32["n"], f32["n + 1"],
    ]  # fmt: skip
    assert x[:4].type == f32["Min(4, n + 3)"]


def test_slices_of_slices_are_as_short_as_one() -> None:
    """Or the size after so many would be twice as long for each: `diff(x, 99)` took minutes."""
    x = leaf("x", f32["n"])
    y = x
    for _ in range(20):
        y = y[1:] - y[:-1]
    assert y.type == f32["n - Min(20, n)"]
    assert x[2:][:-3][1:].type == f32["n - Min(6, n)"]
    assert x[2:][:3].type == f32["Min(5, n) - Min(2, n)"]
    assert leaf("x", f32["n + 3"])[2:][2:].type == f32["n + 1 - Min(2, n + 1)"]
    for size in range(8):
        data = np.arange(size, dtype=np.float32)
        for a, b in ((2, 1), (0, 3), (3, 3), (5, 1)):
            np.testing.assert_array_equal(evaluate(x[a:][b:], {"x": data}), data[a:][b:])
            np.testing.assert_array_equal(evaluate(x[a:][:b], {"x": data}), data[a:][:b])
            np.testing.assert_array_equal(evaluate(x[:-a][:-b], {"x": data}), data[:-a][:-b])
            np.testing.assert_array_equal(evaluate(x[a:][-b:], {"x": data}), data[a:][-b:])


def test_parts_of_the_size_that_is_asked_for() -> None:
    x, w = leaf("x", f32["n", 2]), leaf("w", f32[3, 4])
    y = x[:3].T @ w
    assert y.type == f32[2, 4]
    assert (x[:3] + const(np.zeros((3, 2), np.float32))).type == f32[3, 2]
    data = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    feeds = {"x": data, "w": np.ones((3, 4), np.float32)}
    np.testing.assert_allclose(evaluate(y, feeds), data[:3].T @ feeds["w"], rtol=1e-6)
    path = concatenate([const(np.zeros((1, 2), np.float32)), x[1:] - x[:-1]], 0)
    assert path.shape == (1 + symbol("n") - sp.Min(1, symbol("n")), 2)
    assert (path + x).type == concatenate([path, x], 1)[:, :2].type == x.type


def test_parts_are_the_whole() -> None:
    x, y = leaf("x", f32["n"]), leaf("y", f32["n - 1"])
    joined = concatenate([x[:1], x[1:] - x[:-1]], 0)
    assert joined.type == x.type
    for size in (0, 1, 2, 5):
        data = np.arange(size, dtype=np.float32) ** 2
        np.testing.assert_array_equal(evaluate(joined, {"x": data}), np.diff(data, prepend=0))
    assert (x[1:] - y).shape in ((dim("n - 1"),), x[1:].shape)  # a size is not negative


def test_the_first_row_repeats_along_its_axis() -> None:
    x = leaf("x", f64["n", 3])
    y = (x - x[:1]) * broadcast_to(x[-1:], x.shape)
    dx = vjp(y, x, y)
    graph = Graph("first", {"y": y, "dx": dx, "dxx": vjp(dx, x, x)}, (x,))
    for size in (0, 1, 4):
        data = np.random.default_rng(size).uniform(-1, 1, (size, 3))
        check_everywhere(graph, {"x": data})
        expected = (data - data[:1]) * data[-1:]
        np.testing.assert_array_equal(evaluate(y, {"x": data}), expected)
    check_gradient(lambda v: (v - v[:1]) * v[-1:], np.random.default_rng(0).uniform(size=(4, 3)))
    other = leaf("other", f32["m"])
    with pytest.raises(ShapeError, match=r"cannot tell whether(.|\n)*x\[:3\] has 3"):
        leaf("x", f32["n"])[:2] + other


BOUNDS = (None, 0, 2, 5, -2, -5)
SLICES = [slice(*k) for k in itertools.product(BOUNDS, BOUNDS, (1, -1, 3, -2))]


def test_slices_clip_as_numpys_of_every_size() -> None:
    """Elements, gradients and their gradients, in numpy, ONNX and TorchScript."""
    x, g, u = (leaf(name, f64["n"]) for name in "xgu")
    outputs = {}
    for i, key in enumerate(SLICES):
        y = x[key]
        dx = vjp(y, x, g[key])
        outputs |= {f"y{i}": y, f"dx{i}": dx, f"dg{i}": vjp(dx, g, u)}
    graph = Graph("slices", outputs, (x, g, u))
    run, script = session(valid_model(graph)), script_of(graph)
    for size in range(8):
        feeds = {name: np.arange(1.0, size + 1) * i for i, name in enumerate("xgu", 1)}
        expected = {}
        for i, key in enumerate(SLICES):
            dx, dg = np.zeros(size), np.zeros(size)
            dx[key], dg[key] = feeds["g"][key], feeds["u"][key]
            expected |= {f"y{i}": feeds["x"][key], f"dx{i}": dx, f"dg{i}": dg}
        for found in (evaluate(graph, feeds), run(feeds, expected), script(feeds)):
            for name, x in expected.items():
                place = SLICES[int(name.lstrip("ydxg"))]
                np.testing.assert_array_equal(found[name], x, f"{place} of {size}")


def _bound(bound: Any, size: int) -> int | None:
    return None if bound is None else int(substitute(bound, {symbol("n"): size}))


def test_real_numbers_are_refused_as_an_index() -> None:
    with pytest.raises(DTypeError, match="an index must be an integer"):
        X[leaf("place", f32["n"])]


@pytest.mark.parametrize(
    ("start", "size", "step", "is_within"),
    [
        (0, 3, 1, True),
        (1, 3, 1, False),
        (0, 2, 2, True),
        (1, 2, 2, False),
        (2, 3, -1, True),
        (1, 3, -1, False),
        (3, 1, 1, False),
        (3, 0, 1, True),
        (0, -1, 1, False),
    ],
)
def test_a_slice_is_within_the_axis(start: int, size: int, step: int, is_within: bool) -> None:
    x = apply(Input("x", f32[3]))
    if is_within:
        assert Slice((start,), (size,), (step,))(x).shape == (size,)
    else:
        with pytest.raises(ShapeError, match="are not on axis 0"):
            Slice((start,), (size,), (step,))(x)
