"""Tensors of several processes, reduced together as their rules say.

Long tensors of float32 lie in one vector, those of one weight side by side, and short ones beside
them in double precision: a step reduces two vectors, whatever its number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncompile.ir.types import Array
from nncompile.parallel.group import Group
from nncompile.parallel.layout import Layout
from nncompile.parallel.vectors import LINE, Vector, aligned, multiply, vector_of
from nncompile.program.reductions import Reduction
from nncompile.program.update_sections import Section
from nncompile.runtime.feeds import Port

_SHORT = 64  # elements up to which a tensor is reduced in double precision
_LINE = LINE // 4  # float32 in a line of the cache, at which tensors begin


@dataclass
class _Tensor:
    port: Port
    rule: Reduction
    view: Array  # its part of the vector that is reduced

    @property
    def is_direct(self) -> bool:
        """Whether it is computed where it is reduced."""
        return self.view.dtype == self.port.dtype

    def result(self, rows: slice | None = None) -> Array:
        """The reduced tensor, or some rows of it, in its own type."""
        view = self.view if rows is None else self.view[rows]
        return view if self.is_direct else view.astype(self.port.dtype)


@dataclass
class _Bucket:
    """Long tensors side by side, which are reduced together; `bounds` are those of the parts that
    processes own, where they do not take all of it."""

    vector: Vector
    names: list[str]
    bounds: list[int] | None = None

    def reduce(self, factors: Sequence[float]) -> None:
        """Adds up what processes have, times their factors."""
        if self.bounds is None:
            self.vector.sum(factors)
        else:
            self.vector.scatter(factors, self.bounds)


@dataclass
class _Early:
    """Long tensors side by side, whose reduction is begun before others are there."""

    vector: Array
    names: list[str]
    wait: Callable[[], None] | None = None


@dataclass
class Reducing:
    """Reduces tensors of those types by these rules, in the order of `first`, then of the others.
    Those that are `weighted` are given times their weight. Of the tensors of `sections` each
    process gets the rows that it owns. The long ones of `early` are reduced from where `begin` says
    that they are there."""

    group: Group
    rules: Mapping[str, Reduction]
    ports: Sequence[Port]
    first: Iterable[str] = ()
    weighted: Collection[str] = ()
    sections: Sequence[Section] = ()
    early: Sequence[Sequence[str]] = ()
    _tensors: dict[str, _Tensor] = field(init=False, default_factory=dict)
    _apart: dict[str, Array] = field(init=False, default_factory=dict)
    _rows: dict[str, Port] = field(init=False, default_factory=dict)
    _owned: dict[str, slice | None] = field(init=False, default_factory=dict)
    _buckets: list[_Bucket] = field(init=False, default_factory=list)
    _early: list[_Early] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        ports = {port.name: port for port in self.ports if port.name in self.rules}
        order = dict.fromkeys([n for n in self.first if n in ports] + list(ports))
        weights = [self.rules[n].weight or "" for n in order]
        by_weight = sorted(zip(weights, order, strict=True), key=lambda x: weights.index(x[0]))
        long, short = list[Port](), list[Port]()
        for _, name in by_weight:
            port, kind = ports[name], self.rules[name].kind
            if kind == "concatenate":
                self._rows[name] = port
            elif kind == "max":
                self._apart[name] = np.zeros(_shape(port), port.dtype)
            else:
                (long if is_long(port) else short).append(port)
        lengths = {port.name: _length(port) for port in long}
        for section in self.sections:
            self._own(section)
            layout = Layout(section, lengths, _LINE)
            self._place(layout.starts, layout.count, ports, layout.bounds)
        for names in self.early:
            starts, count = _placed({n: lengths[n] for n in names if n in lengths})
            vector = aligned(count, np.dtype(np.float32))
            for name, start in starts.items():
                self._enter(ports[name], vector[start : start + lengths[name]])
            self._early.append(_Early(vector, list(starts)))
        starts, count = _placed({n: x for n, x in lengths.items() if n not in self._tensors})
        self._place(starts, count, ports)
        self._short = aligned(sum(map(_length, short)), np.dtype(np.float64))
        end = 0
        for port in short:
            start, end = end, end + _length(port)
            self._enter(port, self._short[start:end])
        self._are_short = [port.name for port in short]

    def _own(self, section: Section) -> None:
        """Notes which rows of the tensors of a section are this process's: None of what others
        have, all of what is not cut."""
        for component in section.components:
            self._owned |= dict.fromkeys(component.handed)
        for component, first, last in section.spans(self.group.rank):
            rows = slice(first, last) if component.rows else slice(None)
            self._owned |= dict.fromkeys(component.handed, rows)

    def _place(
        self,
        starts: Mapping[str, int],
        count: int,
        ports: Mapping[str, Port],
        bounds: list[int] | None = None,
    ) -> None:
        """A bucket of tensors that begin there."""
        if not starts:
            return
        stops = [*list(starts.values())[1:], count]
        vector = vector_of(self.group, count, np.float32, stops)
        for name, start in starts.items():
            self._enter(ports[name], vector.array[start : start + _length(ports[name])])
        self._buckets.append(_Bucket(vector, list(starts), bounds))

    def _enter(self, port: Port, part: Array) -> None:
        view = part.reshape(_shape(port))
        self._tensors[port.name] = _Tensor(port, self.rules[port.name], view)

    @property
    def direct(self) -> dict[str, Array]:
        """Where tensors are to be computed: they need not be given to `reduced`."""
        return {name: t.view for name, t in self._tensors.items() if t.is_direct}

    def names_of(self, number: int) -> Sequence[str]:
        """Which of the early tensors of that number there are."""
        return self._early[number].names

    def begin(self, number: int, given: Mapping[str, Array] | None) -> None:
        """Begins to reduce those early tensors; what is not computed in place is `given`, or None
        by a process without rows. Means are multiplied by their weight, which is given, too."""
        early = self._early[number]
        for name in early.names:
            tensor = self._tensors[name]
            weight = tensor.rule.weight if tensor.rule.kind == "mean" else None
            if given is None:
                tensor.view[...] = 0
                continue
            if not tensor.is_direct:
                tensor.view[...] = given[name]
            if weight is not None and name not in self.weighted:
                multiply(tensor.view, float(given[weight]))
        early.wait = self.group.begin_sum(early.vector)

    def _end(self, totals: Mapping[str, float]) -> None:
        """Waits for what was begun, and divides means by the weights of all."""
        for early in self._early:
            assert early.wait is not None
            early.wait()
            ones = dict.fromkeys(totals, 1.0)
            for name in early.names:
                factor = self._factor(name, ones, totals, self.group.size)
                multiply(self._tensors[name].view, factor)

    def reduced(
        self, given: Mapping[str, Array] | None, old: Callable[[str], Array]
    ) -> dict[str, Array]:
        """The tensors of all processes, of those of sections the rows that are owned; None is given
        by one without rows, which counts nothing. What is not computed in place is `given`, and
        `old` gives the states that changes are added to."""
        begun = {name for early in self._early for name in early.names}
        for name, tensor in self._tensors.items():
            if name in begun:
                continue
            if given is None:
                tensor.view[...] = 0
            elif not tensor.is_direct:
                tensor.view[...] = given[name]
            if given is not None and tensor.rule.kind == "change":
                tensor.view[...] -= old(name)
        own = self._weights()
        for name in self._are_short:
            multiply(self._tensors[name].view, self._factor(name, own, dict.fromkeys(own, 1.0), 1))
        if len(self._short):
            self.group.allreduce(self._short)
        # The weights of all are among the short ones: long ones are multiplied once.
        totals = {name: total or 1.0 for name, total in self._weights().items()}
        ones, size = dict.fromkeys(own, 1.0), self.group.size
        for name in self._are_short:
            multiply(self._tensors[name].view, self._factor(name, ones, totals, size))
        for bucket in self._buckets:
            bucket.reduce([self._factor(name, own, totals, size) for name in bucket.names])
        self._end(totals)
        for name, tensor in self._tensors.items():
            if tensor.rule.kind == "change":
                tensor.view[...] += old(name)
        return self.present() | self._reduced_apart(given)

    def present(self) -> dict[str, Array]:
        """What stands where tensors are reduced, of those of sections the rows that are owned."""
        return {name: self._result(name) for name in self._tensors if self._is_here(name)}

    def _is_here(self, name: str) -> bool:
        return self._owned.get(name, slice(None)) is not None

    def _result(self, name: str) -> Array:
        return self._tensors[name].result(self._owned.get(name))

    def _weights(self) -> dict[str, float]:
        names = {t.rule.weight for t in self._tensors.values() if t.rule.weight}
        return {name: float(self._tensors[name].view) for name in names}

    def _factor(
        self, name: str, weights: Mapping[str, float], totals: Mapping[str, float], size: int
    ) -> float:
        """What a tensor is multiplied by: of a mean its weight by that of all, or one by the number
        of the processes where all weigh the same."""
        rule = self._tensors[name].rule
        if rule.kind != "mean":
            return 1.0
        share = 1.0 if rule.weight is None or name in self.weighted else weights[rule.weight]
        return share / (size if rule.weight is None else totals[rule.weight])

    def _reduced_apart(self, given: Mapping[str, Array] | None) -> dict[str, Array]:
        for name, array in self._apart.items():
            array[...] = _least(array.dtype) if given is None else given[name]
            self.group.allreduce(array, operation="max")
        results = {name: array.copy() for name, array in self._apart.items()}
        for name, port in self._rows.items():
            rows = np.zeros((0, *_shape(port)[1:]), port.dtype) if given is None else given[name]
            results[name] = self._concatenated(np.ascontiguousarray(rows))
        return results

    def _concatenated(self, rows: Array) -> Array:
        """The rows of all processes, which may have different numbers of them."""
        counts = self.group.allgather(np.array([len(rows)], np.int64))
        padded = np.zeros((int(counts.max()), *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        every = self.group.allgather(padded).reshape(len(counts), *padded.shape)
        return np.concatenate([part[:n] for part, n in zip(every, counts, strict=True)])


def is_long(port: Port) -> bool:
    """Whether a tensor is reduced in a vector of float32."""
    is_float32 = port.dtype.kind not in "iub" and port.dtype.itemsize <= 4
    return is_float32 and _length(port) > _SHORT


def _placed(lengths: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Where tensors begin that lie one after the other, and the end."""
    starts, count = {}, 0
    for name, length in lengths.items():
        starts[name] = count
        count += -(-length // _LINE) * _LINE
    return starts, count


def _length(port: Port) -> int:
    return int(np.prod(_shape(port)))


def _shape(port: Port) -> tuple[int, ...]:
    """The shape, of which only a first axis of rows is not known."""
    return tuple(n if isinstance(n, int) else 0 for n in port.shape)


def _least(dtype: np.dtype[Any]) -> Any:
    return False if dtype.kind == "b" else np.iinfo(dtype).min
