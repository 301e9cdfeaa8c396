"""Sizes that only the data tell: slices are numpy's, an element that is not there fails clearly,
and reductions over nothing are numpy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.basic import const
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32
from nncompile.passes import optimize
from tests.backends import in_onnxruntime, script_of

X = apply(Input("x", f32["n", 4]))
SLICES: dict[str, Callable[[Value], Value]] = {
    "x[:5]": lambda x: x[:5],
    "x[-3:]": lambda x: x[-3:],
    "x[1]": lambda x: x[1],
    "x[3::-1]": lambda x: x[3::-1],
    "x[:5:2]": lambda x: x[:5:2],
    "x[2:]": lambda x: x[2:],
    "x[-2::-1]": lambda x: x[-2::-1],
    "x[::-1]": lambda x: x[::-1],
}


def computed(y: Value, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    graph = optimize(Graph("bounds", {"y": y}, (X,)))
    return in_onnxruntime(graph, {"x": x}, {"y": shape})["y"]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8])
@pytest.mark.parametrize("text", SLICES)
def test_a_slice_of_an_unknown_size_is_numpys(text: str, n: int) -> None:
    y = SLICES[text](X)
    x = np.arange(n * 4, dtype=np.float32).reshape(n, 4)
    graph = Graph("bounds", {"y": y}, (X,))
    script = script_of(graph)
    if text == "x[1]" and n < 2:  # which is an error in numpy, too
        for run in (lambda: computed(y, x, (0,)), lambda: script({"x": x})):
            with pytest.raises(RuntimeError):
                run()
        with pytest.raises(ShapeError, match=r"expected \(1, 4\) elements, got"):
            evaluate(y, {"x": x})
        return
    expected = eval(text, {"x": x})
    np.testing.assert_array_equal(evaluate(y, {"x": x}), expected)
    np.testing.assert_array_equal(computed(y, x, expected.shape), expected)
    np.testing.assert_array_equal(script({"x": x})["y"], expected)


@pytest.mark.parametrize("reduce", [lambda x: x.mean(axis=0), lambda x: x.var(axis=0)])
def test_the_mean_of_no_rows_is_not_a_number(reduce: Callable[[Any], Any]) -> None:
    assert np.isnan(computed(reduce(X), np.zeros((0, 4), np.float32), (4,))).all()


def test_a_division_by_a_constant_zero_is_left_to_the_runtime() -> None:
    x = np.float32([[1, -2, 0, 4]])
    with np.errstate(all="ignore"):
        expected = x / np.float32(0)
    got = computed(X * const(1.0) / const(0.0), x, (1, 4))
    np.testing.assert_array_equal(got, expected)


def test_the_mean_of_no_columns_is_not_a_number() -> None:
    x = np.ones((2, 4), np.float32)
    assert np.isnan(computed(X[:, :0].mean(axis=1), x, (2,))).all()


def test_transpose_takes_axes_as_numpys_method_does() -> None:
    x = apply(Input("x", f32["n", 3, 4]))
    assert x.transpose(2, 0, 1) is x.transpose((2, 0, 1))
    assert x.transpose() is x.transpose(2, 1, 0)
    with pytest.raises(ShapeError):
        x.transpose(0, 1)
