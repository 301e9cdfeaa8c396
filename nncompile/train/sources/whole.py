"""Arrays of all examples: checked once, block by block, and cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError, Row
from nncompile.ir.types import Array
from nncompile.runtime.batch_inputs import BOUND
from nncompile.runtime.cuda.pinned import Place
from nncompile.runtime.feeds import Port, describe
from nncompile.train.sources.arrays import Rows, StoredArray
from nncompile.train.sources.batches import Order
from nncompile.train.sources.casting import Cast
from nncompile.train.sources.later import LaterRows

_BLOCK = 64  # small batches that are gathered at once: one at a time costs more than their step
_BLOCK_BYTES = 2**24  # and no more than that, beyond one batch
_CHECK_BYTES = 2**26  # of the data that are checked at once
_SAMPLE = 16  # examples that show whether they influence each other


class WholeData:
    """Rows of all examples by input, which are `cut` into batches of `size`, and the other arrays,
    which every batch has. `casts` make them arrays of the declared types."""

    def __init__(
        self,
        rows: Mapping[str, Rows],
        cut: set[str],
        casts: Mapping[str, Cast | None],
        size: int,
    ) -> None:
        self.size = size
        self.is_shared = False  # by processes, each of which takes its rows of a batch
        self.place: Place | None = None  # where batches are gathered
        self.shapes = {name: x.shape for name, x in rows.items()}
        self._casts = casts
        self._rows = {name: x for name, x in rows.items() if name in cut}
        whole = {n: in_memory(x) for n, x in rows.items() if n not in cut}
        self._uncut = {n: self._cast(n, x, 0) for n, x in whole.items()}
        self._names = tuple(rows)
        self.count = next((x.shape[0] for x in self._rows.values()), 1)
        self._row_bytes = sum(
            x.dtype.itemsize * int(np.prod(x.shape[1:], dtype=np.int64))
            for x in self._rows.values()
        )

    @property
    def arrays(self) -> dict[str, Rows]:
        """What there is of each input, in the types in which it was given."""
        return {n: self._rows[n] if n in self._rows else self._uncut[n] for n in self._names}

    def taken(self, rows: slice | Array, first: int = 0) -> dict[str, Array]:
        """Those rows of the arrays, in the declared types; `first` is the number of the first."""
        cut = {n: self._cast(n, self._gathered(n, rows), first) for n in self._rows}
        return {name: cut[name] if name in cut else self._uncut[name] for name in self._names}

    def _gathered(self, name: str, chosen: slice | Array) -> Array:
        """Those rows of an input, in the type in which it was given. Where they are chosen one by
        one, and no more is done with them, they are gathered into the place for them."""
        rows = self._rows[name]
        if isinstance(chosen, slice) or not isinstance(rows, np.ndarray):
            return _taken(rows, chosen)
        place = None
        if self.place is not None and self._casts[name] is None:
            place = self.place((len(chosen), *rows.shape[1:]), rows.dtype)
        if place is None:
            return _taken(rows, chosen)
        # Numbers are not looked at, which would gather them elsewhere first.
        return np.asarray(rows).take(chosen, axis=0, out=place, mode="clip")

    def _cast(self, name: str, array: Array, first: int) -> Array:
        convert = self._casts[name]
        return array if convert is None else convert(array, first)

    def blocks(self) -> Iterator[tuple[int, dict[str, Array]]]:
        """All data in parts that fit into memory, and the number of the first row of each."""
        if not self._rows:
            yield 0, dict(self._uncut)
            return
        length = max(1, _CHECK_BYTES // max(self._row_bytes, 1))
        for first in range(0, self.count, length):
            yield first, self.taken(slice(first, first + length), first)

    def epoch(self, order: Order, skip: int) -> Iterator[dict[str, Array]]:
        """The batches of one epoch, without the first `skip`, in the random order that the numbers
        `order` determine, or as they are; a last batch may be smaller."""
        if not self._rows:
            yield from islice([dict(self._uncut)], skip, None)
            return
        chosen = None if order is None else np.random.default_rng(order).permutation(self.count)
        if self.is_shared:
            yield from self._later(chosen, skip)
            return
        batch_bytes = self.size * self._row_bytes
        fitting = 1 if batch_bytes >= BOUND else _BLOCK_BYTES // max(batch_bytes, 1)
        block = self.size * min(_BLOCK, max(1, fitting))
        for start in range(skip * self.size, self.count, block):
            stop = min(start + block, self.count)
            span = slice(start, stop) if chosen is None else chosen[start:stop]
            taken = self.taken(span, start)
            for first in range(0, stop - start, self.size):
                rows = slice(first, first + self.size)
                yield {n: x[rows] if n in self._rows else x for n, x in taken.items()}

    def _later(self, chosen: Array | None, skip: int) -> Iterator[dict[str, Any]]:
        """The batches of one epoch, whose rows are not taken yet."""
        rows = np.arange(self.count) if chosen is None else chosen
        dtypes = {n: x.dtype for n, x in self.taken(slice(0, 0)).items()}
        for start in range(skip * self.size, self.count, self.size):
            span = rows[start : start + self.size]
            later = {
                n: LaterRows(
                    partial(self._row_part, n, span, start), (len(span), *x.shape[1:]), dtypes[n]
                )
                for n, x in self._rows.items()
            }
            yield {n: later[n] if n in later else self._uncut[n] for n in self._names}

    def _row_part(self, name: str, chosen: Array, first: int, part: slice) -> Array:
        """A part of the chosen rows of an input."""
        return self._cast(name, _taken(self._rows[name], chosen[part]), first)

    def sample(self) -> dict[str, Array]:
        """A batch of the first examples."""
        return self.taken(slice(0, min(max(self.size, _SAMPLE), self.count)))

    def batch_shapes(self) -> Iterator[dict[str, tuple[int, ...]]]:
        """The shapes of a batch, and of the last one, which may be smaller."""
        last = self.count % self.size or self.size
        for rows in dict.fromkeys((min(self.count, self.size), last)):
            yield {
                n: (rows, *shape[1:]) if n in self._rows else shape
                for n, shape in self.shapes.items()
            }

    def described(self) -> list[Row]:
        """Names, types and sizes, for messages."""
        columns: dict[str, Any] = {**self._uncut, **self._rows}
        return [(n, describe(columns[n].dtype, columns[n].shape)) for n in self._names]


def _taken(rows: Rows, chosen: slice | Array) -> Array:
    """Those rows: of a slice as they lie, where they are in order."""
    if isinstance(chosen, slice) or not isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows[chosen])
    return np.asarray(rows).take(chosen, axis=0)  # in half the time of rows[chosen]


def in_memory(rows: Rows) -> Array:
    """All rows; those of a file are read."""
    return rows if isinstance(rows, np.ndarray) else rows[:]


def fitted(port: Port, rows: Rows) -> Rows:
    """The rows with the axis of size 1 that the port has at its end and they lack, or the other
    way round. Raises `FeedError` for one-hot labels where classes are declared."""
    if isinstance(rows, StoredArray):
        return rows
    array, rank = rows, len(port.shape)
    if array.ndim == rank + 1 and rank and array.shape[-1] == 1:
        return array[..., 0]
    if array.ndim == rank - 1 and array.ndim and port.shape[-1] == 1:
        return array[..., None]
    if array.ndim == rank + 1 == 2 and port.dtype.kind in "iu" and _is_one_hot(array[:1000]):
        raise FeedError(
            f"input {port.name!r} is one-hot, where the number of the class is declared",
            rows=[("expected", port.type), ("got", describe(array.dtype, array.shape))],
            hint=f"{port.name}.argmax(axis=1)",
        )
    return array


def _is_one_hot(array: Array) -> bool:
    if array.shape[1] < 2 or array.dtype.kind not in "biuf" or not len(array):
        return False
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())
