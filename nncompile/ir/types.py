"""Element types and tensor types: `f32["batch", 784]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import ml_dtypes
import numpy as np

from nncompile.diagnostics.errors import CompileError, DTypeError, ShapeError
from nncompile.ir.dims import Dim, Shape, dim, symbols, text_of

Array = np.ndarray[Any, np.dtype[Any]]
"""An array of numpy, of any element type."""
Operand = float | Dim | np.generic | Array
"""What a value is combined with, beside values: a number, a dimension, or an array of numpy."""
Axes = int | Sequence[int] | None
"""One axis, several, or all."""


@dataclass(frozen=True, eq=False)  # each is one object
class DType:
    """An element type; `f32[2, "n"]` is a tensor type of it."""

    name: str
    short: str

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """numpy's element type; that of bfloat16 is of the package `ml_dtypes`."""
        return np.dtype(ml_dtypes.bfloat16 if self.name == "bfloat16" else self.name)

    @cached_property
    def is_float(self) -> bool:
        """Whether its numbers are real; the only types that have gradients."""
        return "float" in self.name

    @cached_property
    def is_half(self) -> bool:
        """Whether it is a float of 16 bits, which is computed with in f32."""
        return self.is_float and self.bits == 16

    @cached_property
    def is_bool(self) -> bool:
        """Whether it is the type of truth values."""
        return self.name == "bool"

    @cached_property
    def is_integer(self) -> bool:
        """Whether its numbers are integers, signed or not; truth values are none."""
        return not self.is_float and not self.is_bool

    @cached_property
    def computed(self) -> DType:
        """The type that its numbers are computed with in: f32 for floats of 16 bits."""
        return f32 if self.is_half else self

    @cached_property
    def is_signed(self) -> bool:
        """Whether it has negative numbers."""
        return self.is_float or self.name.startswith("int")

    @cached_property
    def bits(self) -> int:
        """How many bits one element has in memory."""
        return 8 * self.numpy.itemsize

    def __getitem__(self, shape: Any) -> Any:
        """The tensor type of that shape. To type checkers it is anything: as the default of an
        argument of a model's function it stands for the value, `image: Value = f32["n", 8]`."""
        sizes = tuple(map(dim, shape if isinstance(shape, tuple) else (shape,)))
        if any(isinstance(size, int) and size < 0 for size in sizes):
            raise ShapeError(f"a size cannot be negative: [{', '.join(map(str, sizes))}]")
        return Type(self, sizes)

    @property
    def eps(self) -> float:
        """How far the next number after 1 is from it, of a float."""
        one = np.ones((), self.numpy)
        return float(np.nextafter(one, one + one) - one)

    def __repr__(self) -> str:
        return self.short

    def __reduce__(self) -> Any:
        return _dtype, (self.name,)  # copied or unpickled it is the same object: `is` compares them


def _dtype(name: str) -> DType:
    return _BY_NAME[name]


f16 = DType("float16", "f16")
bf16 = DType("bfloat16", "bf16")
f32 = DType("float32", "f32")
f64 = DType("float64", "f64")
i8 = DType("int8", "i8")
i16 = DType("int16", "i16")
i32 = DType("int32", "i32")
i64 = DType("int64", "i64")
u8 = DType("uint8", "u8")
u16 = DType("uint16", "u16")
u32 = DType("uint32", "u32")
u64 = DType("uint64", "u64")
boolean = DType("bool", "bool")

SIGNED = (i8, i16, i32, i64)
UNSIGNED = (u8, u16, u32, u64)
INTEGERS = (i8, u8, i16, u16, i32, u32, i64, u64)
FLOATS = (f16, bf16, f32, f64)
DTYPES = (boolean, *INTEGERS, *FLOATS)
_BY_NAME = {key: d for d in DTYPES for key in (d.name, d.short)}
_BY_NUMPY = {d.numpy: d for d in DTYPES}  # of this machine's byte order


def dtype_of(x: Any) -> DType:
    """The element type of that name, dtype of numpy or torch, or array. Raises `DTypeError`."""
    if isinstance(x, DType):
        return x
    if isinstance(x, np.dtype) and x in _BY_NUMPY:
        return _BY_NUMPY[x]
    try:
        # numpy takes None for float64, and its scalar types have an attribute of that name.
        source = x if isinstance(x, type) else getattr(x, "dtype", x)
        name = str(x) if x is None or isinstance(x, str) else np.dtype(source).name
    except TypeError:
        name = repr(x).removeprefix("torch.")
    if name not in _BY_NAME:
        raise DTypeError(
            f"element type {name} is not supported",
            hint=f"convert to one of {', '.join(d.name for d in DTYPES)}",
        )
    return _BY_NAME[name]


@cache
def is_float32(x: float) -> bool:
    """Whether float32 has exactly that number."""
    with np.errstate(over="ignore"):
        return float(np.float32(x)) == x


def check_unmasked(x: Any, what: str, error: type[CompileError] = DTypeError) -> None:
    """Raises `error` where elements of `x`, a masked array or a list of some, are masked: an array
    has no place for that, and what is behind the mask would be taken for data."""
    indices = list(_masked(x))
    if indices:
        first = f"[{', '.join(map(str, indices[0]))}]" if indices[0] else "all of it"
        count = "1 element" if len(indices) == 1 else f"{len(indices):,} elements"
        raise error(
            f"{what} is a masked array: {count} {'is' if len(indices) == 1 else 'are'} masked",
            rows=[("first at", first)],
            hint="x.filled(0) fills them; losses take a mask: mask=~np.ma.getmaskarray(x)",
        )


