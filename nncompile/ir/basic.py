"""The ops that formulas and all other ops are built with: constants, casts, broadcasting, sizes and
barriers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.locations import spoken
from nncompile.ir.broadcasting import unbroadcast
from nncompile.ir.dims import (
    Dim,
    Shape,
    broadcast,
    dim,
    is_one_of,
    product,
    same_shape,
    symbol,
    symbols,
)
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.literals import array_of
from nncompile.ir.op import Op, Sample, Value, apply, made_size, makers_of
from nncompile.ir.types import (
    Array,
    DType,
    TupleType,
    Type,
    bf16,
    boolean,
    dtype_of,
    f16,
    f32,
    f64,
    i8,
    i16,
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


class Cast(Op):
    """`x` as another element type, by C's rule (towards zero; bool of a number is `≠ 0`)."""

    dtype: DType
    moves = True

    def infer(self, x: Type) -> Type:
        return Type(self.dtype, x.shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (cast(g, x.dtype) if self.dtype.is_float and x.dtype.is_float else None,)

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        return places[0]

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


class Expand(Op):
    """`x` repeated along new axes and axes of size one, to `shape`."""

    shape: Shape
    moves = True
    copies = 1

    def infer(self, x: Type) -> Type:
        if same_shape(broadcast(x.shape, self.shape), self.shape) is not True:
            raise ShapeError(f"{x} does not broadcast to [{', '.join(map(str, self.shape))}]")
        return Type(x.dtype, self.shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (unbroadcast(g, x),)

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        (place,) = places
        return None if place is None else place + len(self.shape) - types[0].rank

    def numpy(self, x: Array) -> Array:
        return np.broadcast_to(x, self.shape)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        if 0 in self.shape:  # onnxruntime takes it for an expansion to the size one, which is none
            nothing = o.constant(np.zeros(0, o.type.dtype.numpy))
            return o.Reshape(nothing, o.shape(self.shape), allowzero=1)
        return o.Expand(x, o.shape(self.shape))

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.method(x, "expand", t.shape(self.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n, m = symbol("n"), symbol("m")
        yield Sample(cls((2, 3)), (f32[()],))
        yield Sample(cls((n, 3)), (f32[3],))
        yield Sample(cls((n, m, 4)), (f32["m", 1],))
        yield Sample(cls((2, n)), (boolean["n"],))
        yield Sample(cls((2, n)), (i64[1],))
        yield Sample(cls((0, n, 2)), (f32[1, 2],))


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


class Iota(Op):
    """0, 1, …, size − 1. Its arguments are what makes a size that depends on data."""

    size: Dim
    dtype: DType
    mixes = True

    def infer(self, *makers: Type) -> Type:
        return Type(self.dtype, (self.size,))

    def pullback(self, g: Value, y: Value, *makers: Value) -> Sequence[Value | None]:
        return [None] * len(makers)

    def numpy(self, *makers: Array) -> Array:
        return np.arange(self.size, dtype=self.dtype.numpy)

    def onnx(self, o: OnnxEmitter, *makers: str) -> str:
        zero, one = o.scalar(0, i64), o.scalar(1, i64)
        return o.cast(o.Range(zero, o.dim(self.size), one), self.dtype)

    def torch(self, t: TorchEmitter, *makers: str) -> str:
        return t.call("torch.arange", t.dim(self.size), dtype=t.dtype(self.dtype))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(5, i64), ())
        yield Sample(cls(0, i64), ())
        yield Sample(cls(4, f32), ())
        yield Sample(cls(4, u32), ())
        yield Sample(cls(4, i16), ())
        yield Sample(cls(4, f16), ())


class Counted(Op):
    """0, 1, …, x − 1 of a number that is known when the graph runs; nothing of a negative one."""

    size: Dim
    mixes = True

    @property
    def makes(self) -> tuple[sp.Symbol, ...]:
        return (self.size,) if isinstance(self.size, sp.Symbol) else ()

    def infer(self, x: Type) -> Type:
        if x.rank or x.dtype is not i64:
            raise ShapeError(f"a size is one integer, got {x}")
        return Type(i64, (self.size,))

    def numpy(self, x: Array) -> Array:
        return np.arange(max(int(x), 0), dtype=np.int64)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return o.Range(o.scalar(0, i64), x, o.scalar(1, i64))

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.call("torch.arange", t.emit(f"max(int({x}), 0)", "count"))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(symbol("count")), (i64[()],), integers=(-2, 9))
        yield Sample(cls(symbol("count")), (i64[()],), integers=(3, 9))


class Barrier(Op):
    """`x` itself, which no pass and no optimizer of a runtime looks through: what is computed
    from it is computed again and not merged with the same work on `x`. Given other arguments, it
    waits for them: nothing that needs it runs before they are known."""

    moves = True

    def infer(self, x: Type, *after: Type) -> Type:
        return x

    def pullback(self, g: Value, y: Value, x: Value, *after: Value) -> Sequence[Value | None]:
        return (barrier(g), *(None for _ in after))

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        return places[0]

    def numpy(self, x: Array, *after: Array) -> Array:
        return x

    def onnx(self, o: OnnxEmitter, x: str, *after: str) -> str:
        if after:
            # x in its own shape, to which the sizes of the others add zero: no bytes are copied,
            # and onnxruntime knows the size of a tensor no earlier than the tensor.
            sizes = functools.reduce(o.Add, map(o.Size, after))
            none = o.Mul(sizes, o.scalar(0, i64))
            return o.Reshape(x, o.Add(o.Shape(x), none))
        # onnxruntime removes Identity, but neither of these with one distinct input.
        return o.Or(x, x) if o.type.dtype.is_bool else o.Max(x)

    def torch(self, t: TorchEmitter, x: str, *after: str) -> str:
        return t.method(x, "clone")

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 2],))
        yield Sample(cls(), (boolean["n"],))
        yield Sample(cls(), (i64["n"],))
        yield Sample(cls(), (u32[2],))
        yield Sample(cls(), (f32["n", 2], f32["m"]))
        yield Sample(cls(), (f64[()], i64[3], f32["n"]))
        yield Sample(cls(), (boolean["n"], f32[2]))


