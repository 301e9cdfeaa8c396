"""Data in batches: shuffled by a seed, checked against the inputs of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError, Row, did_you_mean, whole_number
from nncompile.ir.dims import substitute, symbols
from nncompile.ir.graph import input_of
from nncompile.ir.op import Value
from nncompile.ir.types import Array, is_real
from nncompile.program.model import Model
from nncompile.program.shape_check import SizeCheck, Sizes
from nncompile.runtime.feeds import Port, check_feeds, describe
from nncompile.train.indices import RangeCheck

Batch = Mapping[str, Any]
Data = Mapping[str, Any] | Iterable[Batch] | Callable[[], Iterable[Batch]]
"""A dict of arrays, which are shuffled and cut into batches; or batches (dicts of arrays): a list
of them, or a function that returns an iterable of them for each epoch."""

_SAMPLE = 16  # examples that show whether they influence each other
_BLOCK = 64  # batches that are gathered at once: one batch at a time costs more than a small step


class Feeder:
    """Gives batches of `data` for the inputs `ports` of the model.

    Arrays are cut along the first axis of those inputs whose first size is the batch: the first
    symbolic one that an input begins with; every batch gets the other inputs uncut.
    Raises `FeedError` for data that do not fit, for sizes at which `sizes` rejects the model, for
    numbers out of range (labels and tokens that are not an index of what they address, lengths
    beyond the end), and for arrays that hold NaN.
    """

    def __init__(
        self,
        data: Data,
        model: Model,
        ports: Sequence[Port],
        size: int,
        sizes: SizeCheck,
        may_be_empty: bool = False,
    ) -> None:
        self.data = data
        self.model = model
        self.ports = tuple(ports)
        self.size = whole_number("batch_size", size, 1)
        self.axis = model.examples
        # The inputs whose data are refused where they hold NaN.
        self.numbers = {n for n, v in model.inputs.items() if not input_of(v).may_be_nan}
        self.sizes = sizes
        self.ranges = RangeCheck(sizes.graph, self.axis)
        self.arrays: dict[str, Array] | None = None
        self._recent: deque[Batch] = deque(maxlen=2)
        if isinstance(data, str) or hasattr(data, "shape"):
            raise FeedError(
                f"data must be a dict of arrays by input name, got {type(data).__name__}",
                rows=[("input", port.name, port.type) for port in self.ports],
                hint=self._written(),
            )
        if isinstance(data, Mapping):
            self.arrays = check_feeds(self.ports, self._required(data))
            self.check_numbers(self.arrays)
            self.count = self.examples(self.arrays)
            if self.count == 0 and not may_be_empty:
                raise FeedError("the data have no examples", rows=self._shapes(self.arrays))
            self.ranges(self.arrays, self._checked_sizes(self.arrays), unbatched=True)

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

    def identity(self, order: tuple[int, int] | None) -> dict[str, Any]:
        """What the batches of an epoch are cut from, and in which order, as far as it is known:
        an epoch that was begun on it is finished on the same."""
        if self.arrays is None:
            return {"batches": len(self.data)} if isinstance(self.data, Sized) else {}
        shuffled = {"shuffle": False} if order is None else {"shuffle": True, "seed": order[0]}
        return {"batch_size": self.size, "examples": self.count, **shuffled}

    def examples(self, batch: Batch) -> int:
        """The number of examples in a batch; one where the model has no batches."""
        for name in self.model.inputs:
            if name in batch and self._is_cut(name):
                return int(np.shape(batch[name])[0])
        return 1

    def _is_cut(self, name: str) -> bool:
        shape = self.model.inputs[name].shape
        return self.axis is not None and bool(shape) and shape[0] == self.axis

    def sample_batches(self) -> list[dict[str, Any]]:
        """A batch of the first examples, and its two halves. Needs a source of arrays."""
        assert self.arrays is not None
        count = min(max(self.size, _SAMPLE), self.count)
        spans = (slice(0, count), slice(0, count // 2), slice(count // 2, count))
        return [
            {
                n: np.ascontiguousarray(x[span]) if self._is_cut(n) else x
                for n, x in self.arrays.items()
            }
            for span in spans
        ]

    def _cut(self, arrays: Mapping[str, Array], order: Any, skip: int) -> Iterator[Batch]:
        cut = {name: x for name, x in arrays.items() if self._is_cut(name)}
        uncut = {name: x for name, x in arrays.items() if name not in cut}
        if not cut:
            yield from islice([uncut], skip, None)
            return
        chosen = None if order is None else np.random.default_rng(order).permutation(self.count)
        block = _BLOCK * self.size
        for start in range(skip * self.size, self.count, block):
            stop = min(start + block, self.count)
            span = slice(start, stop) if chosen is None else chosen[start:stop]
            block_arrays = {name: np.ascontiguousarray(x[span]) for name, x in cut.items()}
            for first in range(0, stop - start, self.size):
                rows = slice(first, first + self.size)
                yield {**{name: x[rows] for name, x in block_arrays.items()}, **uncut}

    def _written(self) -> str:
        return "{" + ", ".join(f"{port.name!r}: ..." for port in self.ports) + "}"

    def _checked(self, batch: Any) -> Batch:
        if not isinstance(batch, Mapping):
            raise FeedError(
                f"a batch must be a dict of arrays by input name, got {type(batch).__name__}",
                rows=[("input", port.name, port.type) for port in self.ports],
                hint=self._written(),
            )
        arrays = check_feeds(self.ports, self._required(batch))
        self.ranges(arrays, self.sizes({name: x.shape for name, x in arrays.items()}))
        self._recent.append(arrays)
        return arrays

    def empty_outputs(self, outputs: Mapping[str, Value]) -> dict[str, Array]:
        """The `outputs` of a model for data without examples: arrays of no rows. Raises `FeedError`
        where one of them has no row for each example."""
        assert self.arrays is not None
        sizes = self.sizes({name: x.shape for name, x in self.arrays.items()})
        arrays = {}
        for name, v in outputs.items():
            shape = [substitute(d, sizes) for d in v.shape]
            if symbols(shape) or not symbols(v.shape) & symbols([self.axis or 0]):
                raise FeedError(
                    f"the data have no examples, and output {name!r} has no row for each",
                    rows=[*self._shapes(self.arrays), (name, str(v.type))],
                )
            arrays[name] = np.zeros(shape, v.dtype.numpy)
        return arrays

    def _shapes(self, arrays: Mapping[str, Array]) -> list[Row]:
        return [(name, describe(x.dtype, x.shape)) for name, x in arrays.items()]

    def _checked_sizes(self, arrays: Mapping[str, Array]) -> Sizes:
        """The sizes of a batch; those of the last one, which may be smaller, are checked too."""
        batch_sizes = [
            self.sizes(
                {n: (rows, *x.shape[1:]) if self._is_cut(n) else x.shape for n, x in arrays.items()}
            )
            for rows in dict.fromkeys(
                (min(self.count, self.size), self.count % self.size or self.size)
            )
        ]
        return batch_sizes[0]

    @property
    def searched_data(self) -> str:
        """Which data `infinite` searches."""
        return "data" if self.arrays is not None else "data of this batch and the one before"

    def infinite(self) -> list[Row]:
        """Where the data hold infinities, for the error of a loss that is not finite: in all of
        them, or in the last two batches, as an infinity may pass an activation, spoil a weight,
        and be noticed a step later. Raises `FeedError` where a batch holds NaN."""
        rows: list[Row] = []
        for batch in self._recent if self.arrays is None else [self.arrays]:
            self.check_numbers(batch)
            for name, array in batch.items():
                infinities = find_elements(name, array, np.isinf)
                if infinities is not None:
                    count, first = infinities
                    rows.append((f"input {name!r}", f"{count} infinite", f"first {first}"))
        return rows

    def check_numbers(self, arrays: Batch) -> None:
        """Raises `FeedError` where one of the arrays holds NaN and its input must not."""
        for name, array in arrays.items():
            if name in self.numbers:
                check_numbers(name, array)

    def _required(self, batch: Batch) -> dict[str, Any]:
        """The data of `ports`, without other inputs of the model. Raises `FeedError` for a name
        that is not an input of it."""
        for name in batch:
            if name not in self.model.inputs:
                raise FeedError(
                    f"model {self.model.name} has no input {name!r}",
                    rows=[("input", n, str(v.type)) for n, v in self.model.inputs.items()],
                    hint=did_you_mean(name, self.model.inputs),
                )
        names = {port.name for port in self.ports}
        return {name: x for name, x in batch.items() if name in names}


def find_elements(
    name: str, array: Array, kind: Callable[[Array], Array]
) -> tuple[str, str] | None:
    """How many numbers `kind` (np.isnan, np.isinf) is true of, `3 of 1,000`, and the index of the
    first, `x[7, 1]`; None where there are none."""
    indices = np.argwhere(kind(array)) if is_real(array.dtype) else np.empty(0)
    if not len(indices):
        return None
    first = f"{name}[{', '.join(map(str, indices[0]))}]"
    return f"{len(indices):,} of {array.size:,}", first


def check_numbers(name: str, array: Array) -> None:
    """Raises `FeedError` where the array holds NaN, with the index of the first. Infinities are
    numbers (of a mask, say), and allowed."""
    # The minimum is NaN where anything is, and needs no memory.
    if not is_real(array.dtype) or array.size == 0:
        return
    with np.errstate(invalid="ignore"):
        if not np.isnan(array.min()):
            return
    nans = find_elements(name, array, np.isnan)
    assert nans is not None  # or the minimum would be a number
    raise FeedError(
        f"the data of input {name!r} hold NaN: {nans[0]} numbers",
        rows=[("first at", nans[1])],
        hint="remove those examples, or fill them: np.nan_to_num(…); a model that fills them "
        f"itself declares {name}=f32[…].may_be_nan()",
    )