def _masked(x: Any) -> Iterator[tuple[int, ...]]:
    """The places of the masked elements."""
    if isinstance(x, np.ma.MaskedArray):
        yield from map(tuple, np.argwhere(np.ma.getmaskarray(x)))
    elif isinstance(x, list | tuple):
        for i, item in enumerate(x):
            if isinstance(item, list | tuple | np.ma.MaskedArray):
                for index in _masked(item):
                    yield i, *index


_DIGITS = {bf16: 8, f16: 11, f32: 24, f64: 53}  # binary ones, of a float


def holds(wide: DType, dtype: DType) -> bool:
    """Whether an element type has every number of another one exactly."""
    if wide is dtype or dtype.is_bool or wide.is_bool:
        return wide is dtype or dtype.is_bool
    if dtype.is_float:
        return wide.is_float and wide.bits > dtype.bits
    if wide.is_float:
        return _DIGITS[wide] >= dtype.bits - dtype.is_signed
    if wide.is_signed == dtype.is_signed:
        return wide.bits >= dtype.bits
    return wide.is_signed and wide.bits > dtype.bits


def is_real(x: np.dtype[Any]) -> bool:
    """Whether numpy's element type is one of real numbers; bfloat16 has a kind of its own."""
    return x.kind == "f" or x == bf16.numpy


def numpy_name(x: np.dtype[Any]) -> str:
    """How an element type is written beside numpy: `np.float32`, `ml_dtypes.bfloat16`."""
    return f"{'ml_dtypes' if x == bf16.numpy else 'np'}.{x.name}"


def as_bfloat16(x: Array) -> Array:
    """The array, where its elements are of two bytes without a meaning: as that numpy reads
    bfloat16 from its own files."""
    return x.view(bf16.numpy) if x.dtype == np.dtype("V2") else x


def is_numeric(x: np.dtype[Any]) -> bool:
    """Whether numpy's element type is one of numbers or truth values."""
    return x.kind in "biuf" or x == bf16.numpy


def promote(a: DType, b: DType) -> DType:
    """The type of `a + b`, by torch's and numpy's rule where they agree.

    Truth values take the other type; an integer with a float is that float (as torch's); of two
    floats it is the wider one, f32 for f16 with bf16; of two integers the smallest type that holds
    both. No integer type holds u64 and a signed one: numpy makes floats of them, torch nothing;
    here that raises `DTypeError`.
    """
    if a is b:
        return a
    if a.is_bool or b.is_bool:
        return b if a.is_bool else a
    if a.is_float or b.is_float:
        if a.is_half and b.is_half:
            return f32
        if a.is_float and b.is_float:
            return max(a, b, key=lambda x: x.bits)
        return a if a.is_float else b
    if a.is_signed == b.is_signed:
        return max(a, b, key=lambda x: x.bits)
    unsigned, signed = (b, a) if a.is_signed else (a, b)
    for dtype in SIGNED:
        if dtype.bits >= signed.bits and dtype.bits > unsigned.bits:
            return dtype
    raise DTypeError(
        f"no integer type holds both {unsigned} and {signed}",
        hint=f"x.astype({signed}) or y.astype({unsigned}) chooses one",
    )


@dataclass(frozen=True, slots=True)
class Type:
    """The element type and the shape of a tensor."""

    dtype: DType
    shape: Shape = ()

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether all sizes are numbers."""
        return not symbols(self.shape)

    def with_shape(self, shape: tuple[Dim, ...]) -> Type:
        """The type of the same elements in another shape."""
        return Type(self.dtype, shape)

    def may_be_nan(self) -> MayBeNaN:
        """The declaration of an input of a model whose numbers may be NaN, where they are missing:
        `x=f32["batch", 4].may_be_nan()`. Data of other inputs are refused where they hold NaN.
        Raises `DTypeError` for element types that have no NaN."""
        if not self.dtype.is_float:
            raise DTypeError(
                f"{self} has no NaN: only floats have",
                hint="declare the input f32, or mark what is missing by a number such as -1",
            )
        return MayBeNaN(self)

    def __repr__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(text_of, self.shape))}]"


@dataclass(frozen=True, slots=True)
class MayBeNaN:
    """The type of an input of which some numbers may be missing, and are NaN then."""

    type: Type

    def __repr__(self) -> str:
        return f"{self.type}.may_be_nan()"


@dataclass(frozen=True, slots=True)
class TupleType:
    """The types of an op with several results."""

    items: tuple[Type, ...]

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self.items))})"


AnyType = Type | TupleType


def component_types(type_: AnyType) -> tuple[Type, ...]:
    """The types of the results of an op, of one or of several."""
    return type_.items if isinstance(type_, TupleType) else (type_,)


def max_norm(x: Array) -> float:
    """The greatest absolute value of the finite elements, 0 where there are none."""
    return float(np.max(np.abs(x), where=np.isfinite(x), initial=0.0))
