"""Data of all examples in two parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.train.sources.arrays import Rows, StoredArray, rows_of


class _Part(StoredArray):
    """Some rows of a stored array, from `start` to `stop`."""

    def __init__(self, rows: StoredArray, start: int, stop: int) -> None:
        super().__init__(rows.source)
        self.start = start
        self.shape = (stop - start, *self.shape[1:])
        self.size = self.size // max(rows.shape[0], 1) * (stop - start)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(self.shape[0])
            return super().__getitem__(slice(self.start + start, self.start + stop, step))
        return super().__getitem__(rows + self.start)


def split(
    feeds: Mapping[str, Any], cut: set[str], fraction: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first examples, and the last ones, of which there are `fraction` of all; rounded down, at
    least one of each. What is not `cut` into batches is in both. Raises `ModelError` for a fraction
    that is none, `FeedError` for too few examples."""
    if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ModelError(
            f"validation_split must be a fraction between 0 and 1, got {fraction!r}",
            hint="validation_split=0.2 holds out the last fifth of the examples",
        )
    rows: dict[str, Rows] = {name: rows_of(name, x) for name, x in feeds.items() if name in cut}
    counts = {x.shape[0] if x.shape else 0 for x in rows.values()}
    if len(counts) != 1:  # the sizes are told where they are checked
        sizes = [("input", name, str(list(x.shape))) for name, x in rows.items()]
        raise FeedError("validation_split needs as many examples of each input", rows=sizes)
    (count,) = counts
    held_out = max(1, int(count * fraction + 1e-9))
    if count < 2:
        raise FeedError(f"validation_split needs at least 2 examples, got {count}")
    border = min(count - held_out, count - 1)
    train = {n: _part(rows[n], 0, border) if n in rows else x for n, x in feeds.items()}
    rest = {n: _part(rows[n], border, count) if n in rows else x for n, x in feeds.items()}
    return train, rest


def _part(rows: Rows, start: int, stop: int) -> Rows:
    return _Part(rows, start, stop) if isinstance(rows, StoredArray) else rows[start:stop]
