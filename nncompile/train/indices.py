"""Inputs of integers with a range: labels and tokens, which index something, and what a model
claims of its inputs, such as lengths; and values computed of such inputs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import FeedError, Row
from nncompile.diagnostics.locations import Location
from nncompile.diagnostics.printable import element
from nncompile.elementwise.map import Map
from nncompile.ir.basic import Cast, Constant, SizeOf
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import Dim, dim, solve, substitute
from nncompile.ir.graph import Graph, Input, Item, input_of, toposort
from nncompile.ir.op import Op, Value
from nncompile.ir.precision import computed
from nncompile.ir.printer import expression
from nncompile.ir.types import Array, component_types
from nncompile.ops.core.assertions import AssertAtMost, AssertInRange, bounds_of
from nncompile.ops.core.counting import Iota
from nncompile.ops.reduction.cumulative import CumSum
from nncompile.ops.reduction.extremes import Max, Min
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.gathering import Gather, TakeAlongAxis
from nncompile.ops.shape.joining import Concat, Split
from nncompile.ops.shape.reshape import Reshape, Transpose
from nncompile.ops.shape.slicing import Pad, Slice
from nncompile.program.rows import Rowwise
from nncompile.program.shape_check import Sizes

_WHOLE = (Cast, Expand, AssertInRange, AssertAtMost, Reshape, Transpose)  # which keep all numbers
_MOVES = (*_WHOLE, Concat, Item, Slice, Split)  # which keep some
# What is computed of integers on the host, too: it costs little beside reading them.
_CHEAP: tuple[type[Op], ...] = (
    *_MOVES, Constant, CumSum, Gather, Iota, Map, Max, Min, Pad, SizeOf, Sum, TakeAlongAxis,
)  # fmt: skip


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high` (None: any), which may depend on the sizes of a batch. `claim`
    is the op that says so, at `location`; None where they index an axis. Where they `are_real` the
    range is that of the numbers, and otherwise that of their integer parts."""

    low: Dim
    high: Dim | None
    claim: AssertInRange | None = None
    location: Location | None = None
    are_real: bool = False

    def explain(self, example: Any, low: Dim, high: Dim | None) -> tuple[str, str]:
        """What is wrong with an `example` outside of the range, and a hint."""
        if self.claim is not None:
            hint = self.claim.hint.format(low=low, high=high)
            return f", {self.claim.what} {bounds_of(low, high)}", hint
        message = f": index {example} is out of range"
        if isinstance(high, int):
            message += f" for an axis of size {high + 1}"
        hint = "labels and tokens are counted from 0"
        if example < 0:
            hint += "; cross_entropy(…, ignore_index=-1) leaves examples out"
        return message, hint


