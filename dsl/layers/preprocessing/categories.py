"""Codes and bins: `OneHot`, `Discretize`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

import numpy as np

from dsl.layers.preprocessing.adapted import Adapted
from dsl.layers.preprocessing.scaling import check_present
from dsl.layers.preprocessing.statistics import Extremes, Frequencies, Gathered, Statistics
from nncompile.diagnostics.errors import DTypeError, FeedError, ModelError, ShapeError, whole_number
from nncompile.ir.basic import as_value, cast, floating
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, f32, i64
from nncompile.ops import expand_dims, reshape, take
from nncompile.ops import sum as total


class OneHot(Adapted):
    """A 1 in the place of each integer code, and 0 elsewhere: i64[batch] to f32[batch, n], and
    i64[batch, k] to f32[batch, n₁ + … + nₖ], the places of one feature behind those of another.

    The codes are those that each feature has in the data that the layer was adapted to, from the
    least to the greatest; or `categories`: a number, for the codes from 0 below it, or the codes in
    a list, of every feature. Any other code is all 0, in training and in an export, which has no
    way to refuse it. States `categories` and, of several features, `feature`, both i64. As
    scikit-learn's `OneHotEncoder`; with `axis=None` all of x has one set of codes, and its places
    are a new last axis.

    Raises `ModelError` for fewer than one category, `DTypeError` for an x that is not of integers,
    `ShapeError` for one of other features.

    >>> OneHot().adapt([[3, 0], [7, 1]]).transform([[7, 0], [5, 1]])
    array([[0., 1., 1., 0.],
           [0., 0., 0., 1.]], dtype=float32)
    """

    categories: int | Sequence[int] | None = None
    dtype: DType = field(default=f32, kw_only=True)

    names: ClassVar[tuple[str, ...]] = ("categories", "feature")

    def __post_init__(self) -> None:
        if self.categories is None:
            return
        if isinstance(self.categories, Sequence | np.ndarray) and not isinstance(
            self.categories, str
        ):
            for code in self.categories:
                whole_number("a category of OneHot", code)
            count = len(self.categories)
        else:
            count = whole_number("categories of OneHot", self.categories)
        if count < 1:
            raise ModelError(f"OneHot needs at least one category, got {self.categories!r}")

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        if not x.dtype.is_integer:
            raise DTypeError(
                f"OneHot needs integer codes, x is {x.type}",
                hint="x.astype(i64) converts; Discretize() makes codes of measured numbers",
            )
        codes = cast(x, i64)
        if self.axis is None or not self._kept(x.rank):
            return self._compared(expand_dims(codes, -1), self._listed(0, x))
        if self.categories is None:
            count = int(self._statistic("feature").max(initial=-1)) + 1
            self._features("categories", x, (count,))
            feature = self._declared("feature", x, i64)
            return self._compared(take(codes, feature, -1), self._listed(count, x))
        table = self._compared(expand_dims(codes, -1), self._listed(0, x))
        return reshape(table, (*x.shape[:-1], x.shape[-1] * table.shape[-1]))

    def _kept(self, rank: int) -> list[int]:
        kept = super()._kept(rank)
        if kept not in ([], [rank - 1]):
            raise ShapeError(
                f"the features of OneHot are on the last axis, got axis={self.axis}",
                hint="moveaxis(x, 1, -1) puts another axis there",
            )
        return kept

    def _listed(self, features: int, x: Value) -> Value:
        """The codes that there are places for."""
        if self.categories is None:
            if not features and self._statistic("feature").any():
                raise ShapeError(f"OneHot was adapted to data of several features, x is {x.type}")
            return self._declared("categories", x, i64)
        categories = self.categories
        return as_value(
            np.arange(categories)
            if isinstance(categories, int)
            else np.asarray(categories, np.int64)
        )

    def _compared(self, codes: Value, categories: Value) -> Value:
        return cast(codes == categories, self.dtype)

    def _statistics(self) -> Frequencies:
        if self.categories is not None:
            raise ModelError(
                "OneHot has its categories already",
                hint="OneHot() takes those of the data that it is adapted to",
            )
        return Frequencies()

    def _prepared(self, block: Array) -> Array:
        if block.dtype.kind == "f":
            raise FeedError(
                "OneHot is adapted to integer codes, got float64",
                hint="x.astype(np.int64) converts; a missing code needs a number of its own",
            )
        return block.astype(np.int64)

    def _finished(self, statistics: Frequencies, sizes: tuple[int, ...]) -> dict[str, Array]:
        values = statistics.values
        feature = np.repeat(np.arange(len(values)), [len(v) for v in values])
        return {"categories": np.concatenate(values), "feature": feature}


class Discretize(Adapted):
    """The bin that each number is in, i64 from 0 on, of x's shape: how many of the `edges` between
    the bins are at most the number.

    The edges follow from the data that the layer is adapted to, for each feature: `bins` of equally
    many numbers ("quantile", by linear interpolation; equal edges are one) or of equal width
    ("uniform") from the least to the greatest. Or they are given, rising, as those of every
    feature. What lies beyond is in the first or last bin; NaN is in bin 0: `Impute` goes before.
    State `edges` f32[…features, bins − 1], rounded up, so that float32 numbers are in the bins that
    they have in float64; it ends with infinity for features with fewer. As scikit-learn's
    `KBinsDiscretizer` with ordinal codes, and Keras's `Discretization`.

    Raises `ModelError` for fewer than two bins, another strategy and edges that do not rise,
    `DTypeError` for an x that is not floating, `ShapeError` for one of other features.

    >>> Discretize(edges=[18, 65]).transform(np.array([3.0, 18.0, 70.0]))
    array([0, 1, 2])
    """

    bins: int | None = None
    strategy: str = "quantile"
    edges: Sequence[float] | None = field(default=None, kw_only=True)

    names: ClassVar[tuple[str, ...]] = ("edges",)

    def __post_init__(self) -> None:
        if self.bins is not None and whole_number("bins of Discretize", self.bins) < 2:
            raise ModelError(f"Discretize needs at least two bins, got {self.bins}")
        if self.strategy not in ("quantile", "uniform"):
            raise ModelError(
                f'the strategy of Discretize must be "quantile" or "uniform", got {self.strategy!r}'
            )
        if self.edges is None:
            return
        if self.bins is not None:
            raise ModelError("Discretize takes a number of bins or their edges, not both")
        edges = np.asarray(self.edges, np.float64)
        if edges.ndim != 1 or not len(edges) or not (np.diff(edges) > 0).all():
            raise ModelError(f"the edges of Discretize must rise, got {self.edges!r}")

    def __call__(self, x: Any) -> Value:
        x = floating("Discretize", x)
        if self.edges is not None:
            edges = as_value(_rounded_up(np.asarray(self.edges, np.float64), x.dtype))
        else:
            array = self._statistic("edges")
            kept = self._features("edges", x, array.shape[:-1])
            declared = self._as_state("edges", _rounded_up(array, x.dtype), x.dtype)
            shape = [x.shape[axis] if axis in kept else 1 for axis in range(x.rank)]
            edges = reshape(declared, (*shape, array.shape[-1]))
        return total(cast(expand_dims(x, -1) >= edges, i64), -1)

    def _statistics(self) -> Statistics:
        if self.edges is not None:
            raise ModelError(
                "Discretize has its edges already", hint="Discretize(8) takes them from the data"
            )
        return Gathered() if self.strategy == "quantile" else Extremes()

    def _finished(self, statistics: Any, sizes: tuple[int, ...]) -> dict[str, Array]:
        bins = 5 if self.bins is None else self.bins
        if isinstance(statistics, Gathered):
            columns = statistics.columns
            check_present("Discretize", np.array([len(c) for c in columns]))
            shares = np.linspace(0, 1, bins + 1)
            rows = [_distinct(np.quantile(column, shares)) for column in columns]
        else:
            check_present("Discretize", np.isfinite(statistics.low))
            pairs = zip(statistics.low, statistics.high, strict=True)
            rows = [_distinct(np.linspace(low, high, bins + 1)) for low, high in pairs]
        edges = np.full((len(rows), bins - 1), np.inf)
        for row, row_edges in zip(edges, rows, strict=True):
            row[: len(row_edges)] = row_edges
        return {"edges": edges.reshape(*sizes, bins - 1)}


def _distinct(edges: Array) -> Array:
    """The edges between bins that are no narrower than rounding, as scikit-learn has them; with a
    bin for the numbers at the upper end of a feature that repeats them."""
    kept = np.diff(edges, prepend=-np.inf) > 1e-8
    return edges[kept][1:-1]


def _rounded_up(edges: Array, dtype: DType) -> Array:
    """The least numbers of the element type that are no less than the edges: no number of that
    type lies between."""
    with np.errstate(over="ignore"):
        rounded = edges.astype(dtype.numpy)
    below = rounded.astype(np.float64) < edges
    return np.where(below, np.nextafter(rounded, np.array(np.inf, rounded.dtype)), rounded)


__all__ = ["Discretize", "OneHot"]
