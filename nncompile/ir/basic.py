"""The ops that formulas and all other ops are built with: constants, casts and sizes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import message_name
from nncompile.ir.data_sizes import makers_of
from nncompile.ir.dims import Dim, dim, product
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.lazy import lazy
from nncompile.ir.literals import array_of
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import (
    Array,
    DType,
    Type,
    bf16,
    boolean,
    dtype_of,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    is_real,
    promote,
    u8,
    u32,
    u64,
)

P = ParamSpec("P")
R = TypeVar("R")


class Constant(Op):
    """A small array that is known while the graph is built."""

    value: Array
    moves = True
    mixes = True

    def infer(self) -> Type:
        return Type(dtype_of(self.value), self.value.shape)

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return ()

    def numpy(self) -> Array:
        return self.value

    def onnx(self, o: OnnxEmitter) -> str:
        return o.constant(self.value)

    def torch(self, t: TorchEmitter) -> str:
        return t.constant(self.value)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(np.asarray(2.5, np.float32)), ())
        yield Sample(cls(np.arange(6, dtype=np.int64).reshape(2, 3)), ())
        yield Sample(cls(np.array([True, False])), ())
        yield Sample(cls(np.array([1, 2**32 - 1], np.uint32)), ())
        yield Sample(cls(np.zeros((0, 2), np.float32)), ())
        yield Sample(cls(np.array([1, 2**64 - 1], np.uint64)), ())
        yield Sample(cls(np.array([[0.5], [-3]], f16.numpy)), ())
        yield Sample(cls(np.full(20, 1.5, bf16.numpy)), ())  # more than the source writes out


class Stored(Constant):
    """A large array that is known, such as a weight of a file: where a training starts, and not a
    part of what is computed. Its bytes are neither hashed nor copied: where a sample of them is
    that of another one, they are compared."""

    @lazy
    def key(self) -> tuple[Any, ...]:
        """Equal for equal ones, and for few others."""
        return type(self), self.value.dtype.str, self.value.shape, _sampled(self.value)

    @lazy
    def digest(self) -> bytes:
        return hashlib.blake2b(repr(self.key[1:]).encode(), digest_size=8).digest()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Stored):
            return self is other
        return self.key == other.key and _same_bytes(self.value, other.value)


_BLOCKS, _BLOCK = 64, 1 << 10  # how many of how many bytes are a sample


def _bytes_of(x: Array) -> Array:
    flat: Array = x.reshape(-1).view(np.uint8)
    return flat


def _sampled(x: Array) -> bytes:
    """A digest of blocks of an array that are spread over it, and of its end."""
    flat = _bytes_of(x)
    digest = hashlib.blake2b(flat[-_BLOCK:].data, digest_size=16)
    for start in range(0, len(flat), max(_BLOCK, len(flat) // _BLOCKS)):
        digest.update(flat[start : start + _BLOCK].data)
    return digest.digest()


def _same_bytes(x: Array, y: Array) -> bool:
    return x is y or bool(np.array_equal(_bytes_of(x), _bytes_of(y)))


class Cast(Op):
    """`x` as another element type, by C's rule (towards zero; bool of a number is `≠ 0`)."""

    dtype: DType
    moves = True

    def infer(self, x: Type) -> Type:
        return Type(self.dtype, x.shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (cast(g, x.dtype) if self.dtype.is_float and x.dtype.is_float else None,)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        return row_axes[0]

    def batched(self, length: Dim) -> Cast:
        return self

    def numpy(self, x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return x.astype(self.dtype.numpy)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return o.cast(x, self.dtype)

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.cast(x, t.types[0].dtype, self.dtype)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(f64), (f32["n", 3],))
        yield Sample(cls(f32), (i64["n"],))
        yield Sample(cls(i64), (f32["n"],))
        yield Sample(cls(i32), (i64["n"],))
        yield Sample(cls(boolean), (f32["n"],))
        yield Sample(cls(f32), (boolean[2, "n"],))
        yield Sample(cls(i64), (u32["n"],), integers=(0, 2**32))
        yield Sample(cls(u32), (i64["n"],), integers=(0, 2**32))
        yield Sample(cls(i8), (i64["n"],), integers=(-(2**40), 2**40))
        yield Sample(cls(u64), (i32["n"],), integers=(-9, 9))
        yield Sample(cls(f32), (u64["n"],), integers=(0, 2**64))
        yield Sample(cls(u64), (f64["n"],), floats=(0.0, 2.0**63))
        yield Sample(cls(u8), (f32["n"],), floats=(0.0, 255.0))
        yield Sample(cls(f16), (f64["n"],))
        yield Sample(cls(bf16), (i64["n"],), integers=(-(2**20), 2**20))


class SizeOf(Op):
    """A dimension as a number in the graph. Its arguments are what makes a size that depends on
    data."""

    size: Dim
    dtype: DType
    mixes = True

    def infer(self, *makers: Type) -> Type:
        return Type(self.dtype, ())

    def pullback(self, g: Value, y: Value, *makers: Value) -> Sequence[Value | None]:
        return [None] * len(makers)

    def numpy(self, *makers: Array) -> Array:
        return np.asarray(self.size, self.dtype.numpy)

    def onnx(self, o: OnnxEmitter, *makers: str) -> str:
        return o.cast(o.dim(self.size), self.dtype)

    def torch(self, t: TorchEmitter, *makers: str) -> str:
        return t.call("torch.tensor", t.dim(self.size), dtype=t.dtype(self.dtype))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(7, i64), ())
        yield Sample(cls(7, f32), ())
        yield Sample(cls(7, u8), ())
        yield Sample(cls(7, bf16), ())


