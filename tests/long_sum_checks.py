"""Numbers that are hard to sum, and the bound that their sums are held to, in both backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, f32
from nncompile.ops.core.long_sums import DOWN
from tests.backends import script_of, session
from tests.leaves import leaf

BOUND = 1e-6  # relative to the sum of the sizes of what is added
EPSILON = float(np.finfo(np.float32).eps)


def alike(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """What one accumulator rounds the same way again and again."""
    return np.full(shape, 0.1, np.float32)


def awkward(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Of all float32 numbers the one of which 64 in one accumulator are the farthest off."""
    return np.full(shape, 1.9393959, np.float32)


def thousand(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.random(shape, np.float32) + np.float32(1000)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.random(shape, np.float32)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape, np.float32)


DATA = [alike, awkward, thousand, positive, normal]


@cache
def bound_of(data: Callable[..., Array]) -> float:
    """1e-6; for numbers that are alike, what one accumulator makes of a column, where the runtime
    has one for it on this processor (without AVX2) and not four."""
    if data not in (alike, awkward):
        return BOUND
    x = np.full((DOWN, 2), 1.9393959, np.float32)
    ones, column = leaf("ones", f32[DOWN]), leaf("x", f32[x.shape])
    run = session(to_model(Graph("column", {"y": ones @ column}, (ones, column))))
    sums = run({"ones": np.ones(DOWN, np.float32), "x": x}, {"y": (2,)})["y"]
    one_accumulator = x.cumsum(0)[-1]  # numpy's is sequential
    return DOWN * EPSILON / 7.7 if np.array_equal(sums, one_accumulator) else BOUND


def everywhere(
    ours: Callable[..., Value], types: Sequence[Type], *feeds: Sequence[Array]
) -> list[dict[str, Array]]:
    """What each backend computes of each of the feeds, from one file for all of them."""
    leaves = [leaf(f"x{i}", t) for i, t in enumerate(types)]
    graph = Graph("long", {"y": ours(*leaves)}, tuple(leaves))
    run, script = session(to_model(graph)), script_of(graph)
    results = []
    for arrays in feeds:
        named = {f"x{i}": a for i, a in enumerate(arrays)}
        by_torch = script(named)["y"]
        by_onnx = run(named, {"y": by_torch.shape})["y"]
        results.append({"onnxruntime": by_onnx, "TorchScript": by_torch})
    return results


def near(result: Array, expected: Any, scale: Any, label: str, bound: float = BOUND) -> None:
    """As near as the bound, relative to `scale`, elementwise."""
    assert result.dtype == np.float32
    error = np.abs(result - np.asarray(expected, np.float64))
    assert np.all(error <= bound * np.asarray(scale, np.float64)), f"{label}: {error.max()}"
