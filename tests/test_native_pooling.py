"""Native pooling: maxima of windows and where they are, as the ops say, ties and NaN included. What
needs the library is skipped where it is not installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.backends.onnx import check, to_model
from nncompile.ir.graph import Graph
from nncompile.ir.types import f32, f64
from nncompile.ops.pooling.maximum import MaxPool, MaxSpread
from nncompile.ops.windows.pooling import Window
from tests.leaves import leaf
from tests.native_checks import needs_library, session

CASES: list[tuple[tuple[int, ...], Window]] = [
    ((2, 3, 32, 32), Window((2, 2), (2, 2), (0, 0), (1, 1))),
    ((3, 2, 11, 39), Window((2, 3), (2, 3), (0, 0), (1, 1))),
    ((2, 2, 17, 40), Window((3, 3), (2, 2), (1, 1), (1, 1))),
    ((2, 2, 9, 35), Window((3, 2), (1, 1), (1, 1), (2, 1))),
    ((1, 2, 70), Window((3,), (2,), (1,), (2,))),
    ((2, 1, 1), Window((1,), (1,), (0,), (1,))),
    ((1, 2, 5, 6, 37), Window((2, 3, 2), (1, 2, 3), (1, 1, 0), (2, 1, 1))),
    ((0, 3, 8, 8), Window((2, 2), (2, 2), (0, 0), (1, 1))),
]


def run(op: Any, arrays: list[Any], threads: int = 1, with_library: bool = True) -> Any:
    leaves = tuple(leaf(f"x{i}", f32[("n", *a.shape[1:])]) for i, a in enumerate(arrays))
    proto = to_model(Graph("pooling", {"y": op(*leaves)}, leaves), kernels=True)
    assert [node.domain for node in proto.graph.node] == ["nncompile.kernels"]
    if not with_library:
        check(proto)
    made = session(proto, with_library, threads)
    return made.run(None, {f"x{i}": a for i, a in enumerate(arrays)})[0]


def drawn(shape: tuple[int, ...], window: Window, special: bool) -> tuple[Any, Any]:
    """What is pooled, of few different numbers so that some are equal, and a number a window."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 4, shape).astype(np.float32)
    if special:
        drawn = rng.choice([1, np.nan, np.inf, -np.inf], shape, p=[0.2, 0.1, 0.1, 0.6])
        x = (x * drawn).astype(np.float32)
    counts: Any = window.infer(f32[shape]).shape
    return x, rng.integers(-9, 9, counts).astype(np.float32)


@needs_library
@pytest.mark.parametrize("special", [False, True], ids=["ties", "ties, NaN and infinities"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_maxima_and_their_places_are_those_of_the_ops(special: bool, threads: int) -> None:
    for shape, window in CASES:
        x, g = drawn(shape, window, special)
        pool, spread = MaxPool(window), MaxSpread(window)
        np.testing.assert_array_equal(run(pool, [x], threads), pool.numpy(x), err_msg=str(window))
        found = run(spread, [g, x], threads)
        np.testing.assert_array_equal(found, spread.numpy(g, x), err_msg=f"{shape} {window}")


@needs_library
def test_an_infinite_gradient_stays_where_the_maximum_is() -> None:
    shape, window = CASES[2]
    x, g = drawn(shape, window, special=False)
    g.reshape(-1)[::7] = np.inf
    op = MaxSpread(window)
    np.testing.assert_array_equal(run(op, [g, x]), op.numpy(g, x))


def test_a_call_says_what_it_means_in_standard_operators() -> None:
    for shape, window in CASES[:3]:
        x, g = drawn(shape, window, special=False)
        for op, arrays in ((MaxPool(window), [x]), (MaxSpread(window), [g, x])):
            found = run(op, arrays, with_library=False)
            np.testing.assert_array_equal(found, op.numpy(*arrays), err_msg=str(op))


def test_what_has_no_kernel() -> None:
    pool: Any = MaxPool(CASES[0][1])
    assert pool.native(f32["n", 3, "h", "w"]).name == "MaxPool"
    assert pool.native(f64["n", 3, "h", "w"]) is None
    four: Any = MaxPool(Window(*[(1,) * 4] * 2, (0,) * 4, (1,) * 4))
    assert four.native(f32["n", 3, 4, 4, 4, 4]) is None