class RangeCheck:
    """Checks the ranges of the integers of a graph that follow from data alone: indices, and
    what a model claims. `examples` is the size that data are cut along.

    They are the inputs themselves, or slices, joins, counts and integer formulas of them. Computing
    and checking them costs a few passes over the data.
    """

    def __init__(self, graph: Graph, examples: Dim | None) -> None:
        self._graph = graph
        self._examples = examples
        self._ranges: dict[Value, dict[tuple[Any, ...], Range]] = {}
        for v in graph.nodes:
            if v.op.indexes:
                axis: Any = v.op.attributes["axis"]
                value, size = v.args[1], v.args[0].shape[axis]
                allowed = Range(0, dim(size - 1))
            elif isinstance(v.op, AssertInRange):
                value, location = v.args[0], graph.locations.location(v)
                allowed = Range(v.op.low, v.op.high, v.op, location, v.dtype.is_float)
            else:
                continue
            key = allowed.low, allowed.high, allowed.claim
            self._ranges.setdefault(_source(value), {}).setdefault(key, allowed)
        order = toposort(self._ranges)
        self._from: dict[Value, frozenset[str]] = {}  # the inputs that are needed
        rows = Rowwise(examples)
        for v in order:
            if isinstance(v.op, Input):
                if v.op.kind == "input":
                    self._from[v] = frozenset([v.op.name])
            elif _is_cheap(v) and all(a in self._from for a in v.args):
                self._from[v] = frozenset[str]().union(*(self._from[a] for a in v.args))
        self._rowwise = {v for v in order if rows.is_known(v)}

    def __call__(
        self, arrays: Mapping[str, Array], sizes: Sizes, unbatched: bool = False, first: int = 0
    ) -> None:
        """Raises `FeedError` where arrays of these sizes give an index out of its range. Of
        `unbatched` data, which are cut into batches of these sizes and begin at the row `first`,
        only the values that each row determines alone are checked.

        Negative numbers are out of range too: in a label they mark an example without a class,
        and onnxruntime would count them from the end.
        """
        checked = self._checked(arrays, unbatched)
        data_sizes = self._solved(arrays) if unbatched and any(v.args for v in checked) else sizes
        inputs = ((v, v.op.name) for v in self._from if isinstance(v.op, Input))
        feeds = {v: arrays[name] for v, name in inputs if name in arrays}
        targets = set(checked)
        # Indices come before the values gathered at them.
        for v, array in _computed(checked, feeds, data_sizes):
            if v in targets:
                for allowed in self._ranges[v].values():
                    at = data_sizes if v.args else sizes
                    self._check(v, array, allowed, at, feeds, first)

    def prepared(
        self, arrays: Mapping[str, Array], sizes: Sizes
    ) -> Callable[[Mapping[str, Array]], None]:
        """The check of batches of the names, types and sizes of these arrays. Where they are
        themselves what has ranges, that costs their least and greatest numbers."""
        checked = self._checked(arrays, unbatched=False)
        if not checked:
            return _nothing
        bounds: list[tuple[str, Any, Any, str | None]] = []
        for v in checked:
            for allowed in self._ranges[v].values():
                low = _at_sizes(allowed.low, sizes)
                high = None if allowed.high is None else _at_sizes(allowed.high, sizes)
                numbers = isinstance(low, int) and (high is None or isinstance(high, int))
                if v.args or v.dtype.is_float or not numbers:
                    return lambda batch: self(batch, sizes)
                name = input_of(v).name
                bounds.append((name, low, high, _unsigned(arrays[name].dtype, low, high)))

        def check(batch: Mapping[str, Array]) -> None:
            for name, low, high, unsigned in bounds:
                if not _is_inside(batch[name], low, high, unsigned):
                    self(batch, sizes)  # which says what is wrong

        return check

    def _checked(self, arrays: Mapping[str, Array], unbatched: bool) -> list[Value]:
        """The values with ranges that the arrays tell."""
        return [
            v
            for v in self._ranges
            if self._from.get(v)
            and self._from[v] <= arrays.keys()
            and (not unbatched or v in self._rowwise)
        ]

    def _solved(self, arrays: Mapping[str, Array]) -> Sizes:
        leaves = {n: v for n, v in self._graph.leaves.items() if n in arrays}
        return solve([v.shape for v in leaves.values()], [arrays[n].shape for n in leaves])

    def _check(
        self,
        value: Value,
        array: Array,
        allowed: Range,
        sizes: Sizes,
        feeds: Mapping[Value, Array],
        first: int,
    ) -> None:
        if array.size == 0:
            return
        low = _at_sizes(allowed.low, sizes)
        high = None if allowed.high is None else _at_sizes(allowed.high, sizes)
        wrong = _outside(array, low, high, allowed.are_real)
        if not wrong.any():
            return
        position = tuple(np.argwhere(wrong)[0])
        example = array[position]
        rows: list[Row] = []
        origin = self._origin(value, position, feeds, sizes)
        if origin is None:
            text = expression(value, {a: _label(a) for a in value.args})
            inputs = (f"input {name!r}" for name in sorted(self._from[value]))
            subject = f"a value computed from {' and '.join(inputs)}"
            rows += [("computed", text), ("first at", element("", position))]
        else:
            name, position = origin
            leaf = self._graph.leaves[name]
            if position and leaf.shape[0] == self._examples:
                position = (position[0] + first, *position[1:])
            subject = f"input {name!r}"
            rows.append(("first at", element(name, position)))
        rows.append(("in all", f"{wrong.sum():,} of {array.size:,}"))
        for bound in (allowed.low, allowed.high):
            if isinstance(bound, sp.Expr):
                names = sorted(bound.free_symbols & sizes.keys(), key=str)
                rows += [("size", f"{s} = {sizes[s]}") for s in names]
        message, hint = allowed.explain(example, low, high)
        raise FeedError(
            f"{subject} holds {example}{message}",
            rows=rows,
            hint=hint or None,
            location=allowed.location
            or (self._graph.locations.location(value) if value.args else None),
        )

    def _origin(
        self, value: Value, position: tuple[int, ...], feeds: Mapping[Value, Array], sizes: Sizes
    ) -> tuple[str, tuple[int, ...]] | None:
        """The input that an element comes from, and its index there; None where it is computed."""
        order = toposort([value])
        leaves = [v for v in order if isinstance(v.op, Input)]
        if len(leaves) != 1 or not all(isinstance(v.op, (Input, *_MOVES)) for v in order):
            return None
        shape = feeds[leaves[0]].shape
        numbered = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
        arrays = dict(_computed([value], {leaves[0]: numbered}, sizes, keeping=Cast))
        return input_of(leaves[0]).name, np.unravel_index(arrays[value][position], shape)


