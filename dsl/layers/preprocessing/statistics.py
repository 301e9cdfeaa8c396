"""Statistics of features, in float64 and block by block, so that data need not fit in memory.

A block is a matrix of numbers, a column for each feature; NaN stands for what is missing, and is
left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any, Protocol

import numpy as np

from nncompile.diagnostics.errors import FeedError
from nncompile.ir.types import Array, check_unmasked, is_numeric, is_real
from nncompile.program.category_codes import is_missing

_BLOCK = 2**20  # numbers that are looked at at once


class Statistics(Protocol):
    """What is computed of one block after another."""

    def add(self, block: Array) -> None: ...


class Moments:
    """How many numbers each feature has, their mean and their variance (by n).

    Blocks are joined by the formulas of Chan, Golub & LeVeque 1979, which lose no digits where the
    mean is large.
    """

    def __init__(self) -> None:
        self.count: Array = np.zeros(())
        self.mean: Array = np.zeros(())
        self._squares: Array = np.zeros(())

    def add(self, block: Array) -> None:
        """Adds the numbers of a block."""
        x = block.astype(np.float64)
        present = ~np.isnan(x)
        count = present.sum(0).astype(np.float64)
        mean = np.where(present, x, 0).sum(0) / np.maximum(count, 1)
        distances = np.where(present, x - mean, 0)
        mean = mean + distances.sum(0) / np.maximum(count, 1)  # what rounding left
        squares = np.square(np.where(present, x - mean, 0)).sum(0)
        total = self.count + count
        share = count / np.maximum(total, 1)
        shift = mean - self.mean
        self._squares = self._squares + squares + np.square(shift) * self.count * share
        self.mean = self.mean + shift * share
        self.count = total

    @property
    def variance(self) -> Array:
        """The mean squared distance from the mean."""
        return self._squares / np.maximum(self.count, 1)


class Extremes:
    """The least and the greatest number of each feature; infinite where there is none."""

    def __init__(self) -> None:
        self.low: Array = np.array(np.inf)
        self.high: Array = np.array(-np.inf)

    def add(self, block: Array) -> None:
        """Takes in the numbers of a block."""
        x = block.astype(np.float64)
        missing = np.isnan(x)
        self.low = np.minimum(self.low, np.where(missing, np.inf, x).min(0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(missing, -np.inf, x).max(0, initial=-np.inf))


class Frequencies:
    """How often each number is in each feature."""

    def __init__(self) -> None:
        self._counts: list[tuple[Array, Array]] = []

    def add(self, block: Array) -> None:
        """Counts the numbers of a block."""
        columns = [np.unique(_present(column), return_counts=True) for column in block.T]
        if self._counts:
            pairs = zip(self._counts, columns, strict=True)
            columns = [_merged(old, new) for old, new in pairs]
        self._counts = columns

    @property
    def values(self) -> list[Array]:
        """The different numbers of each feature, from the least to the greatest."""
        return [values for values, _ in self._counts]

    @property
    def most_frequent(self) -> Array:
        """The number that each feature has most often, the least of several; NaN without any."""
        return np.array(
            [values[counts.argmax()] if len(values) else np.nan for values, counts in self._counts]
        )


class Gathered:
    """All numbers of each feature, for what needs their order."""

    def __init__(self) -> None:
        self._blocks: list[Array] = []

    def add(self, block: Array) -> None:
        """Keeps the numbers of a block."""
        self._blocks.append(block.astype(np.float64))

    @property
    def columns(self) -> list[Array]:
        """The numbers of each feature that are not missing."""
        return [_present(column) for column in np.concatenate(self._blocks).T]


def _present(column: Array) -> Array:
    return column[~np.isnan(column)] if is_real(column.dtype) else column


def _merged(old: tuple[Array, Array], new: tuple[Array, Array]) -> tuple[Array, Array]:
    values, places = np.unique(np.concatenate([old[0], new[0]]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, np.concatenate([old[1], new[1]]))
    return values, counts


def blocks_of(label: str, data: Any) -> Iterator[Array]:
    """The data that the layer `label` is adapted to, in blocks of whole examples: of an array, a
    list, a column or table, or of an iterator of such. Floats are float64, integers stay. Raises
    `FeedError` for data that are not numbers."""
    for chunk in chunks_of(label, data):
        check_unmasked(chunk, f"what {label} is adapted to", FeedError)
        try:
            array = np.asarray(chunk)
        except (ValueError, TypeError, RuntimeError) as error:
            raise FeedError(
                f"{label} cannot be adapted to it, which is no array: {error}",
                hint="adapt(x for x, y in batches) takes the first of each pair",
            ) from None
        if array.ndim == 0:
            raise FeedError(f"{label} is adapted to examples along the first axis, got {array!r}")
        rows = max(1, _BLOCK // max(1, int(np.prod(array.shape[1:]))))
        for start in range(0, len(array), rows):
            yield _numbers(label, array[start : start + rows])


def chunks_of(label: str, data: Any) -> Iterable[Any]:
    """The arrays (or columns, lists) that the data consist of: one, or those of an iterator.
    Raises `FeedError` for a dict and for what is neither."""
    if isinstance(data, Mapping):
        first = next(iter(data), "x")
        raise FeedError(
            f"{label} is adapted to one array, not to a dict", hint=f"adapt(data[{first!r}])"
        )
    if isinstance(data, list | tuple) or hasattr(data, "__array__"):
        return [data]
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise FeedError(
            f"{label} is adapted to an array, a list, a column or an iterator of such, "
            f"got {type(data).__name__}"
        )
    return data


def _numbers(label: str, array: Array) -> Array:
    if array.dtype.kind == "O":
        flat = [np.nan if is_missing(x) else x for x in array.ravel().tolist()]
        stranger = next((x for x in flat if not isinstance(x, Real)), None)
        if stranger is None:
            return np.array(flat, np.float64).reshape(array.shape)
        raise _not_numbers(label, repr(stranger))
    if not is_numeric(array.dtype):
        raise _not_numbers(label, str(array.dtype))
    if array.dtype.kind == "b":
        return array.astype(np.int64)
    return array.astype(np.float64) if is_real(array.dtype) else array


def _not_numbers(label: str, got: str) -> FeedError:
    return FeedError(
        f"{label} is adapted to numbers, got {got}",
        hint="a Vocabulary makes codes of text: codes = Vocabulary().adapt(x).encode(x)",
    )
