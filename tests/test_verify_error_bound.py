"""The error that `verify` allows a backend: how far roundings move a result."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

import dsl
from dsl import f32, tanh
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.verify.error_bound import Reference
from nncompile.verify.rounding import ROUNDINGS
from tests.leaves import leaf
from tests.verify_checks import Arrays

parameter = partial(leaf, kind="parameter")


def bound(outputs: Mapping[str, Value], feeds: Arrays, probes: int = 40) -> Reference:
    graph = Graph("outputs", outputs)

    def compute(double: bool, change: Any = None) -> Arrays:
        return evaluate(graph, feeds, np.float64 if double else None, change)  # type: ignore[no-any-return]

    return Reference(compute, (0,), probes=probes)


def test_cancellation_widens_the_bound() -> None:
    a, b = parameter("a", f32[4]), parameter("b", f32[4])
    feeds = {"a": np.float32([1.1, 2.3, 3.7, 4.9])}
    feeds["b"] = feeds["a"] * np.float32(1.001)
    found = bound({"sum": a + b, "difference": dsl.tanh(a) * 100 - dsl.tanh(b) * 100}, feeds)
    plain, cancelled = (found.differences({n: found.plain[n]})[0] for n in ("sum", "difference"))
    assert ROUNDINGS <= plain.allowed < 4 * ROUNDINGS
    assert cancelled.allowed > 100 * ROUNDINGS
    assert cancelled.is_decided


def test_a_comparison_beside_its_border_may_fall_either_way() -> None:
    x = parameter("x", f32[3])
    edge = float(np.tanh(np.float64(np.float32(0.4))))
    feeds = {"x": np.float32([0.4, 0.1, 0.9])}
    near, far = tanh(x) > edge, tanh(x) > 0.5
    found = bound({"near": near, "far": far}, feeds)
    flipped = {n: ~found.plain[n] for n in ("near", "far")}
    flipped["near"][1:] ^= True  # those that are not beside it
    near_by, far_off = found.differences(flipped)
    assert not near_by.mismatches
    assert far_off.mismatches


def test_what_is_copied_is_not_moved() -> None:
    x = parameter("x", f32[6])
    feeds = {"x": np.float32([0.3, 0.7, 0.1, 0.6, -2.5, 0.2])}
    y = tanh(x)
    top = y.max()
    found = bound({"is_top": y.reshape(2, 3) == top, "count": (y >= top).sum()}, feeds)
    assert found.bound == {"is_top": 0.0, "count": 0.0}


def test_data_and_whole_numbers_are_not_moved() -> None:
    x, n = leaf("x", f32[3]), parameter("n", f32[3])
    feeds = {"x": np.float32([0.1, 0.2, 0.3]), "n": np.float32([1, 2, 3])}
    found = bound({"x": dsl.sign(x - 0.1), "n": n * 2 == n + n}, feeds)
    assert found.bound["n"] == 0


def test_sums_of_many_terms_may_be_off_by_more() -> None:
    x = parameter("x", f32[90_000])
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 1, 90_000).astype(np.float32)}
    found = bound({"sum": x.sum(), "some": x[:9].sum()}, feeds)
    total, some = (found.differences({n: found.plain[n]})[0] for n in ("sum", "some"))
    assert 150 < total.allowed <= 310  # √90,000 roundings
    assert some.allowed < 40


def test_saturated_functions_are_exact_to_a_rounding_of_one() -> None:
    x = leaf("x", f32[3])
    found = bound({"y": dsl.sigmoid(x), "gradient": dsl.sigmoid(x) - dsl.sigmoid(x) ** 2},
                  {"x": np.float32([-60, -50, 40])})  # fmt: skip
    flushed = {"gradient": np.zeros(3, np.float32)}  # as runtimes have it, and not exp(-40)
    assert not found.differences(flushed)[0].mismatches


def test_overflow_of_float32_is_left_out() -> None:
    x = leaf("x", f32[2])
    found = bound({"y": x * x * x * x}, {"x": np.float32([2, 1e10])})
    assert not found.differences({"y": np.float32([16, np.inf])})[0].mismatches
    assert found.differences({"y": np.float32([np.inf, np.inf])})[0].mismatches
    assert found.differences({"y": np.float32([np.nan, np.inf])})[0].mismatches