@suggests_names
def const(x: Any, dtype: DType | None = None) -> Value:
    """An array or a number as a value. Without `dtype`, Python's numbers are f32, i64 or bool.

    Raises `DTypeError` for anything but an array or a number, and for a number that `dtype` cannot
    hold.
    """
    array = array_of(x)
    if dtype is None:
        literal = not hasattr(x, "dtype") and (is_real(array.dtype) or array.size == 0)
        dtype = f32 if literal else dtype_of(array)
    try:
        # Ours alone: the caller may write to theirs.
        array = np.array(x, dtype_of(dtype).numpy, order="C")
    except OverflowError:
        raise DTypeError(f"{x!r} does not fit in {dtype}") from None
    array.setflags(write=False)
    return apply(Constant(array))


def stored(array: Array) -> Value:
    """An array as a value that keeps it, and no copy: nobody writes to it from now on. Raises
    `DTypeError` for an element type that there is none of here."""
    dtype_of(array)
    ours = np.asarray(array, order="C").view()
    ours.setflags(write=False)
    return apply(Stored(ours))


def as_value(x: Any, like: Value | None = None) -> Value:
    """`x` as a value: a value itself, an array, a number or a dimension.

    A number takes the element type of `like` where that keeps its kind (a real number beside
    integers is f32). Raises `FormulaError` for a scalar of a formula, `DTypeError` for everything
    else.
    """
    if isinstance(x, Value):
        return x
    if isinstance(x, sp.Expr):
        return size_value(x)
    if isinstance(x, bool | int | float) and like is not None:
        kind = boolean if isinstance(x, bool) else i64 if isinstance(x, int) else f32
        keeps = like.dtype.is_float or (kind is not f32 and like.dtype.is_integer)
        return const(x, like.dtype if keeps or like.dtype is kind else kind)
    return const(array_of(x))


def floating(what: str, x: Any, hint: str = "x.astype(f32) converts") -> Value:
    """`x` as a value of floating numbers. Raises `DTypeError`, which begins with `what`, for
    others."""
    value = as_value(x)
    if not value.dtype.is_float:
        raise DTypeError(f"{what} needs floating numbers, x is {value.type}", hint=hint)
    return value


@suggests_names
def cast(x: Any, dtype: Any) -> Value:
    """`x` as another element type (`x.astype` of numpy). Raises `DTypeError` for an unknown one."""
    if isinstance(x, Value) and x.type.dtype is dtype:  # most are
        return x
    x, target = as_value(x), dtype_of(dtype)
    return x if x.dtype is target else _cast_to(target)(x)


_cast_to = functools.lru_cache(maxsize=64)(Cast)  # an op finds out its digest once


def in_single(function: Callable[P, R]) -> Callable[P, R]:
    """A function of several ops, which are all computed in f32 where floats of 16 bits are given:
    what comes between, sums and squares and sizes, may be beyond them. Only results are rounded."""

    @functools.wraps(function)
    @message_name()
    def computed(*args: P.args, **options: P.kwargs) -> R:
        dtypes = [x.dtype for x in (*args, *options.values()) if isinstance(x, Value)]
        dtype = functools.reduce(promote, (d for d in dtypes if d.is_float), boolean)
        if not dtype.is_half:
            return function(*args, **options)
        wide: Any = [_computed(x) for x in args], {n: _computed(x) for n, x in options.items()}
        wide_result: Any = function(*wide[0], **wide[1])
        is_tuple = isinstance(wide_result, tuple)
        rounded: Any = tuple(_rounded(x, dtype) for x in wide_result) if is_tuple else None
        result: R = rounded if is_tuple else _rounded(wide_result, dtype)
        return result

    return computed


def _computed(x: Any) -> Any:
    return cast(x, x.dtype.computed) if isinstance(x, Value) else x


def _rounded(x: Any, dtype: DType) -> Any:
    return cast(x, dtype) if isinstance(x, Value) and x.dtype is dtype.computed else x


def size_value(size: Any, dtype: DType = i64) -> Value:
    """A dimension as a scalar, to compute with."""
    size = dim(size)
    if isinstance(size, int):
        return const(size, dtype)
    return apply(SizeOf(size, dtype), *makers_of([size]))


def size(x: Value) -> Dim:
    """The number of elements, a dimension."""
    return product(x.shape)


register("cast", cast)
register("size", size)
