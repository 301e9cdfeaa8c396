"""The samples of every op as test cases, with what they need: leaves, sizes, data."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import pkgutil
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import sympy as sp

import nncompile
from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.dims import dim, substitute, symbols
from nncompile.ir.graph import Graph, Input, Item
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.precision import computed, in_types, type_in
from nncompile.ir.types import (
    AnyType,
    DType,
    TupleType,
    Type,
    bf16,
    f16,
    f32,
    i8,
    i16,
    i64,
    u8,
    u16,
    u64,
)

Feeds = dict[str, np.ndarray]
Sizes = dict[sp.Symbol, int]

# They are the joints of a graph and have no meaning of their own.
STRUCTURAL = (Input, Item)


def import_all() -> None:
    """Imports every module, so that every op is registered; TorchScript's needs torch."""
    for module in pkgutil.walk_packages(nncompile.__path__, "nncompile."):
        if "torchscript" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def registered_ops() -> list[type[Op]]:
    """All ops of the compiler, by name."""
    import_all()
    ours = [c for (module, _), c in Op.registry.items() if module.startswith("nncompile.")]
    return sorted((c for c in ours if c not in STRUCTURAL), key=lambda c: c.__qualname__)


@dataclass(frozen=True)
class Case:
    """A sample of an op as a graph whose leaves are its arguments."""

    name: str
    sample: Sample

    @cached_property
    def leaves(self) -> tuple[Value, ...]:
        """The arguments."""
        return tuple(apply(Input(f"x{i}", t)) for i, t in enumerate(self.sample.types))

    @cached_property
    def value(self) -> Value:
        return apply(self.sample.op, *self.leaves)

    @cached_property
    def results(self) -> tuple[Value, ...]:
        return unpacked(self.value)

    @cached_property
    def names(self) -> list[sp.Symbol]:
        """The names of sizes in the arguments and in the op's own fields, without those that
        depend on data."""
        found = symbols(d for t in self.sample.types for d in t.shape)
        found |= _symbols_within(self.sample.op.key)
        return sorted(found - set(self.sample.op.makes), key=str)

    @cached_property
    def carriers(self) -> tuple[Value, ...]:
        """Leaves that carry the sizes which no argument has."""
        have = {d for t in self.sample.types for d in t.shape if isinstance(d, sp.Symbol)}
        return tuple(apply(Input(f"size_{s}", f32[s])) for s in self.names if s not in have)

    @property
    def inputs(self) -> tuple[Value, ...]:
        return (*self.leaves, *self.carriers)

    @cached_property
    def real(self) -> list[Value]:
        """The arguments that a gradient may be taken at."""
        return [x for x in self.leaves if x.dtype.is_float]

    @cached_property
    def first_order(self) -> tuple[list[Value], dict[Value, Type]]:
        """The gradients at the real arguments of Σ weight·result, and the leaves of the weights."""
        ys = [y for y in self.results if y.dtype.is_float]
        weights = {apply(Input(f"w{i}", y.type)): y.type for i, y in enumerate(ys)}
        return vjp(ys, self.real, list(weights)), weights

    @cached_property
    def second_order(self) -> tuple[list[Value], dict[Value, Type]]:
        """The gradients of Σ direction·gradient, and the leaves of the directions."""
        gradients, _ = self.first_order
        directions = {apply(Input(f"u{i}", g.type)): g.type for i, g in enumerate(gradients)}
        return vjp(gradients, self.real, list(directions)), directions

    def graph(self, outputs: tuple[Value, ...]) -> Graph:
        return Graph("op", {f"y{i}": y for i, y in enumerate(outputs)}, self.inputs)

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers that are the same in every run."""
        return np.random.default_rng(zlib.crc32(f"{self.name} {purpose}".encode()))

    def feeds(self, sizes: Mapping[sp.Symbol, int], purpose: str = "data") -> Feeds:
        """Data for the arguments, and for what carries sizes."""
        rng = self.rng(purpose)
        return {
            v.op.name: draw(rng, self.sample, v.type, sizes)  # type: ignore[attr-defined]
            for v in self.inputs
        }

    @cached_property
    def bindings(self) -> list[Sizes]:
        """Sizes to test with: distinct ones first, then others, then 1, then 0; without those
        that the sample does not allow, or that numpy has no result for."""
        if not self.names:
            return [{}]
        count = len(self.names)
        tried = [range(3, 3 + count), range(4 + count, 4, -1), [1] * count, [0] * count]
        bindings: list[Sizes] = [dict(zip(self.names, sizes, strict=True)) for sizes in tried]
        return bindings[:2] + [b for b in bindings[2:] if self._is_allowed(b)]

    def _is_allowed(self, sizes: Sizes) -> bool:
        shapes = [t.shape for t in self.sample.types] + [t.shape for t in parts(self.value.type)]
        given = {**dict.fromkeys(self.sample.op.makes, 0), **sizes}
        bound = [substitute(d, given) for d in itertools.chain(*shapes)]
        if not all(isinstance(d, int) and d >= 0 for d in bound):
            return False
        try:
            self.numpy(self.feeds(sizes), sizes)
        except (ValueError, IndexError) as error:
            if isinstance(error, IndexError) or re.search("zero-size|empty", str(error)):
                return False
            raise
        return True

    def numpy(self, feeds: Feeds, sizes: Mapping[sp.Symbol, int]) -> tuple[np.ndarray, ...]:
        """What the op says in numpy."""
        op = self.sample.op.at(sizes)
        with np.errstate(all="ignore"):
            arrays = [feeds[x.op.name].copy() for x in self.leaves]  # type: ignore[attr-defined]
            result = computed(op, self.value.type, *arrays)
        many = isinstance(self.value.type, TupleType)
        return tuple(map(np.asarray, result)) if many else (np.asarray(result),)


def _symbols_within(x: Any) -> set[sp.Symbol]:
    if isinstance(x, tuple):
        return set().union(*map(_symbols_within, x))
    if isinstance(x, Type):
        return symbols(x.shape)
    if isinstance(x, sp.Expr):  # a formula's placeholders are real: no sizes
        return {s for s in x.free_symbols if s.is_integer and s.is_nonnegative}
    return set()


def cases_of(op_type: type[Op]) -> list[Case]:
    return [Case(f"{op_type.__name__}-{i}", sample) for i, sample in enumerate(op_type.samples())]


def varied_cases_of(op_type: type[Op]) -> list[Case]:
    """Random ones of rank 1 to 5, where the op says what varies; the rest is as in its first
    sample, flags at random."""
    if not op_type.varies:
        return []
    sample = next(iter(op_type.samples()))
    rng = np.random.default_rng(zlib.crc32(op_type.__name__.encode()))
    cases = []
    for rank in range(1, 6):
        shape = tuple(dim(str(d)) for d in rng.choice(["n", "m", "1", "2", "3"], rank))
        order = tuple(map(int, rng.permutation(rank)))
        some = tuple(sorted(order[: rng.integers(1, rank + 1)]))
        chosen = {"axis": {"axis": order[0]}, "axes": {"axes": some}, "order": {"axes": order}}
        flags = {
            name: bool(rng.integers(0, 2))
            for name, x in sample.op.attributes.items()
            if isinstance(x, bool)
        }
        op = dataclasses.replace(sample.op, **flags, **chosen[op_type.varies])  # type: ignore[type-var]
        types = tuple(t.with_shape(shape) for t in sample.types)
        varied = dataclasses.replace(sample, op=op, types=types)
        cases.append(Case(f"{op_type.__name__}-rank{rank}", varied))
    return cases


def typed_cases_of(op_type: type[Op]) -> list[Case]:
    """The first samples of float32, of int64 and of both, in other element types: those that the
    op accepts."""
    samples = list(op_type.samples())
    cases = []
    for kind, others in ((f32, (f16, bf16)), (i64, (i8, u8, i16, u16, u64))):
        sample = next((s for s in samples if any(t.dtype is kind for t in s.types)), None)
        for other in others if sample is not None else ():
            if (changed := typed(sample, {kind: other})) is not None:
                cases.append(Case(f"{op_type.__name__}-{other}", changed))
    return cases


def typed(sample: Sample, change: Mapping[DType, DType]) -> Sample | None:
    """The sample in other element types; None where the op does not accept it."""
    types = tuple(type_in(t, change) for t in sample.types)
    try:
        op = in_types(sample.op, change)
        op.infer(*types)
    except (DTypeError, ShapeError):
        return None
    return dataclasses.replace(sample, op=op, types=types)


def parts(type_: AnyType) -> tuple[Type, ...]:
    """The types of an op's results."""
    return type_.items if isinstance(type_, TupleType) else (type_,)


