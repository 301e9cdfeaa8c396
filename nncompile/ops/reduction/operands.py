"""What reductions share: their axes, what they accept, and the types of their results.

A reduction over nothing is as numpy's: a sum is 0, a product 1, a mean NaN; a maximum, a minimum
and their places do not exist.
"""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.basic import as_value, cast
from nncompile.ir.dims import product, same
from nncompile.ir.op import Value
from nncompile.ir.types import Axes, DType, Type, f32, i64, u64
from nncompile.ops.core.axes import axes_of, axis_of
from nncompile.ops.core.long_sums import reduced_shape
from nncompile.ops.shape.reshape import reshape


class Reduction:
    """What an op is that reduces axes: of size 1 in its result if `keepdims`, and gone if not."""

    keepdims: bool


def reduced_type(x: Type, axes: tuple[int, ...], keepdims: bool, dtype: DType) -> Type:
    """The type of `x` without the axes (of size 1 there with `keepdims`)."""
    return Type(dtype, reduced_shape(x.shape, axes, keepdims))


def kept(y: Value, x: Value, axes: tuple[int, ...]) -> Value:
    """A reduction of `x` with its axes back, as size 1."""
    shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    return y if y.rank == x.rank else reshape(y, shape)


def needs_elements(x: Type, axes: tuple[int, ...]) -> None:
    """Raises `ShapeError` where one of these axes has size 0."""
    for axis in axes:
        if same(x.shape[axis], 0):
            raise ShapeError(f"axis {axis} of {x} has size 0: there is nothing to choose from")


def accumulator(dtype: DType) -> DType:
    """Sums and products of integers and truth values are i64, as torch's; of u64 they are u64."""
    return dtype if dtype.is_float or dtype is u64 else i64


def require_real(x: Type) -> None:
    """Raises `DTypeError` where `x` is not floating-point."""
    if not x.dtype.is_float:
        raise DTypeError(f"elements must be real, got {x}", hint="x.astype(f32) converts integers")


def real_value(x: Any) -> Value:
    """`x` as a value of real numbers: integers and truth values become f32."""
    x = as_value(x)
    return x if x.dtype.is_float else cast(x, f32)


def over(name: str, x: Any, axis: Axes) -> tuple[Value, tuple[int, ...]]:
    """`x` as a value, and its axes as non-negative numbers; all axes for None."""
    x = as_value(x)
    return x, axes_of(axis, x.rank, f"{name}: axis")


def along(name: str, x: Any, axis: int | None) -> tuple[Value, int]:
    """The value and the axis; all elements in one row where there is none."""
    x = as_value(x)
    if axis is None:
        return reshape(x, (product(x.shape),)), 0
    return x, axis_of(axis, x.rank, f"{name}: axis")
