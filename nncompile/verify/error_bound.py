"""What a backend may differ by: measured on the graph itself, not guessed.

The reference is the graph in float64. What rounding does to a result depends on the graph: where
sums cancel, or a number lies beside a kink, a rounding far inside moves a result by much more. So
the graph is evaluated again, in float64, several times, and each time the result of every node is
moved at random by up to `ROUNDINGS` roundings of its element type, and the parameters as well
(stochastic arithmetic; D. Parker, "Monte Carlo arithmetic", 1997). By as much as an output moves,
a backend's may differ; also by `ROUNDINGS` times what numpy in float32 differs by, and by
`ROUNDINGS` roundings of the largest element. A maximum that one of two equal elements wins, a
comparison that is decided by a rounding or an argument that several elements attain fall to either
side in these evaluations, as they do in backends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, dtype_of, f32, f64, is_real
from nncompile.verify.rounding import EPSILON, ROUNDINGS, Rounding

PROBES = 1  # evaluations with roundings, which most outputs need no more of
MORE = 12  # of them where an output seems to mismatch: one beside a kink may just not have been met
# Of the largest element: where rounding alone does more, a comparison is inconclusive.
UNDECIDED = 0.1

Arrays = dict[str, Array]


class Compute(Protocol):
    """The outputs of something, in double or as it is declared, with `change` (see `evaluate`)."""

    def __call__(self, double: bool, change: Any = None) -> Arrays: ...


def computed_by(graph: Graph, feeds: Mapping[str, Array]) -> Compute:
    """The outputs of the graph as numpy computes them."""

    def compute(double: bool, change: Any = None) -> Arrays:
        result: Arrays = evaluate(graph, feeds, np.float64 if double else None, change)
        return result

    return compute


@dataclass(frozen=True)
class Difference:
    """By how much one output differs from the reference, and may differ.

    `units` is the largest difference in units of its element type's rounding (2⁻²³ for f32) of the
    largest element of the output; `allowed` is the bound in the same units. `index` is the place.
    `is_decided` says whether the bound is tight enough for the comparison to say something.
    """

    output: str
    units: float
    allowed: float
    is_decided: bool
    index: tuple[int, ...] = ()
    expected: Any = None
    got: Any = None

    @property
    def mismatches(self) -> bool:
        """Whether the error exceeds its bound; NaN does."""
        return not self.units <= self.allowed

    @property
    def ratio(self) -> float:
        """The difference as a part of what is allowed."""
        return self.units / self.allowed if self.allowed else float("inf") if self.units else 0.0


class Reference:
    """The outputs of a computation in double precision, and what a backend may differ by.

    `compute` is what backends do; `exact`, where it is given, is what they should do (the graph
    before the passes): its numbers are the reference where they are finite.
    """

    def __init__(
        self,
        compute: Compute,
        seed: Sequence[int],
        exact: Compute | None = None,
        probes: int = PROBES,
    ) -> None:
        self._compute, self._seed = compute, tuple(seed)
        self._probed = 0
        self._computing: set[Value] = set()
        self.after_passes = after = compute(True)
        before = exact(True) if exact else after
        self.exact = {name: _finite_of(before[name], x) for name, x in after.items()}
        self.plain = compute(False)
        self.compared = {name: np.isfinite(x) for name, x in self.exact.items()}
        self.bound = {name: self._floor(name) for name in self.exact}
        self._widen(self.plain, ROUNDINGS)
        self.probe(probes)

    def probe(self, count: int) -> None:
        """Evaluates with roundings, `count` more times, and widens the bounds by what they do."""
        for _ in range(count):
            self._probed += 1
            rounding = Rounding((*self._seed, self._probed), self._computing)
            self._widen(self._compute(True, rounding), 1)

    def _widen(self, moved: Arrays, factor: float) -> None:
        """Allows what `moved` differs by from the same in double precision, times a factor, and
        leaves out of the comparison what overflows in it."""
        for name, x in moved.items():
            reference = self.after_passes[name]
            finite = np.isfinite(x) & np.isfinite(reference)
            largest = float(np.max(_distances(x, reference), where=finite, initial=0.0))
            self.bound[name] = max(self.bound[name], factor * largest)
            if x.shape == self.compared[name].shape:
                self.compared[name] &= np.isfinite(x)

    def passes(self) -> list[Difference]:
        """How the graph after the passes differs from the one before, both in double precision."""
        return [
            self._difference(name, x, np.isfinite(self.exact[name]))
            for name, x in self.after_passes.items()
        ]

    def differences(self, got: Mapping[str, Array]) -> list[Difference]:
        """How the outputs of a backend differ; where one seems to mismatch, after a closer look at
        the bounds."""
        bounded = [self._difference(name, x, self.compared[name]) for name, x in got.items()]
        if any(d.mismatches for d in bounded) and self._probed < MORE:
            self.probe(MORE)
            bounded = [self._difference(name, x, self.compared[name]) for name, x in got.items()]
        return bounded

    def _difference(self, name: str, got: Array, compared: Array) -> Difference:
        expected, scale = self.exact[name], self._scale(name)
        unit = self._epsilon(name) * (scale or 1.0)
        allowed, decided = self.bound[name] / unit, self.bound[name] <= UNDECIDED * (scale or 1.0)
        if got.shape != expected.shape:
            shapes = list(expected.shape), list(got.shape)
            return Difference(name, float("inf"), allowed, decided, (), *shapes)
        if not got.size:
            return Difference(name, 0.0, allowed, decided)
        distance = np.where(compared, _distances(got, expected), 0.0)
        index = tuple(int(i) for i in np.unravel_index(np.argmax(distance), distance.shape))
        units = float(distance[index]) / unit
        return Difference(name, units, allowed, decided, index, expected[index], got[index])

    def _scale(self, name: str) -> float:
        """The largest element of an output, of those that are compared."""
        x = np.abs(self.exact[name].astype(np.float64))
        return float(np.max(x, where=self.compared[name], initial=0.0))

    def _epsilon(self, name: str) -> float:
        """The rounding that an output is measured in: that of f64 where it was computed in it."""
        dtype = dtype_of(self.plain[name])
        if dtype is f64 and not self._is_exact(name):
            dtype = f32
        return EPSILON[dtype if dtype.is_float else f32]

    def _is_exact(self, name: str) -> bool:
        return self.bound[name] <= 2.0**-32 * self._scale(name)

    def _floor(self, name: str) -> float:
        dtype = dtype_of(self.plain[name])
        if not dtype.is_float:
            return 0.0
        # Below the smallest normal number results may be flushed to zero.
        epsilon = EPSILON[dtype]
        return max(ROUNDINGS * epsilon * self._scale(name), 2.0**-126)


def _distances(a: Array, b: Array) -> Array:
    """The absolute differences: infinite where a number is none in one of the two."""
    if a.shape != b.shape:
        return np.full(b.shape, np.inf)
    with np.errstate(invalid="ignore"):
        distance = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return np.where(np.isnan(distance), np.inf, distance)


def _finite_of(first: Array, second: Array) -> Array:
    """The elements of `first`, those of `second` where they are not finite: a spelling that
    overflows is made stable by a pass."""
    if first.shape != second.shape or not is_real(first.dtype):
        return first
    return np.where(np.isfinite(first), first, second)
