"""Element types and tensor types: `f32["batch", 784]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from nncompile.dims import Dim, Shape, dim, symbols
from nncompile.errors import CompileError, DTypeError, ShapeError

Array = np.ndarray[Any, np.dtype[Any]]
"""An array of numpy, of any element type."""


@dataclass(frozen=True)
class DType:
    """An element type; `f32[2, "n"]` is a tensor type of it."""

    name: str
    short: str

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """numpy's element type."""
        return np.dtype(self.name)

    @property
    def is_float(self) -> bool:
        """Whether its numbers are real; the only types that have gradients."""
        return self.name.startswith("float")

    @property
    def is_bool(self) -> bool:
        """Whether it is the type of truth values."""
        return self.name == "bool"

    @property
    def is_integer(self) -> bool:
        """Whether its numbers are integers, signed or not; truth values are none."""
        return not self.is_float and not self.is_bool

    def __getitem__(self, shape: Any) -> Type:
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


f32 = DType("float32", "f32")
f64 = DType("float64", "f64")
i64 = DType("int64", "i64")
i32 = DType("int32", "i32")
u32 = DType("uint32", "u32")
boolean = DType("bool", "bool")

DTYPES = (boolean, i32, u32, i64, f32, f64)
_BY_NAME = {key: d for d in DTYPES for key in (d.name, d.short)}


def dtype_of(x: Any) -> DType:
    """The element type of that name, numpy dtype or array. Raises `DTypeError` for others."""
    if isinstance(x, DType):
        return x
    try:
        # numpy takes None for float64.
        name = str(x) if x is None or isinstance(x, str) else np.dtype(getattr(x, "dtype", x)).name
    except TypeError:
        name = repr(x)
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
    places = list(_masked(x))
    if places:
        first = f"[{', '.join(map(str, places[0]))}]" if places[0] else "all of it"
        count = "1 element" if len(places) == 1 else f"{len(places):,} elements"
        raise error(
            f"{what} is a masked array, of which {count} {'is' if len(places) == 1 else 'are'} "
            "masked",
            rows=[("first at", first)],
            hint="x.filled(0) says what they are; losses take a mask: mask=~np.ma.getmaskarray(x)",
        )


def _masked(x: Any) -> Iterator[tuple[int, ...]]:
    """The places of the masked elements."""
    if isinstance(x, np.ma.MaskedArray):
        yield from map(tuple, np.argwhere(np.ma.getmaskarray(x)))
    elif isinstance(x, list | tuple):
        for i, item in enumerate(x):
            if isinstance(item, list | tuple | np.ma.MaskedArray):
                for place in _masked(item):
                    yield i, *place


def promote(a: DType, b: DType) -> DType:
    """The type of `a + b`: torch's rule (an integer with a float is that float; uint32 with a
    signed integer is int64)."""
    if a is b:
        return a
    if {a, b} == {i32, u32}:
        return i64
    return DTYPES[max(DTYPES.index(a), DTYPES.index(b))]


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

    def __repr__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class TupleType:
    """The types of an op with several results."""

    items: tuple[Type, ...]

    def __repr__(self) -> str:
        return f"({', '.join(map(repr, self.items))})"