def const(x: Any, dtype: DType | None = None) -> Value:
    """An array or a number as a value. Without `dtype`, Python's numbers are f32, i64 or bool.

    Raises `DTypeError` for what is no array or number, and for a number that `dtype` cannot hold.
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


def cast(x: Any, dtype: Any) -> Value:
    """`x` as another element type (`x.astype` of numpy). Raises `DTypeError` for an unknown one."""
    x, target = as_value(x), dtype_of(dtype)
    return x if x.dtype is target else Cast(target)(x)


def in_single(function: Callable[P, R]) -> Callable[P, R]:
    """A function of several ops, which are all computed in f32 where floats of 16 bits are given:
    what comes between, sums and squares and sizes, may be beyond them. Only results are rounded."""

    @functools.wraps(function)
    @spoken()
    def computed(*args: P.args, **options: P.kwargs) -> R:
        given = [x.dtype for x in (*args, *options.values()) if isinstance(x, Value)]
        dtype = functools.reduce(promote, (d for d in given if d.is_float), boolean)
        if not dtype.is_half:
            return function(*args, **options)
        wide: Any = [_computed(x) for x in args], {n: _computed(x) for n, x in options.items()}
        found: Any = function(*wide[0], **wide[1])
        several = isinstance(found, tuple)
        rounded: Any = tuple(_rounded(x, dtype) for x in found) if several else None
        result: R = rounded if several else _rounded(found, dtype)
        return result

    return computed


def _computed(x: Any) -> Any:
    return cast(x, x.dtype.computed) if isinstance(x, Value) else x


def _rounded(x: Any, dtype: DType) -> Any:
    return cast(x, dtype) if isinstance(x, Value) and x.dtype is dtype.computed else x


def barrier(x: Any, *after: Value) -> Value:
    """`x`, behind which nothing is merged with work on `x` itself: used to compute again what
    would cost memory to keep, and, where `after` are given, not before these are known."""
    return Barrier()(as_value(x), *after)


def tied(x: Value, sizes: Iterable[Dim]) -> Value:
    """`x`, which waits for what makes those of the sizes that depend on data, and not on `x`: they
    are known to what is made of it."""
    makers = makers_of(sizes)
    if not makers:
        return x
    plain = [v for v in (x, *x.args) if not isinstance(v.type, TupleType)]
    known = symbols(d for v in plain for d in v.shape)
    makers = [v for v in makers if known.isdisjoint(v.op.makes)]
    return barrier(x, *makers) if makers else x


def broadcast_to(x: Any, shape: Sequence[Any]) -> Value:
    """`x` repeated to `shape` by numpy's rule. Raises `ShapeError` where it does not fit."""
    x, target = as_value(x), tuple(dim(d) for d in shape)
    for axis in range(-min(x.rank, len(target)), 0):
        if is_one_of(x.shape[axis], target[axis]):  # x[:1], of which there may be none
            x = repeated(x, axis, target[axis])
    return x if same_shape(x.shape, target) is True else Expand(target)(tied(x, target))


def repeated(x: Value, axis: int, size: Dim) -> Value:
    """`x[:1]` along the axis, a negative number, as `size` times its element there; nothing where
    there is none."""
    places = full((size,), 0, i64)
    return x[(..., places, *[slice(None)] * (-1 - axis))]


def full(shape: Sequence[Any], number: Any, dtype: DType = f32) -> Value:
    """A tensor filled with one number."""
    return broadcast_to(const(number, dtype), shape)


def zeros_like(x: Any) -> Value:
    """Zeros in the shape and element type of `x`."""
    x = as_value(x)
    return full(x.shape, 0, x.dtype)


def ones_like(x: Any) -> Value:
    """Ones in the shape and element type of `x`."""
    x = as_value(x)
    return full(x.shape, 1, x.dtype)


def size_value(size: Any, dtype: DType = i64) -> Value:
    """A dimension as a scalar, to compute with."""
    size = dim(size)
    if isinstance(size, int):
        return const(size, dtype)
    return apply(SizeOf(size, dtype), *makers_of([size]))


def iota(size: Any, dtype: DType = i64) -> Value:
    """0, 1, …, size − 1 as a vector; `arange` of numpy. Of an integer value, the size of the result
    is another name for each."""
    if isinstance(size, Value):
        return cast(apply(Counted(made_size("count", size)), cast(size, i64)), dtype)
    size = dim(size)
    return apply(Iota(size, dtype), *makers_of([size]))


def size(x: Value) -> Dim:
    """The number of elements, a dimension."""
    return product(x.shape)


register("cast", cast)
register("size", size)
