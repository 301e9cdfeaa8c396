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
from nncompile.program.reductions import Reduction
from nncompile.runtime.feeds import Port

_SHORT = 64  # elements up to which a tensor is reduced in double precision
_LINE = 16  # float32 in a line of the cache, at which tensors begin


@dataclass
class _Tensor:
    port: Port
    rule: Reduction
    view: Array  # its part of the vector that is reduced

    @property
    def is_direct(self) -> bool:
        """Whether it is computed where it is reduced."""
        return self.view.dtype == self.port.dtype

    def result(self) -> Array:
        """The reduced tensor, in its own type."""
        return self.view if self.is_direct else self.view.astype(self.port.dtype)


@dataclass
class Reducing:
    """Reduces tensors of those types by these rules, in the order of `first`, then of the others.
    Those that are `weighted` are given times their weight."""

    group: Group
    rules: Mapping[str, Reduction]
    ports: Sequence[Port]
    first: Iterable[str] = ()
    weighted: Collection[str] = ()
    _tensors: dict[str, _Tensor] = field(init=False, default_factory=dict)
    _apart: dict[str, Array] = field(init=False, default_factory=dict)
    _rows: dict[str, Port] = field(init=False, default_factory=dict)

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
                (long if _is_long(port) else short).append(port)
        self._long = self._placed(long, np.float32, _LINE)
        self._short = self._placed(short, np.float64, 1)
        self._are_long, self._are_short = ([p.name for p in x] for x in (long, short))

    def _placed(self, ports: Sequence[Port], dtype: Any, line: int) -> Array:
        sizes = [-(-int(np.prod(_shape(port))) // line) * line for port in ports]
        starts = np.cumsum([0, *sizes])
        vector = _aligned(int(starts[-1]), np.dtype(dtype))
        for port, start in zip(ports, starts[:-1], strict=True):
            shape = _shape(port)
            view = vector[start : start + int(np.prod(shape))].reshape(shape)
            self._tensors[port.name] = _Tensor(port, self.rules[port.name], view)
        return vector

    @property
    def direct(self) -> dict[str, Array]:
        """Where tensors are to be computed: they need not be given to `reduced`."""
        return {name: t.view for name, t in self._tensors.items() if t.is_direct}

    def reduced(
        self, given: Mapping[str, Array] | None, old: Callable[[str], Array]
    ) -> dict[str, Array]:
        """The tensors of all processes; None is given by one without rows, which counts nothing.
        What is not computed in place is `given`, and `old` gives the states that changes are added
        to."""
        for name, tensor in self._tensors.items():
            if given is None:
                tensor.view[...] = 0
            elif not tensor.is_direct:
                tensor.view[...] = given[name]
            if given is not None and tensor.rule.kind == "change":
                tensor.view[...] -= old(name)
        own = self._weights()
        self._scale(self._are_short, own, dict.fromkeys(own, 1.0), 1)
        self.group.allreduce(self._short)
        # The weights of all are among the short ones: long ones are multiplied once.
        totals = {name: total or 1.0 for name, total in self._weights().items()}
        self._scale(self._are_short, dict.fromkeys(own, 1.0), totals, self.group.size)
        self._scale(self._are_long, own, totals, self.group.size)
        self.group.allreduce(self._long)
        for name, tensor in self._tensors.items():
            if tensor.rule.kind == "change":
                tensor.view[...] += old(name)
        results = {name: tensor.result() for name, tensor in self._tensors.items()}
        return results | self._reduced_apart(given)

    def _weights(self) -> dict[str, float]:
        names = {t.rule.weight for t in self._tensors.values() if t.rule.weight}
        return {name: float(self._tensors[name].view) for name in names}

    def _scale(
        self,
        names: Iterable[str],
        weights: Mapping[str, float],
        totals: Mapping[str, float],
        size: int,
    ) -> None:
        """Multiplies means by their weight, and divides them by that of all; by the number of the
        processes where all weigh the same."""
        for name in names:
            tensor = self._tensors[name]
            if tensor.rule.kind != "mean":
                continue
            weight = tensor.rule.weight
            share = 1.0 if weight is None or name in self.weighted else weights[weight]
            factor = share / (size if weight is None else totals[weight])
            if not factor:  # a mean of nothing is NaN
                tensor.view[...] = 0
            elif factor != 1.0:
                np.multiply(tensor.view, factor, out=tensor.view)

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


def _is_long(port: Port) -> bool:
    is_float32 = port.dtype.kind not in "iub" and port.dtype.itemsize <= 4
    return is_float32 and int(np.prod(_shape(port))) > _SHORT


def _shape(port: Port) -> tuple[int, ...]:
    """The shape, of which only a first axis of rows is not known."""
    return tuple(n if isinstance(n, int) else 0 for n in port.shape)


def _least(dtype: np.dtype[Any]) -> Any:
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def _aligned(count: int, dtype: np.dtype[Any]) -> Array:
    """Zeros that begin at a line of the cache."""
    line = 4 * _LINE
    memory = np.zeros(count * dtype.itemsize + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + count * dtype.itemsize].view(dtype)
