"""Where batches come from that somebody else makes: lists, functions, generators, the loaders of
torch, sequences in the manner of Keras."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

import numpy as np

from nncompile.diagnostics.errors import FeedError
from nncompile.train.sources.prefetch import prefetched

Order = tuple[int, int] | None
"""What determines a random order (a seed and the number of the epoch); None for the data's own."""


class Source(Protocol):
    """Gives the batches of each epoch, without the first `skip` of them."""

    def epoch(self, order: Order, skip: int) -> Iterator[Any]: ...


class Batches:
    """Batches that are iterated over: a list, or what a function returns for each epoch. With a
    `buffer`, each batch that is given is drawn at random from the next so many."""

    def __init__(self, data: Any, buffer: int = 0) -> None:
        self.data, self.buffer = data, buffer

    def epoch(self, order: Order, skip: int) -> Iterator[Any]:
        """See `Source`. Raises `FeedError` where the function returns no batches."""
        batches = self.data() if callable(self.data) else self.data
        if isinstance(batches, Mapping | str) or not isinstance(batches, Iterable):
            raise FeedError(
                f"batches must be an iterable of dicts of arrays, got {type(batches).__name__}"
            )
        iterator = iter(batches)
        if self.buffer > 1 and order is not None:
            iterator = _shuffled(iterator, self.buffer, order)
        return islice(iterator, skip, None)


class IndexedBatches:
    """A sequence of batches in the manner of Keras: `len(x)` of them, `x[i]` each, in a random
    order, and `x.on_epoch_end()` after an epoch where there is that."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def epoch(self, order: Order, skip: int) -> Iterator[Any]:
        """See `Source`."""
        count = len(self.data)
        indices = range(count) if order is None else np.random.default_rng(order).permutation(count)
        for i in indices[skip:]:
            yield self.data[int(i)]
        on_epoch_end = getattr(self.data, "on_epoch_end", None)
        if on_epoch_end is not None:
            on_epoch_end()


class Prefetched:
    """The batches of a source, of which a thread makes the next few while a step runs."""

    def __init__(self, source: Source, depth: int) -> None:
        self.source, self.depth = source, depth

    def epoch(self, order: Order, skip: int, limit: int | None = None) -> Generator[Any]:
        """See `Source`; no more than `limit` batches are taken."""
        return prefetched(islice(self.source.epoch(order, skip), limit), self.depth)


def source_of(data: Any, buffer: int = 0) -> Source:
    """What gives the batches of `data`. Raises `FeedError` for data that give none."""
    _check_examples(data)
    if hasattr(data, "epoch") and callable(data.epoch) and not isinstance(data, type):
        source: Source = data
        return source
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if indexed and (hasattr(data, "on_epoch_end") or not hasattr(data, "__iter__")):
        return IndexedBatches(data)
    if not callable(data) and not isinstance(data, Iterable):
        raise FeedError(
            f"data must be arrays or batches of them, got {type(data).__name__}",
            hint="fit takes a dict of arrays, x and y, a table, a list of batches, a loader, or a "
            "function that returns batches",
        )
    return Batches(data, buffer)


def is_made_by_python(source: Source) -> bool:
    """Whether making its batches costs time that a thread may take: not where they lie in a
    list."""
    return not (isinstance(source, Batches) and isinstance(source.data, list | tuple))


def _check_examples(data: Any) -> None:
    """Raises `FeedError` for what gives single examples, not batches, or text."""
    classes = [f"{c.__module__}.{c.__qualname__}" for c in type(data).__mro__]
    if any(c.startswith("torch.utils.data.") and c.endswith(".Dataset") for c in classes):
        raise FeedError(
            f"{type(data).__name__} is a dataset of torch: it gives examples, not batches",
            hint="torch.utils.data.DataLoader(dataset, batch_size=32, shuffle=True)",
        )
    if isinstance(data, bytes | os.PathLike):
        raise FeedError(f"data must be arrays or batches of them, got {type(data).__name__}")


def _shuffled(batches: Iterator[Any], size: int, order: tuple[int, int]) -> Iterator[Any]:
    """The batches, each drawn from the next `size` that are left."""
    rng = np.random.default_rng(order)
    buffer: list[Any] = []
    for batch in batches:
        buffer.append(batch)
        if len(buffer) == size:
            yield buffer.pop(int(rng.integers(size)))
    while buffer:
        yield buffer.pop(int(rng.integers(len(buffer))))
