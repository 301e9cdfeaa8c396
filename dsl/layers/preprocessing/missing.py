"""`Impute`: numbers in the place of what is missing."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, ClassVar

import numpy as np

from dsl.layers.preprocessing.adapted import Adapted
from dsl.layers.preprocessing.scaling import check_present
from dsl.layers.preprocessing.statistics import Frequencies, Gathered, Moments, Statistics
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.elementwise import isnan, where
from nncompile.ir.basic import as_value, cast
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.ops import concatenate

STRATEGIES = ("mean", "median", "most_frequent", "constant")


class Impute(Adapted):
    """x with a number of each feature where one is missing: the mean, the median or the most
    frequent number (the least of several) of the data that it was adapted to, or `fill_value` with
    the strategy "constant", which needs no `adapt`.

    Missing is NaN, or what equals `missing`: -1 in integers, say. With `indicator`, numbers that
    are 1 where one was missing and 0 elsewhere, of x's element type, follow along the last axis,
    one for each feature. The gradient is that of x, and 0 where a number is missing. State `fill`,
    of x's element type. As scikit-learn's `SimpleImputer`.

    Raises `ModelError` for another strategy and a `fill_value` without its strategy, `ShapeError`
    for an x of other features, `DTypeError` for integers that should be filled with a mean or
    median, or have no `missing`.

    >>> fill = Impute("median", indicator=True).adapt([[1.0], [5.0], [np.nan], [2.0]])
    >>> fill.transform([[np.nan], [7.0]])
    array([[2., 1.],
           [7., 0.]])
    """

    strategy: str = "mean"
    fill_value: float | None = field(default=None, kw_only=True)
    missing: float = field(default=math.nan, kw_only=True)
    indicator: bool = field(default=False, kw_only=True)

    names: ClassVar[tuple[str, ...]] = ("fill",)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ModelError(
                f"the strategy of Impute must be one of {', '.join(STRATEGIES)}, "
                f"got {self.strategy!r}",
                hint='Impute("constant", fill_value=0.0) fills with a number',
            )
        constant = self.strategy == "constant"
        if constant != (self.fill_value is not None):
            raise ModelError(
                'Impute("constant") needs a fill_value'
                if constant
                else f"Impute fills with the {self.strategy}, and takes no fill_value",
                hint='Impute("constant", fill_value=0.0)',
            )
        for option in ("fill_value", "missing"):
            number = getattr(self, option)
            if isinstance(number, bool) or not isinstance(number, int | float | np.number | None):
                raise ModelError(f"{option} of Impute must be a number, got {number!r}")

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        if not x.dtype.is_float:
            self._check_integers(x)
        absent = isnan(x) if math.isnan(self.missing) else x == self.missing
        fill = self.fill_value if self.strategy == "constant" else self._beside("fill", x)
        filled: Value = where(absent, fill, x)
        if not self.indicator:
            return filled
        if x.rank < 2:
            raise ShapeError(
                f"the indicator of Impute follows the features on the last axis, x is {x.type}",
                hint="expand_dims(x, -1) makes a feature of a vector",
            )
        return concatenate([filled, cast(absent, x.dtype)], -1)

    def _check_integers(self, x: Value) -> None:
        if math.isnan(self.missing):
            raise DTypeError(
                f"Impute fills NaN, which {x.type} does not have",
                hint="Impute(..., missing=-1) fills that number",
            )
        if self.strategy in ("mean", "median"):
            raise DTypeError(
                f"the {self.strategy} is no integer, x is {x.type}",
                hint='Impute("most_frequent"), or x.astype(f32)',
            )

    def _statistics(self) -> Statistics:
        collectors: dict[str, type[Statistics]] = {"median": Gathered, "most_frequent": Frequencies}
        return collectors.get(self.strategy, Moments)()

    def _prepared(self, block: Array) -> Array:
        if not math.isnan(self.missing):
            block = np.where(block == self.missing, np.nan, block)
        return super()._prepared(block)

    def _finished(self, statistics: Any, sizes: tuple[int, ...]) -> dict[str, Array]:
        if isinstance(statistics, Gathered):
            columns = statistics.columns
            fill = np.array([np.median(c) if len(c) else np.nan for c in columns])
        elif isinstance(statistics, Frequencies):
            fill = statistics.most_frequent
        else:
            fill = np.where(statistics.count > 0, statistics.mean, np.nan)
        hint = 'leave that column out, or Impute("constant", fill_value=0.0)'
        check_present("Impute", ~np.isnan(fill), hint)
        return {"fill": fill.reshape(sizes)}


__all__ = ["Impute"]
