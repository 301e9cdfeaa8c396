"""Constant folding: what depends on no data is computed once, while compiling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise import exp, maximum
from nncompile.elementwise.lowering import walk
from nncompile.elementwise.map import Map, over
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.barriers import Barrier
from nncompile.ir.basic import Cast, Constant, SizeOf, cast, const, size_value
from nncompile.ir.broadcasting import Expand, broadcast_to
from nncompile.ir.dims import Dim, dim, floordiv
from nncompile.ir.graph import Item
from nncompile.ir.interpreter import constant_value
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.types import DType, TupleType, Type, f32, i64
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.slicing import Pad, Slice
from nncompile.passes.maps import literal
from nncompile.passes.rewriter import Changes, on, rules

LARGEST = 1024  # elements of a folded constant, unless it is made of larger ones
_LARGEST_JOINED = 1 << 24  # elements of one that is made of several


@rules
def fold() -> Changes:
    """Computes what depends on constants and sizes alone, and writes numbers into formulas."""
    return [of_constants, literals, arithmetic_of_sizes]


@on(Op)
def of_constants(value: Value) -> Value | None:
    """A node whose arguments are all constants, as a constant; not where it would grow."""
    if not value.args or not isinstance(value.type, Type) or isinstance(value.op, Expand | Barrier):
        return None
    sources = value.args[0].args if isinstance(value.op, Item) else value.args
    if not sources or not all(isinstance(a.op, Constant) for a in sources):
        return None
    if _elements(value.type) > max(LARGEST, _joined(sources)):
        return None
    array = constant_value(value)
    return None if array is None else const(array, value.dtype)


@of_constants.refuses(f32[3], f32["n"])
def _(x: Value, n: Value) -> Iterator[Any]:
    yield x
    yield broadcast_to(const(2.0, f32), (3,))
    yield x + const(np.ones(3, np.float32), f32)
    yield Pad((0,), (LARGEST,))(const(np.ones(2, np.float32), f32))
    doubled = const(np.ones(LARGEST, np.float32), f32)
    yield concatenate([doubled, doubled], 0)
    yield SizeOf(x.shape[0], i64)()
    yield Slice((n.shape[0],), (1,), (1,))(const(np.ones(3, np.float32), f32))


def _joined(sources: Sequence[Value]) -> float:
    """The elements of all sources together, each counted once; where these are very many, of the
    largest one. What doubles a constant again and again is not computed."""
    sizes = [_elements(source.type) for source in dict.fromkeys(sources)]
    return max(*sizes, min(sum(sizes), _LARGEST_JOINED))


def _elements(type_: Any) -> float:
    """The number of elements; infinite where it is not known."""
    if isinstance(type_, TupleType):
        return sum(map(_elements, type_.items))
    return math.prod(d if isinstance(d, int) else math.inf for d in type_.shape)


@on(Map)
def literals(value: Value) -> Value | None:
    """Scalar floating constants become numbers of the formula."""
    if not isinstance(value.op, Map) or not value.dtype.is_float:
        return None
    numbers = {placeholder(i): literal(a) for i, a in enumerate(value.args)}
    known = {symbol: x for symbol, x in numbers.items() if x is not None}
    if not known or len(known) == len(numbers):
        return None
    body = value.op.body.xreplace(known)
    if body.has(sp.zoo, sp.nan, sp.oo):  # x/0, which is for the runtime to compute
        return None
    return over(body, value.args, value)


@literals.refuses(f32[3], i64[3])
def _(x: Value, n: Value) -> Iterator[Any]:
    yield n + const(2, i64)
    yield exp(x)
    yield exp(const(2.0, f32))  # which is folded
    yield x / const(0.0, f32)


class _Sizes:
    """The arithmetic of integers that dimensions have, as a target of `walk`."""

    def call(self, name: str, dtype: DType, *args: Dim) -> Dim:
        match name, args:
            case "add", (a, b):
                return dim(a + b)
            case "subtract", (a, b):
                return dim(a - b)
            case "multiply", (a, b):
                return dim(a * b)
            case "negative", (a,):
                return dim(-a)
            case "floor_divide", (a, int(b)) if b > 0:
                return floordiv(a, b)
        raise _NoSizeError

    def literal(self, number: float, dtype: DType) -> Dim:
        return int(number)

    def cast(self, x: Dim, source: DType, dtype: DType) -> Dim:
        if not dtype.is_integer:
            raise _NoSizeError
        return x


class _NoSizeError(Exception):
    """The arithmetic leaves what dimensions can say."""


@on(Map, Cast)
def arithmetic_of_sizes(value: Value) -> Value | None:
    """Sums, products and quotients of sizes as one size; a cast of a size as that size."""
    if isinstance(value.op, Cast) and isinstance(size := value.args[0].op, SizeOf):
        return apply(SizeOf(size.size, value.dtype), *value.args[0].args)
    if not isinstance(value.op, Map) or not value.dtype.is_integer:
        return None
    sizes = [_size(a) for a in value.args]
    if None in sizes:
        return None
    symbols = [placeholder(i) for i in range(len(sizes))]
    dtypes = {s: a.dtype for s, a in zip(symbols, value.args, strict=True)}
    try:
        leaves: dict[sp.Symbol, Any] = dict(zip(symbols, sizes, strict=True))
        return size_value(walk(value.op.body, leaves, dtypes, _Sizes()), value.dtype)
    except _NoSizeError:
        return None


@arithmetic_of_sizes.refuses(f32["n"], i64[()])
def _(x: Value, k: Value) -> Iterator[Any]:
    n = size_value(x.shape[0], i64)
    yield cast(x, i64)
    yield exp(x)
    yield n + k
    yield maximum(n, 3)
    yield n // size_value(x.shape[0] - 5, i64)
    yield n // -2


def _size(value: Value) -> Dim | None:
    """A scalar integer that is known as a dimension, before the graph runs."""
    if isinstance(value.op, SizeOf) and value.dtype.is_integer and not value.args:
        return value.op.size
    if isinstance(value.op, Constant) and value.dtype.is_integer and value.rank == 0:
        return int(value.op.value)
    return None
