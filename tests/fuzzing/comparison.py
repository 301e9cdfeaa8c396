"""Results of one graph compared with those in double.

Differences are judged twice: what is within a few units in the last place of the largest element
is right at once; the rest must be within what rounding errors do to this very program, which is
found by moving all operands by such errors (see `arithmetic`). A program on a kink or a tie moves
far, and is not judged there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncompile.ir.graph import Graph
from tests.fuzzing.arithmetic import DOUBLE, SINGLE, Computation, Noise
from tests.op_types import Feeds, Sizes

# Relative to the largest element: what is right without a closer look.
CLOSE = {**{name: 24 * size for name, size in SINGLE.items()}, "float64": 2.0**-40}
LEAST = 0.05  # smaller results are judged as if they were so large: some kernels are that exact
MARGIN = 32.0  # times the spread that noise makes
GraphFeeds = list[tuple[Sizes, Feeds]]


class Mismatch(AssertionError):
    """Two ways to compute one thing that differ. `kind` says which."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass
class Reference:
    """What a graph gives in double, at each binding."""

    graph: Graph
    bindings: GraphFeeds
    computed: list[Computation] = field(init=False)
    arrays: list[Feeds] = field(init=False)
    _spreads: dict[tuple[int, bool, int, float], Feeds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.computed = [Computation(self.graph, sizes) for sizes, _ in self.bindings]
        self.arrays = [
            compute(feeds) for compute, (_, feeds) in zip(self.computed, self.bindings, strict=True)
        ]

    def compare(self, kind: str, binding: int, actual: Mapping[str, Any], noise: Noise) -> None:
        """Raises where an output is of another shape, or further away than rounding brings it."""
        exact = self.arrays[binding]
        suspects = [
            name
            for name, expected in exact.items()
            if not self._is_close(kind, name, np.asarray(actual[name]), expected, noise)
        ]
        feeds = self.bindings[binding][1]
        if not suspects or not self.computed[binding].is_finite(feeds):
            return
        for runs, factor in ((2, 1.0), (24, 1.0), (24, 8.0)):
            key = binding, noise is DOUBLE, runs, factor
            if key not in self._spreads:
                found = self.computed[binding].spread(feeds, exact, noise, runs, factor)
                self._spreads[key] = found
            spread = self._spreads[key]
            suspects = [
                n for n in suspects if not self._is_near(n, actual[n], exact[n], spread[n], noise)
            ]
            if not suspects:
                return
        name = suspects[0]
        with np.errstate(all="ignore"):
            apart = np.abs(np.asarray(actual[name], np.float64) - exact[name])
        raise Mismatch(
            kind,
            f"{name} at {shown(self.bindings[binding][0])} is {shown(actual[name])}, "
            f"not {shown(exact[name])}; apart {np.nanmax(apart, initial=0):.3g}, "
            f"by rounding {float(np.max(spread[name], initial=0)):.3g}",
        )

    def _is_close(
        self, kind: str, name: str, actual: np.ndarray, expected: np.ndarray, noise: Noise
    ) -> bool:
        if actual.shape != expected.shape:
            raise Mismatch(kind, f"{name} has shape {actual.shape}, not {expected.shape}")
        if expected.dtype.kind != "f":
            return bool(np.array_equal(actual, expected))
        return _within(actual, expected, self._unit(name, expected, noise))

    def _unit(self, name: str, expected: np.ndarray, noise: Noise) -> float:
        """What is close for an output, by its declared element type."""
        declared = self.graph.outputs[name].dtype.name
        relative = CLOSE["float64" if noise is DOUBLE else declared]
        finite = np.abs(expected[np.isfinite(expected)])
        return relative * float(finite.max(initial=LEAST))

    def _is_near(
        self, name: str, actual: Any, expected: np.ndarray, spread: np.ndarray, noise: Noise
    ) -> bool:
        if expected.dtype.kind != "f":
            wrong = np.asarray(actual) != expected
            return not bool((wrong & (spread == 0)).any())
        largest = float(np.max(spread, initial=0.0))
        bound = MARGIN * largest + self._unit(name, expected, noise)
        return _within(np.asarray(actual), expected, bound)


def _within(actual: np.ndarray, expected: np.ndarray, bound: float) -> bool:
    """Whether all elements are that near; NaN is NaN, and infinite is infinite."""
    with np.errstate(all="ignore"):
        near = np.abs(actual.astype(np.float64) - expected) <= bound
    equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    return bool((near | equal).all()) or bound == np.inf


def shown(x: Any) -> str:
    if isinstance(x, Mapping):
        return ", ".join(f"{k}={v}" for k, v in x.items()) or "no sizes"
    return np.array2string(np.asarray(x), threshold=12, precision=8).replace("\n", " ")
