"""Arrays of every shape, and numpy's elements for values."""

from __future__ import annotations

import numpy as np
from hypothesis.extra import numpy as arrays

from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def sample(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int), dtype=np.float64).reshape(shape)


def assert_same(value: Value, expected: np.ndarray) -> None:
    """The value has the shape it declares and numpy's elements."""
    result = evaluate(value, {})
    assert value.shape == expected.shape
    np.testing.assert_array_equal(result, expected, strict=True)
