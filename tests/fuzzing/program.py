"""Random programs: what they are, and the place where one is put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise import mod, sigmoid
from nncompile.ir.dims import Dim, substitute, symbol, symbols
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.precision import DOUBLE, in_types
from nncompile.ir.types import DType, TupleType, Type, boolean, f32, i64, is_real, u32
from nncompile.ops import broadcast_to, cast, mean, pad, reshape
from nncompile.ops import sum as total
from tests.op_types import Feeds, Sizes, _symbols_within, draw, unpacked

T = TypeVar("T")

ORDER = {"main": (2, 3, 4, 5), "edge": (0, 1, 2)}  # sizes of names, in the two bindings
LARGEST = 8.0  # real values grow no larger; above, they are scaled down
ELEMENTS = 600  # of one array, at most
NAMES = ("n", "m")


@dataclass(frozen=True)
class Program:
    """A graph of random ops: its results, leaves, and data at several bindings of its sizes.

    `order` is how often it may be differentiated, `smooth` whether its gradients are its
    derivatives (some ops declare other ones), `special` whether the data of the last binding are
    special numbers.
    """

    outputs: tuple[Value, ...]
    inputs: tuple[Value, ...]
    sizes: tuple[Sizes, ...]
    feeds: tuple[Feeds, ...]
    order: int = 2
    smooth: bool = True
    seed: int = 0
    special: bool = False

    @property
    def graph(self) -> Graph:
        named = {f"y{i}": v for i, v in enumerate(self.outputs)}
        return Graph("program", named, self.inputs)

    @property
    def op_types(self) -> set[str]:
        """The names of the ops that it is made of."""
        return {type(v.op).__name__ for v in toposort(self.outputs)}

    def rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, purpose))


class Rejected(Exception):
    """What was drawn fits nothing: the step is left out."""


@dataclass
class Builder:
    """The values that a program has so far, with their arrays in each binding.

    `integer(low, high)` draws a number; 0 should be the simplest.
    """

    integer: Callable[[int, int], int]
    seed: int = 0
    values: list[Value] = field(default_factory=list)
    leaves: list[Value] = field(default_factory=list)
    sizes: tuple[Sizes, Sizes] = field(default_factory=lambda: ({}, {}))
    feeds: tuple[Feeds, Feeds] = field(default_factory=lambda: ({}, {}))
    order: int = 2
    smooth: bool = True
    made: set[sp.Symbol] = field(default_factory=set)  # sizes that depend on data
    _arrays: dict[Value, tuple[Any, Any]] = field(default_factory=dict)

    # What is drawn.

    def choose(self, among: Sequence[T]) -> T:
        if not among:
            raise Rejected
        return among[self.integer(0, len(among) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent

    def dim(self) -> Dim:
        return self.choose((2, 3, 1, *(self.name(s) for s in ("n", "n", "m"))))

    def name(self, text: str) -> sp.Symbol:
        """The size of that name, with a number in each binding."""
        name = symbol(text)
        if name not in self.sizes[0]:
            for sizes, key in zip(self.sizes, ORDER, strict=True):
                sizes[name] = self.choose(ORDER[key])
        return name

    # Values and their data.

    def leaf(self, type_: Type, sample: Sample | None = None) -> Value:
        """A new input, with data in the ranges of the sample."""
        drawn = sample or _PLAIN
        if type_.dtype is boolean or not sample:
            drawn = Sample(_PLAIN.op, (), (-3, 4) if type_.dtype is not u32 else (0, 9))
        for d in symbols(type_.shape):
            if d in self.made:
                raise Rejected  # no data have a size that a node makes
            self.name(str(d))
        self._check_size(type_)
        value = apply(Input(f"x{len(self.leaves)}", type_))
        rng = np.random.default_rng((self.seed, len(self.leaves)))
        for sizes, feeds in zip(self.sizes, self.feeds, strict=True):
            feeds[value.op.name] = draw(rng, drawn, type_, sizes)  # type: ignore[attr-defined]
        self.leaves.append(value)
        return value

    def arrays(self, value: Value) -> tuple[Any, Any]:
        """What a value is in each binding, in double."""
        for v in toposort([value]):
            if v in self._arrays:
                continue
            if isinstance(v.op, Input):
                name = v.op.name
                got = tuple(_wide(feeds[name]) for feeds in self.feeds)
            else:
                got = tuple(
                    self._computed(v, sizes, [self._arrays[a][i] for a in v.args])
                    for i, sizes in enumerate(self.sizes)
                )
            self._arrays[v] = got  # type: ignore[assignment]
        return self._arrays[value]

    def _computed(self, v: Value, sizes: Sizes, args: list[Any]) -> Any:
        types = v.type.items if isinstance(v.type, TupleType) else (v.type,)
        self.made |= set(v.op.makes)
        for t in types:
            for d in symbols(t.shape) - self.made:
                self.name(str(d))
            if not v.op.makes:
                self._check_size(t, sizes)
        try:
            with np.errstate(all="ignore"):
                result = in_types(v.op.at(sizes), DOUBLE).numpy(*args)
        except (ValueError, IndexError) as error:
            # numpy has no result for nothing: the largest of no numbers.
            if isinstance(error, IndexError) or re.search("zero-size|empty", str(error)):
                raise Rejected from None
            raise
        if isinstance(v.type, TupleType):
            return tuple(map(np.asarray, result))
        for size in v.op.makes:
            sizes[size] = np.shape(result)[v.shape.index(size)]
        return np.asarray(result)

    def _check_size(self, type_: Type, *bindings: Sizes) -> None:
        for sizes in bindings or self.sizes:
            shape = [substitute(d, sizes) for d in type_.shape]
            if not all(isinstance(d, int) and d >= 0 for d in shape):
                raise Rejected
            if int(np.prod(shape, dtype=np.int64)) > ELEMENTS:
                raise Rejected

    def add(self, value: Value) -> None:
        """Takes the results of a value into the program; large ones are scaled down."""
        for v in unpacked(value):
            arrays = self.arrays(v)
            if v.dtype.is_float:
                size = max(float(np.abs(a).max(initial=0)) for a in arrays)
                if not np.isfinite(size):
                    raise Rejected
                if size > LARGEST:
                    factor = 2.0 ** -int(np.ceil(np.log2(size / LARGEST)) + 1)
                    v = v * factor
                    self.arrays(v)
            if all(v is not x for x in self.values):
                self.values.append(v)

    # Arguments of ops.

    def found(self, accepts: Callable[[Value], bool]) -> Value:
        """One of the values so far."""
        return self.choose([v for v in reversed(self.values) if accepts(v)])

    def argument(self, type_: Type, sample: Sample) -> Value:
        """A value of that type: one of the program's, one made to fit, or a new leaf."""
        exact = [v for v in reversed(self.values) if v.type == type_]
        if exact and self.chance(60):
            return self.ranged(self.choose(exact), sample)
        if self.values and self.chance(50):
            try:
                return self.ranged(self.fitted(self.choose(self.values), type_), sample)
            except (Rejected, CompileError):
                pass
        return self.leaf(type_, sample)

    def fitted(self, v: Value, type_: Type) -> Value:
        """The value, summed, reshaped, cut or padded to that type."""
        if not v.dtype.is_float or not type_.dtype.is_float:
            raise Rejected
        if v.rank > type_.rank:
            v = total(v, tuple(range(v.rank - type_.rank)))
        if v.rank < type_.rank:
            v = reshape(v, (*[1] * (type_.rank - v.rank), *v.shape))
        missing = [b - a for a, b in zip(v.shape, type_.shape, strict=True)]
        if any(not isinstance(x, int | sp.Integer) for x in missing):
            v = broadcast_to(mean(v), type_.shape)
            missing = []
        if any(missing):
            v = pad(v, [(0, int(x)) for x in missing])
        return cast(v, type_.dtype)

    def ranged(self, v: Value, sample: Sample) -> Value:
        """The value moved into the range that the sample's op is tested in."""
        arrays = [a for a in self.arrays(v) if a.size]
        if v.dtype.is_float and arrays:
            low, high = sample.floats
            if sample.distinct and any(_gap(a) < 1e-2 for a in arrays):
                raise Rejected
            wide = LARGEST if (low, high) == (-2.0, 2.0) else 0.0
            inside = (low - wide, high + wide)
            if any(a.min() < inside[0] or a.max() > inside[1] for a in arrays):
                return sigmoid(v) * (high - low) + low  # type: ignore[no-any-return]
        if v.dtype.is_integer and arrays:
            first, last = sample.integers
            if any(a.min() < first or a.max() >= last for a in arrays):
                if v.dtype is u32 or v.dtype is not i64 or last - first > 1000:
                    raise Rejected
                return mod(v, last - first) + first  # type: ignore[no-any-return]
        return v

    def type_of(self, dtypes: Iterable[DType], least: int = 0) -> Type:
        """A random type, mostly of f32."""
        known = list(dtypes)
        dtype = f32 if f32 in known and self.chance(70) else self.choose(known)
        rank = self.integer(least, 4)
        return dtype[tuple(self.dim() for _ in range(rank))]

    def any_of(self, dtypes: Iterable[DType], least: int, sample: Sample) -> Value:
        """A value of one of the element types with at least so many axes."""
        known = set(dtypes)
        fit = [v for v in reversed(self.values) if v.dtype in known and v.rank >= least]
        if fit and self.chance(80):
            try:
                return self.ranged(self.choose(fit), sample)
            except Rejected:
                pass
        return self.leaf(self.type_of(sorted(known, key=str), least), sample)

    # The end.

    def finished(self) -> Program:
        """The program of all values that nothing else uses."""
        used = {a for v in toposort(self.values) for a in v.args}
        outputs = tuple(v for v in self.values if v not in used and not isinstance(v.op, Input))
        outputs = outputs or tuple(self.values[-1:])
        needed = set(toposort(outputs))
        leaves = [x for x in self.leaves if x in needed]
        have = {d for x in leaves for d in x.shape if isinstance(d, sp.Symbol)}
        wanted = _names_in(outputs)
        carriers = []
        for s in sorted(wanted - have - self.made, key=str):
            carrier = apply(Input(f"size_{s}", f32[s]))
            carriers.append(carrier)
            for sizes, feeds in zip(self.sizes, self.feeds, strict=True):
                self.name(str(s))
                feeds[carrier.op.name] = np.zeros(sizes[s], np.float32)  # type: ignore[attr-defined]
        inputs = (*leaves, *carriers)
        kept = [x.op.name for x in inputs]  # type: ignore[attr-defined]
        return Program(
            outputs,
            inputs,
            tuple({s: d for s, d in sizes.items() if s in wanted | have} for sizes in self.sizes),
            tuple({name: feeds[name] for name in kept} for feeds in self.feeds),
            self.order,
            self.smooth,
            self.seed,
        )


def _names_in(outputs: Sequence[Value]) -> set[sp.Symbol]:
    """The names of sizes in the types and fields of all nodes."""
    from_types: set[sp.Symbol] = set()
    for v in toposort(outputs):
        types = v.type.items if isinstance(v.type, TupleType) else (v.type,)
        from_types |= symbols(d for t in types for d in t.shape)
        for x in v.op.attributes.values():
            from_types |= _symbols_within(x)
    return from_types


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if is_real(array.dtype) else array


def _gap(array: np.ndarray) -> float:
    """How near two elements come."""
    return float(np.diff(np.sort(array.reshape(-1))).min(initial=np.inf))


class _Nothing(Op):
    """Stands in a sample that is of ranges alone."""


del Op.registry[_Nothing.__module__, _Nothing.__qualname__]
_PLAIN = Sample(_Nothing(), ())
