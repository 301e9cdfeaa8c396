"""Data in batches: shuffled by a seed, checked against the inputs of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from nncompile.dims import Dim
from nncompile.errors import FeedError
from nncompile.model import Model, did_you_mean
from nncompile.runtime.feeds import Array, Port, check_feeds

Batch = Mapping[str, Any]
Data = Mapping[str, Any] | Iterable[Batch] | Callable[[], Iterable[Batch]]
"""A dict of arrays, which are shuffled and cut into batches; or batches (dicts of arrays): a list
of them, or a function that returns them anew for each epoch."""

_BLOCK = 64  # batches that are gathered at once: one batch at a time costs more than a small step


class Feeder:
    """Gives batches of `data` for the inputs `ports` of the model.

    Arrays are cut along the first axis of those inputs whose first size is the batch: the first
    symbolic one that an input begins with; other inputs are given whole to every batch.
    Raises `FeedError` for data that do not fit and for arrays that hold NaN.
    """

    def __init__(self, data: Data, model: Model, ports: Sequence[Port], size: int) -> None:
        if size < 1:
            raise FeedError(f"a batch holds at least one example, got {size}")
        self.data = data
        self.model = model
        self.ports = tuple(ports)
        self.size = size
        self.axis = batch_size_name(model)
        self.arrays: dict[str, Array] | None = None
        if isinstance(data, Mapping):
            self.arrays = check_feeds(self.ports, self._known(data))
            for name, array in self.arrays.items():
                check_numbers(name, array)
            self.count = self.examples(self.arrays)
            if self.count == 0:
                raise FeedError("the data hold no examples")

    def epoch(self, order: tuple[int, int] | None = None, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, without the first `skip`. Arrays are in the random order that
        the numbers `order` (seed and epoch) determine, or as they are; a last batch may be
        smaller."""
        if self.arrays is not None:
            return self._cut(self.arrays, order, skip)
        batches = self.data() if callable(self.data) else self.data
        if isinstance(batches, Mapping) or not isinstance(batches, Iterable):
            raise FeedError(
                f"batches must be an iterable of dicts of arrays, got {type(batches).__name__}"
            )
        return islice(map(self._checked, batches), skip, None)

    def examples(self, batch: Batch) -> int:
        """The number of examples in a batch; one where the model has no batches."""
        for name in self.model.inputs:
            if name in batch and self._is_cut(name):
                return int(np.shape(batch[name])[0])
        return 1

    def _is_cut(self, name: str) -> bool:
        shape = self.model.inputs[name].shape
        return self.axis is not None and bool(shape) and shape[0] == self.axis

    def _cut(self, arrays: Mapping[str, Array], order: Any, skip: int) -> Iterator[Batch]:
        cut = {name: x for name, x in arrays.items() if self._is_cut(name)}
        whole = {name: x for name, x in arrays.items() if name not in cut}
        if not cut:
            yield from islice([whole], skip, None)
            return
        chosen = None if order is None else np.random.default_rng(order).permutation(self.count)
        block = _BLOCK * self.size
        for start in range(skip * self.size, self.count, block):
            stop = min(start + block, self.count)
            span = slice(start, stop) if chosen is None else chosen[start:stop]
            gathered = {name: np.ascontiguousarray(x[span]) for name, x in cut.items()}
            for first in range(0, stop - start, self.size):
                rows = slice(first, first + self.size)
                yield {**{name: x[rows] for name, x in gathered.items()}, **whole}

    def _checked(self, batch: Any) -> Batch:
        if not isinstance(batch, Mapping):
            raise FeedError(
                f"a batch is a dict of arrays by input name, got {type(batch).__name__}",
                rows=[("input", port.name, port.type) for port in self.ports],
            )
        return check_feeds(self.ports, self._known(batch))

    def _known(self, batch: Batch) -> dict[str, Any]:
        """The data that are needed here. Other inputs of the model may be among them; what is no
        input of it at all is a mistake."""
        for name in batch:
            if name not in self.model.inputs:
                raise FeedError(
                    f"model {self.model.name} has no input {name!r}",
                    rows=[("input", n, str(v.type)) for n, v in self.model.inputs.items()],
                    hint=did_you_mean(name, self.model.inputs),
                )
        needed = {port.name for port in self.ports}
        return {name: x for name, x in batch.items() if name in needed}


def batch_size_name(model: Model) -> Dim | None:
    """The size that data are cut along: the first symbolic one that an input begins with."""
    for leaf in model.inputs.values():
        if leaf.shape and not isinstance(leaf.shape[0], int):
            return leaf.shape[0]
    return None


def check_numbers(name: str, array: Array) -> None:
    """Raises `FeedError` where the array holds NaN, with the place of the first."""
    # The minimum is NaN where anything is, and needs no memory.
    if array.dtype.kind != "f" or array.size == 0:
        return
    with np.errstate(invalid="ignore"):
        if not np.isnan(array.min()):
            return
    places = np.argwhere(np.isnan(array))
    raise FeedError(
        f"the data of input {name!r} hold NaN: {len(places):,} of {array.size:,} numbers",
        rows=[("first at", f"{name}[{', '.join(map(str, places[0]))}]")],
        hint="remove those examples, or fill them: np.nan_to_num(…)",
    )
