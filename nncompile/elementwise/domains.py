"""Where the primitive calls are tested: on which element types, and on which numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nncompile.elementwise.primitives import PRIMITIVE_CALLS
from nncompile.ir.types import INTEGERS, DType, boolean, f32, f64, i32, i64

# Real functions: where they are smooth, so that their derivatives can be compared with differences.
# Others are tested on [-2, 2].
REALS: dict[str, tuple[float, float]] = {
    "divide": (0.5, 2.0),
    "mod": (0.6, 0.9),
    "floor_divide": (0.6, 0.9),
    "power": (0.2, 2.0),
    "sqrt": (0.1, 3.0),
    "log": (0.1, 3.0),
    "log1p": (-0.8, 3.0),
    "tan": (-1.0, 1.0),
    "arcsin": (-0.8, 0.8),
    "arccos": (-0.8, 0.8),
    "arctan2": (0.3, 2.0),
    "arccosh": (1.2, 3.0),
    "arctanh": (-0.8, 0.8),
    "erfinv": (-0.8, 0.8),
    "lgamma": (0.3, 9.0),
    "digamma": (0.3, 9.0),
    # Rounded ones jump at integers and at halves.
    "floor": (0.05, 0.45),
    "ceil": (0.05, 0.45),
    "round": (-0.45, 0.45),
    "trunc": (0.05, 0.95),
}
# Calls that take integers too; what is in none of these sets takes reals only.
ON_NUMBERS = frozenset(
    ("add", "subtract", "multiply", "negative", "abs", "sign", "maximum", "minimum", "power")
) | frozenset(("mod", "floor_divide", "relu", "less", "less_equal", "stop_gradient"))
ON_BOOLS = frozenset(("logical_and", "logical_or", "logical_xor", "logical_not"))
ON_BITS = frozenset(
    ("bitwise_and", "bitwise_or", "bitwise_xor", "invert", "left_shift", "right_shift")
)
# Whatever the type.
ON_ALL = frozenset(("equal", "not_equal", "where"))
# Divisors, exponents and widths of shifts are not negative, and not large.
SMALL = frozenset(("mod", "floor_divide", "power", "left_shift", "right_shift"))
NOT_DIFFERENTIATED = frozenset(("stop_gradient",))


@dataclass(frozen=True)
class Domain:
    """A call on arguments of those types, with numbers from those ranges."""

    name: str
    dtypes: tuple[DType, ...]
    floats: tuple[float, float]
    integers: tuple[int, int]
    order: int


def domains() -> Iterator[Domain]:
    """Every primitive call on every element type that it takes."""
    for name, arity in PRIMITIVE_CALLS.items():
        for dtype in _dtypes(name):
            dtypes = (boolean, dtype, dtype) if name == "where" else (dtype,) * arity
            integers = (1, 9) if name in SMALL else _range(dtype)
            order = 0 if name in NOT_DIFFERENTIATED else 2
            yield Domain(name, dtypes, REALS.get(name, (-2.0, 2.0)), integers, order)


def _range(dtype: DType) -> tuple[int, int]:
    """Integers of both signs, and those of other types up to their ends."""
    if not dtype.is_integer:
        return (0, 2)
    limits = np.iinfo(dtype.numpy)
    return (-9, 9) if dtype in (i32, i64) else (int(limits.min), int(limits.max) + 1)


def _dtypes(name: str) -> tuple[DType, ...]:
    if name in ON_BOOLS:
        return (boolean,)
    if name in ON_BITS:
        return INTEGERS
    if name in ON_NUMBERS:
        return (f32, f64, *INTEGERS)
    return (f32, f64, *INTEGERS, boolean) if name in ON_ALL else (f32, f64)