def _outside(array: Array, low: Dim, high: Dim | None, are_real: bool) -> Array:
    """Which numbers lie outside of a range. Reals are compared themselves if they `are_real`, by
    their integer parts otherwise."""
    wrong = np.zeros(array.shape, bool)
    if isinstance(low, int) and not array.min() >= low:  # a minimum of NaN is none
        wrong |= array < low
    if isinstance(high, int) and are_real:
        if not array.max() <= high:
            wrong |= array > high
    elif isinstance(high, int) and array.max() >= high + 1:  # reals are cut off
        wrong |= array >= high + 1
    return wrong


def _nothing(batch: Mapping[str, Array]) -> None:
    """Where nothing has a range."""


def _unsigned(dtype: np.dtype[Any], low: int, high: int | None) -> str | None:
    """The type of the same bits without a sign, if a range of `dtype` is from 0 on: negative
    numbers are the greatest ones there, and one search does for both ends."""
    if low != 0 or high is None or dtype.kind != "i" or high > np.iinfo(dtype).max:
        return None
    return f"u{dtype.itemsize}"


def _is_inside(array: Array, low: int, high: int | None, unsigned: str | None) -> bool:
    """Whether integers lie within a range; see `_unsigned`."""
    if array.size == 0:
        return True
    if unsigned is not None:
        return bool(np.maximum.reduce(array.view(unsigned), None) <= high)
    return bool(array.min() >= low and (high is None or array.max() <= high))


def claimed(graph: Graph) -> dict[str, AssertInRange]:
    """The claims of a graph about its inputs as they are fed, by their names."""
    claims = {}
    for v in graph.nodes:
        if isinstance(v.op, AssertInRange):
            source = _source(v)
            if isinstance(source.op, Input):
                claims[source.op.name] = v.op
    return claims


def _source(v: Value) -> Value:
    """The value that all numbers of `v` are from."""
    while isinstance(v.op, _WHOLE):
        v = v.args[0]
    return v


def _is_cheap(v: Value) -> bool:
    """Whether it is computed here, too: numpy and every backend give the same where it is of
    integers, or what is only moved."""
    if not isinstance(v.op, _CHEAP):
        return False
    if isinstance(v.op, _MOVES):
        return True
    types = [t for x in (v, *v.args) for t in component_types(x.type)]
    return not any(t.dtype.is_float for t in types)


def _computed(
    values: Iterable[Value],
    feeds: Mapping[Value, Array],
    sizes: Sizes,
    keeping: type[Op] | tuple[()] = (),
) -> Iterator[tuple[Value, Any]]:
    """The arrays of values and of what they need at these sizes, arguments first, but of those
    that need other sizes. Ops of the class `keeping` leave their arguments as they are."""
    arrays: dict[Value, Any] = {}
    for v in toposort(values):
        if v in feeds:
            arrays[v] = feeds[v]
        elif all(a in arrays for a in v.args):
            op: Any = v.op.at(sizes)
            if isinstance(op, keeping):
                arrays[v] = arrays[v.args[0]]
            elif not any(isinstance(x, sp.Expr) for x in _sizes_of(op)):
                arrays[v] = computed(op, v.type, *(arrays[a] for a in v.args))
        if v in arrays:
            yield v, arrays[v]


def _sizes_of(op: Op) -> Iterable[Any]:
    if isinstance(op, Map):  # whose names are its arguments
        return
    for x in op.attributes.values():
        yield from x if isinstance(x, tuple) else (x,)


def _at_sizes(size: Dim, sizes: Sizes) -> Dim:
    return size if isinstance(size, int) else substitute(size, sizes)


def _label(v: Value) -> str:
    return v.op.name if isinstance(v.op, Input) else "…"
