"""Sequences of different lengths: padded to arrays with their lengths, and put into batches with
others of like length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from nncompile.diagnostics.errors import FeedError, ModelError, did_you_mean, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.types import Array, is_numeric
from nncompile.train.sources.batches import Order

_POOL = 50  # batches among which examples are sorted by length


@suggests_names
def padded(
    sequences: Sequence[Any],
    length: int | None = None,
    value: float = 0,
    side: Literal["right", "left"] = "right",
    multiple_of: int = 1,
    truncate: bool = False,
    dtype: Any = None,
) -> tuple[Array, Array]:
    """The sequences as one array [n, time, …], filled up with `value`, and their lengths, i64[n].

    A sequence is a list of numbers, or an array whose first axis is time and whose others are the
    same for all. `time` is the greatest length, rounded up to a multiple of `multiple_of`, or
    `length`: longer sequences are refused, or keep their first elements if `truncate`. Raises
    `FeedError` for what is no sequence of numbers, `ModelError` for wrong options.

    >>> x, lengths = padded([[1, 2, 3], [4]])
    >>> x.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    if side not in ("right", "left"):
        raise ModelError(f'side must be "right" or "left", got {side!r}')
    whole_number("multiple_of", multiple_of, 1)
    arrays = [_sequence(i, x) for i, x in enumerate(sequences)]
    if not arrays:
        raise FeedError("there are no sequences to pad")
    lengths = np.array([len(x) for x in arrays], np.int64)
    time = _padded_length(lengths, length, multiple_of, truncate)
    shape, element = _element_of(arrays)
    result = np.full((len(arrays), time, *shape), value, element if dtype is None else dtype)
    for row, x in zip(result, arrays, strict=True):
        kept = x[:time]
        if len(kept):  # an empty list has no elements of that shape
            row[slice(len(kept)) if side == "right" else slice(time - len(kept), time)] = kept
    return result, np.minimum(lengths, time)


def _padded_length(lengths: Array, length: int | None, multiple_of: int, truncate: bool) -> int:
    """The size of the axis of time. Raises `FeedError` where a sequence is longer."""
    longest = int(lengths.max())
    if length is None:
        return -(-longest // multiple_of) * multiple_of
    time = whole_number("length", length, 0)
    if longest > time and not truncate:
        raise FeedError(
            f"sequence {int(lengths.argmax())} has {longest} elements, more than length={time}",
            rows=[("in all", f"{int((lengths > time).sum()):,} of {len(lengths):,}")],
            hint="truncate=True keeps the first ones",
        )
    return time


def _element_of(arrays: Sequence[Array]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and the type of the elements of sequences, which is the same for all; an empty list
    does not say of what type it is. Raises `FeedError` for another shape."""
    filled = {i: x for i, x in enumerate(arrays) if len(x)}
    if not filled:
        return (), np.dtype(np.float64)
    first = next(iter(filled.values())).shape[1:]
    for i, x in filled.items():
        if x.shape[1:] != first:
            raise FeedError(
                f"sequence {i} has elements of another shape",
                rows=[("first", str(list(first))), (f"sequence {i}", str(list(x.shape[1:])))],
            )
    return first, np.result_type(*(x.dtype for x in filled.values()))


class LengthBuckets:
    """Batches of sequences of like length, each padded to its longest: data for `fit`, `evaluate`
    and `predict`.

    `data` has the rows of each input by name; `sequences` names those that are lists of different
    lengths, and `lengths` the input that takes these (of the first of them; None where the model
    has none). In each epoch the examples are shuffled, sorted by length within some fifty batches,
    cut into batches of `batch_size`, and the batches shuffled; without shuffling they stay in
    their order. The other options are those of `padded`.

    Raises `FeedError` for inputs of different numbers of rows, `ModelError` for wrong options.
    """

    @suggests_names
    def __init__(
        self,
        data: Mapping[str, Any],
        sequences: str | Sequence[str],
        batch_size: int = 32,
        lengths: str | None = "lengths",
        **options: Any,
    ) -> None:
        self._names = [sequences] if isinstance(sequences, str) else list(sequences)
        for name in self._names:
            if name not in data:
                raise ModelError(
                    f"LengthBuckets: the data have no {name!r}", hint=did_you_mean(name, data)
                )
        if not self._names:
            raise ModelError("LengthBuckets needs the name of an input of sequences")
        self._size = whole_number("batch_size", batch_size, 1)
        self._label = lengths
        self._options = options
        self._rows = {n: [_sequence(i, x) for i, x in enumerate(data[n])] for n in self._names}
        self._others = {n: np.asarray(x) for n, x in data.items() if n not in self._rows}
        counts = {n: len(x) for n, x in self._rows.items()}
        counts |= {n: len(x) for n, x in self._others.items()}
        if len(set(counts.values())) > 1:
            raise FeedError(
                "the inputs have different numbers of rows",
                rows=[("input", n, f"{count:,}") for n, count in counts.items()],
            )
        self._lengths = np.array([len(x) for x in self._rows[self._names[0]]], np.int64)

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return -(-len(self._lengths) // self._size)

    def epoch(self, order: Order, skip: int = 0) -> Iterator[dict[str, Array]]:
        """The batches of one epoch, without the first `skip`, in the order that the numbers
        determine."""
        for rows in self._batches(order)[skip:]:
            batch: dict[str, Array] = {}
            for name, sequences in self._rows.items():
                batch[name], lengths = padded([sequences[i] for i in rows], **self._options)
                if name == self._names[0] and self._label is not None:
                    batch[self._label] = lengths
            yield {**batch, **{name: x[rows] for name, x in self._others.items()}}

    def _batches(self, order: Order) -> list[Array]:
        count = len(self._lengths)
        if order is None:
            return [np.arange(count)[i : i + self._size] for i in range(0, count, self._size)]
        rng = np.random.default_rng(order)
        chosen = rng.permutation(count)
        pool = _POOL * self._size
        batches: list[Array] = []
        for start in range(0, count, pool):
            rows = chosen[start : start + pool]
            rows = rows[np.argsort(self._lengths[rows], kind="stable")]
            batches += [rows[i : i + self._size] for i in range(0, len(rows), self._size)]
        return [batches[i] for i in rng.permutation(len(batches))]


def _sequence(number: int, x: Any) -> Array:
    array = np.asarray(x)
    if not array.ndim or not (is_numeric(array.dtype) or array.size == 0):
        raise FeedError(
            f"sequence {number} is no list of numbers, but {type(x).__name__}",
            rows=[("got", f"{x!r:.60}")],
            hint="words are numbers by a vocabulary: [[codes[word] for word in line] …]"
            if array.dtype.kind in "UO"
            else None,
        )
    return array
