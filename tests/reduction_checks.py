"""Shapes and axes to reduce."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array


def length(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))  # type: ignore[no-any-return]


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
