"""Layers that bring features to one scale."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from dsl.layers.preprocessing.adapted import Adapted
from dsl.layers.preprocessing.statistics import Extremes, Moments
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.diagnostics.options import real
from nncompile.elementwise import hard_clip
from nncompile.ir.basic import floating
from nncompile.ir.op import Value
from nncompile.ir.types import Array


class Standardize(Adapted):
    """(x − mean) / std of each feature: mean 0 and variance 1 over the data that it was adapted to.

    `std` is the root of the mean squared distance from the mean (by n), and 1 for a feature that
    does not vary. What is missing there is left out; NaN stays NaN. States `mean` and `std`, of x's
    element type. As scikit-learn's `StandardScaler` and Keras's `Normalization`.

    Raises `DTypeError` for an x that is not floating, `ShapeError` for one of other features.

    >>> Standardize().adapt([[1.0, 5.0], [3.0, 5.0]]).statistics
    {'mean': array([2., 5.]), 'std': array([1., 1.])}
    """

    names: ClassVar[tuple[str, ...]] = ("mean", "std")

    def __call__(self, x: Any) -> Value:
        x = floating("Standardize", x)
        y: Value = (x - self._beside("mean", x)) / self._beside("std", x)
        return y

    def _statistics(self) -> Moments:
        return Moments()

    def _finished(self, statistics: Moments, sizes: tuple[int, ...]) -> dict[str, Array]:
        check_present("Standardize", statistics.count)
        mean, variance, n = statistics.mean, statistics.variance, statistics.count
        # Below this the variance is rounding, as scikit-learn has it.
        eps = np.finfo(np.float64).eps
        constant = variance <= n * eps * variance + np.square(n * mean * eps)
        std = np.where(constant, 1, np.sqrt(variance))
        return {"mean": mean.reshape(sizes), "std": std.reshape(sizes)}


class MinMaxScale(Adapted):
    """Each feature from `low` to `high`, linearly: the least number of the data that it was adapted
    to becomes `low`, the greatest `high`. Others lie beyond, unless they are cut off (`clip`).

    A feature that does not vary becomes `low`. What is missing there is left out; NaN stays NaN.
    States `minimum` and `width`, of x's element type. As scikit-learn's `MinMaxScaler`.

    Raises `ModelError` where high is not above low, `DTypeError` for an x that is not floating,
    `ShapeError` for one of other features.

    >>> MinMaxScale().adapt([1.0, 5.0, 3.0]).transform([1.0, 2.0, 6.0])
    array([0.  , 0.25, 1.25])
    """

    low: float = 0.0
    high: float = 1.0
    clip: bool = False

    names: ClassVar[tuple[str, ...]] = ("minimum", "width")

    def __post_init__(self) -> None:
        if not real("low of MinMaxScale", self.low) < real("high of MinMaxScale", self.high):
            raise ModelError(
                f"MinMaxScale: low must be below high, got {self.low!r} and {self.high!r}"
            )

    def __call__(self, x: Any) -> Value:
        x = floating("MinMaxScale", x)
        share = (x - self._beside("minimum", x)) / self._beside("width", x)
        y: Value = share * (self.high - self.low) + self.low
        return hard_clip(y, self.low, self.high) if self.clip else y

    def _statistics(self) -> Extremes:
        return Extremes()

    def _finished(self, statistics: Extremes, sizes: tuple[int, ...]) -> dict[str, Array]:
        check_present("MinMaxScale", np.isfinite(statistics.low))
        width = statistics.high - statistics.low
        width = np.where(width == 0, 1, width)
        return {"minimum": statistics.low.reshape(sizes), "width": width.reshape(sizes)}


def check_present(label: str, count: Array, hint: str | None = None) -> None:
    """Raises `FeedError` where a feature has no number in the data."""
    empty = np.flatnonzero(np.asarray(count) == 0)
    if len(empty):
        others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise FeedError(
            f"{label} cannot be adapted: feature {empty[0]}{others} has no number in the data",
            hint=hint or "leave that column out",
        )


__all__ = [
    "MinMaxScale",
    "Standardize",
]