def unpacked(value: Value) -> tuple[Value, ...]:
    """An op's results, one or several."""
    if isinstance(value.type, TupleType):
        return tuple(apply(Item(i), value) for i in range(len(value.type.items)))
    return (value,)


def draw(
    rng: np.random.Generator, sample: Sample, type_: Type, sizes: Mapping[sp.Symbol, int]
) -> np.ndarray:
    """An array of that type with elements in the ranges of the sample."""
    shape = tuple(int(dim(substitute(d, sizes))) for d in type_.shape)
    count = int(np.prod(shape, dtype=np.int64))
    dtype = type_.dtype
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.is_integer:
        low, high = sample.integers
        places = any(t.dtype.is_float for t in sample.types)  # integers beside floats are places
        if not dtype.is_signed and (places or dtype is not u64):
            low = max(low, 0)  # else they wrap round to the largest
        if sample.distinct and count <= high - low <= 10_000:
            return (low + rng.permutation(high - low)[:count]).reshape(shape).astype(dtype.numpy)
        kind = np.int64 if low < 0 else np.uint64
        return rng.integers(low, high, shape, kind).astype(dtype.numpy)
    low_, high_ = sample.floats
    if sample.dominant and len(shape) > 1 and shape[-1] == shape[-2]:
        outweighing = shape[-1] * max(abs(low_), abs(high_)) * np.eye(shape[-1])
        return (rng.uniform(low_, high_, shape) + outweighing).astype(dtype.numpy)
    if not sample.distinct:
        return rng.uniform(low_, high_, shape).astype(dtype.numpy)
    if dtype.is_half:  # apart in that type, too
        whole = rng.permutation(count) - count // 2
        apart = whole * 2.0 ** -max(0, (count - 1).bit_length() - 2)
        return ((low_ + high_) / 2 + apart).reshape(shape).astype(dtype.numpy)
    # Apart by much more than the step of a finite difference.
    steps = (rng.permutation(count) + rng.uniform(0.2, 0.8, count)) / max(count, 1)
    return (low_ + (high_ - low_) * steps).reshape(shape).astype(dtype.numpy)
