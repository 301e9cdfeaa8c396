"""Data in batches: of whatever kind they come, checked against the inputs of the model."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from nncompile.diagnostics.errors import FeedError, Row, whole_number
from nncompile.diagnostics.printable import element
from nncompile.ir.dims import substitute, symbols
from nncompile.ir.graph import input_of
from nncompile.ir.op import Value
from nncompile.ir.types import Array, is_real
from nncompile.program.model import Model
from nncompile.program.shape_check import SizeCheck, Sizes
from nncompile.program.weighted_losses import WEIGHTS
from nncompile.runtime.cuda.pinned import Place
from nncompile.runtime.feeds import Port, check_names, check_sizes
from nncompile.train.indices import RangeCheck
from nncompile.train.sources.arrays import rows_of
from nncompile.train.sources.batches import Order, Prefetched, Source, is_made_by_python, source_of
from nncompile.train.sources.casting import Cast, cast_to
from nncompile.train.sources.files import read_table
from nncompile.train.sources.naming import Naming, is_numbers, is_whole
from nncompile.train.sources.notes import Notes
from nncompile.train.sources.tables import is_table
from nncompile.train.sources.whole import WholeData, fitted, in_memory

Batch = Mapping[str, Any]
Data = Any
"""Arrays of all examples, which are shuffled and cut into batches: a dict by the names of inputs, a
table with named columns, a tuple in the order of the inputs, a file of a table; or batches of any
of these: a list, a loader, a sequence, a function that returns an iterable for each epoch."""
Weigh = Callable[[dict[str, Any]], dict[str, Any]]
"""Adds the weights of examples to what is fed."""

PREFETCHED = 2  # batches that a thread makes ahead


class _Plan(NamedTuple):
    """What is done with batches of the same names, element types and shapes."""

    converts: tuple[tuple[str, Callable[[Any], Array]], ...]  # nothing where they are fed as is
    sizes: Sizes
    ranges: Callable[[Mapping[str, Array]], None]


class Feeder:
    """Gives batches of `data` (and of the targets `y`, where these are apart) for the inputs
    `ports` of the model.

    Arrays are cut along the first axis of those inputs whose first size is the batch: the first
    symbolic one that an input begins with; every batch gets the other inputs uncut. Element types
    are converted batch by batch (see `cast_to`). `weigh` adds the weights of examples. Batches that
    Python makes are made by a thread, `prefetch` of them ahead; `buffer` is that of `Batches`.
    That `literal` numbers, as in a table, are rounded is not noted.

    Raises `FeedError` for data that do not fit, for sizes at which `sizes` rejects the model, for
    numbers out of range (labels and tokens that are not an index of what they address, lengths
    beyond the end), and for arrays that hold NaN where the model does not declare it.
    """

    def __init__(
        self,
        data: Data,
        model: Model,
        ports: Sequence[Port],
        size: int,
        sizes: SizeCheck,
        may_be_empty: bool = False,
        y: Any = None,
        naming: Naming | None = None,
        notes: Notes | None = None,
        weigh: Weigh | None = None,
        prefetch: int = PREFETCHED,
        buffer: int = 0,
        literal: bool = False,
    ) -> None:
        self.model = model
        # In the order of the model's inputs, which is that of the parts of a tuple.
        by_name = {port.name: port for port in ports}
        self.ports = tuple(by_name[name] for name in model.inputs if name in by_name)
        self.size = whole_number("batch_size", size, 1)
        self.axis = model.examples
        self.sizes = sizes
        self.ranges = RangeCheck(sizes.graph, self.axis)
        self.notes = Notes() if notes is None else notes
        self.naming = Naming(model, self.notes) if naming is None else naming
        self.whole: WholeData | None = None
        # The inputs whose data are refused where they hold NaN.
        self.numbers = {n for n, v in model.inputs.items() if not input_of(v).may_be_nan}
        self._cut = model.cut
        self._weigh = weigh
        self._plans: dict[Any, _Plan] = {}
        self._placed: dict[int, tuple[str, ...]] = {}  # the names of a tuple of so many arrays
        self._recent: deque[Batch] = deque(maxlen=2)
        self._prefetch = whole_number("prefetch", prefetch, 0)
        if isinstance(data, str | os.PathLike):
            data = read_table(data)
        self._literal = literal or is_table(data)  # nobody chose the float64 of columns
        if is_whole(data) or is_numbers(data):
            self._take(self._named(data, y), may_be_empty)
        elif y is not None:
            raise FeedError(
                f"y stands beside batches ({type(data).__name__}), each of which has its own",
                hint="let the batches be (x, y), or dicts: " + self._written(),
            )
        else:
            self.source: Source = source_of(data, buffer)

    @property
    def count(self) -> int:
        """The number of examples. Needs whole data."""
        assert self.whole is not None
        return self.whole.count

    def _take(self, feeds: Mapping[str, Any], may_be_empty: bool) -> None:
        """Checks arrays of all examples."""
        check_names(self.ports, feeds, self._written())
        rows = {p.name: fitted(p, rows_of(p.name, feeds[p.name])) for p in self.ports}
        casts: dict[str, Cast | None] = {
            p.name: cast_to(p, rows[p.name], self.notes, self._literal or is_numbers(feeds[p.name]))
            for p in self.ports
        }
        check_sizes(self.ports, rows)
        whole = self.whole = WholeData(rows, set(self._cut), casts, self.size)
        if whole.count == 0 and not may_be_empty:
            raise FeedError("the data have no examples", rows=whole.described())
        sizes, *_ = [self.sizes(shapes) for shapes in whole.batch_shapes()]
        for first, arrays in whole.blocks():
            self.check_numbers(arrays, first)
            self.ranges(arrays, sizes, unbatched=True, first=first)

    def epoch(
        self, order: Order = None, skip: int = 0, limit: int | None = None
    ) -> Generator[Batch]:
        """The batches of one epoch, without the first `skip`. Arrays are in the random order that
        the numbers `order` (seed and epoch) determine, or as they are; a last batch may be
        smaller. No more than `limit` batches are made. To be closed where it is not read to its
        end."""
        if self.whole is not None:
            yield from self.whole.epoch(order, skip)
            return
        if self._prefetch and is_made_by_python(self.source):
            batches: Iterator[Any] = Prefetched(self.source, self._prefetch).epoch(
                order, skip, limit
            )
        else:
            batches = islice(self.source.epoch(order, skip), limit)
        try:
            for batch in batches:
                yield self._checked(batch)
        finally:
            if isinstance(batches, Generator):  # a thread ends with it
                batches.close()

    def gather_into(self, place: Place | None) -> None:
        """Gathers batches of whole data there from now on."""
        if self.whole is not None:
            self.whole.place = place

    @property
    def batch_count(self) -> int | None:
        """The number of batches in an epoch; None where only reading them tells."""
        if self.whole is not None:
            return -(-self.count // self.size)
        data = getattr(self.source, "data", self.source)
        try:
            return len(data) if isinstance(data, Sized) else None
        except TypeError:  # a loader of torch that iterates over something has a length by name
            return None

    def identity(self, order: tuple[int, int] | None) -> dict[str, Any]:
        """What the batches of an epoch are cut from, and in which order, as far as it is known:
        an epoch that was begun on it is finished on the same."""
        if self.whole is None:
            count = self.batch_count
            return {} if count is None else {"batches": count}
        shuffled = {"shuffle": False} if order is None else {"shuffle": True, "seed": order[0]}
        return {"batch_size": self.size, "examples": self.count, **shuffled}

    def examples(self, batch: Batch) -> int:
        """The number of examples in a batch; one where the model has no batches."""
        for name in self._cut:
            x = batch.get(name)
            if x is not None:
                count: int = x.shape[0]
                return count
        return 1

    def halves(self, sample: Batch) -> list[dict[str, Any]]:
        """A batch as two."""
        middle = self.examples(sample) // 2
        return [
            {n: np.ascontiguousarray(x[span]) if n in self._cut else x for n, x in sample.items()}
            for span in (slice(0, middle), slice(middle, None))
        ]

    def _written(self) -> str:
        return "{" + ", ".join(f"{port.name!r}: ..." for port in self.ports) + "}"

    def _named(self, data: Any, y: Any = None) -> dict[str, Any]:
        """The feeds of the ports by name. Raises `FeedError` for other names."""
        feeds = self.naming.feeds(data, y, self.ports)
        self.naming.check_known(feeds)
        names = {port.name for port in self.ports}
        if self._weigh is not None:
            feeds = self._weigh(feeds)
        if WEIGHTS in names and WEIGHTS not in feeds:
            feeds[WEIGHTS] = self._ones(feeds)
        return {name: x for name, x in feeds.items() if name in names}

    def _ones(self, feeds: Mapping[str, Any]) -> Array:
        """The weights of examples that have none."""
        count = next((len(feeds[n]) for n in self._cut if n in feeds and n != WEIGHTS), 1)
        return np.ones(count, self.model.inputs[WEIGHTS].dtype.numpy)

    def _checked(self, batch: Any) -> Batch:
        """A batch in the declared types. What is the same for all batches of these types and
        shapes is checked for the first of them alone."""
        named = self._known(batch)
        plan = None if named is None else self._plans.get(_signature(named))
        if named is None or plan is None:
            named = self._named_batch(batch)
            signature = _signature(named)
            plan = self._plans.get(signature)
            if plan is None:
                plan = self._planned(named)
                if signature is not None:
                    self._plans[signature] = plan
        arrays = {name: convert(named[name]) for name, convert in plan.converts} or named
        plan.ranges(arrays)
        self._recent.append(arrays)
        return arrays

    def _known(self, batch: Any) -> dict[str, Any] | None:
        """The arrays of a batch by name, where it is like one before."""
        if self._weigh is not None:
            return None
        if type(batch) is dict:
            return batch
        names = self._placed.get(len(batch)) if type(batch) is tuple else None
        if names is None or not all(type(x) is np.ndarray for x in batch):
            return None
        return dict(zip(names, batch, strict=True))

    def _named_batch(self, batch: Any) -> dict[str, Any]:
        if not (is_whole(batch) or isinstance(batch, tuple | list)):
            raise FeedError(
                f"a batch must be a dict of arrays by input name, or a tuple of them in the order "
                f"of the inputs, got {type(batch).__name__}",
                rows=[("input", port.name, port.type) for port in self.ports],
                hint=self._written(),
            )
        named = self._named(batch)
        if type(batch) is tuple and [*map(id, named.values())] == [*map(id, batch)]:
            self._placed[len(batch)] = tuple(named)
        return named

    def _planned(self, named: Mapping[str, Any]) -> _Plan:
        """Checks the types and shapes of a batch, and says how others like it become arrays."""
        check_names(self.ports, named, self._written())
        converts = {p.name: self._converting(p, named[p.name]) for p in self.ports}
        arrays = {name: convert(named[name]) for name, convert in converts.items()}
        check_sizes(self.ports, arrays)
        sizes = self.sizes({name: x.shape for name, x in arrays.items()})
        as_is = len(named) == len(arrays) and all(arrays[n] is named[n] for n in arrays)
        ranges = self.ranges.prepared(arrays, sizes)
        return _Plan(() if as_is else tuple(converts.items()), sizes, ranges)

    def _converting(self, port: Port, x: Any) -> Callable[[Any], Array]:
        literal = is_numbers(x)

        def converted(x: Any) -> Array:
            rows = fitted(port, rows_of(port.name, x))
            array = in_memory(rows)
            cast = cast_to(port, array, self.notes, literal)
            return array if cast is None else cast(array, 0)

        return converted

    def empty_outputs(self, outputs: Mapping[str, Value]) -> dict[str, Array]:
        """The `outputs` of a model for data without examples: arrays of no rows. Raises `FeedError`
        where one of them has no row for each example."""
        assert self.whole is not None
        sizes = self.sizes(self.whole.shapes)
        arrays = {}
        for name, v in outputs.items():
            shape = [substitute(d, sizes) for d in v.shape]
            if symbols(shape) or not symbols(v.shape) & symbols([self.axis or 0]):
                raise FeedError(
                    f"the data have no examples, and output {name!r} has no row for each",
                    rows=[*self.whole.described(), (name, str(v.type))],
                )
            arrays[name] = np.zeros(shape, v.dtype.numpy)
        return arrays

    @property
    def searched_data(self) -> str:
        """Which data `infinite` searches."""
        return "data" if self.whole is not None else "data of this batch and the one before"

    def infinite(self, batches: Sequence[Batch] | None = None) -> list[Row]:
        """Where the data hold infinities, for the error of a loss that is not finite: in all of
        them, or in the last two batches or these, as an infinity may pass an activation, spoil a
        weight, and be noticed a step later. Raises `FeedError` where a batch holds NaN."""
        found: dict[str, Row] = {}
        recent = [(0, b) for b in (self._recent if batches is None else batches)]
        parts = recent if self.whole is None else self.whole.blocks()
        for start, batch in parts:
            self.check_numbers(batch, start)
            for name, array in batch.items():
                infinities = find_elements(name, array, np.isinf, start)
                if infinities is not None and name not in found:
                    count, first = infinities
                    found[name] = (f"input {name!r}", f"{count} infinite", f"first {first}")
        return list(found.values())

    def check_numbers(self, arrays: Batch, first: int = 0) -> None:
        """Raises `FeedError` where one of the arrays, which begin at that row of the data, holds
        NaN and its input must not."""
        for name, array in arrays.items():
            if name in self.numbers:
                check_numbers(name, array, first)


def _signature(batch: Mapping[str, Any]) -> Any:
    """What batches share that are treated alike; None where arrays are not known by their types."""
    try:
        return tuple([(name, type(x), x.dtype, x.shape) for name, x in batch.items()])
    except AttributeError:
        return None


def find_elements(
    name: str, array: Array, kind: Callable[[Array], Array], start: int = 0
) -> tuple[str, str] | None:
    """How many numbers `kind` (np.isnan, np.isinf) is true of, `3 of 1,000`, and the index of the
    first, `x[7, 1]`; None where there are none. The array begins at row `start` of the data."""
    indices = np.argwhere(kind(array)) if is_real(array.dtype) else np.empty(0)
    if not len(indices):
        return None
    index = [int(i) for i in indices[0]]
    if index:
        index[0] += start
    return f"{len(indices):,} of {array.size:,}", element(name, index)


def check_numbers(name: str, array: Array, start: int = 0) -> None:
    """Raises `FeedError` where the array holds NaN, with the index of the first. Infinities are
    numbers (of a mask, say), and allowed."""
    # The minimum is NaN where anything is, and needs no memory.
    if not is_real(array.dtype) or array.size == 0:
        return
    with np.errstate(invalid="ignore"):
        if not np.isnan(array.min()):
            return
    nans = find_elements(name, array, np.isnan, start)
    assert nans is not None  # or the minimum would be a number
    raise FeedError(
        f"the data of input {name!r} hold NaN: {nans[0]} numbers",
        rows=[("first at", nans[1])],
        hint="remove those examples, or fill them: np.nan_to_num(…); a model that fills them "
        f"itself declares {name}=f32[…].may_be_nan()",
    )
