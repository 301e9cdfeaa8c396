"""Elements put at places given by indices: in the place of others, or combined with them.

Where several are put at one place the last one stays, in every backend: runtimes leave that open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, where
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.broadcasting import broadcast_to, full, ones_like
from nncompile.ir.dims import with_axis
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64, i32, i64, u32, u64
from nncompile.ops.core.axes import axis_of, beside_axis
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.running import running_together
from nncompile.ops.shape.gathering import ScatterAdd, TakeAlongAxis, take
from nncompile.ops.shape.indices import (
    as_column,
    check_integer,
    elements_at,
    numpy_scattered,
    places_of,
    scattered_type,
    slices_at,
    torch_places,
)
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.slicing import along, flip, padded
from nncompile.ops.shape.sorting import argsort


class ScatterMax(Op):
    """`x` with the greatest of itself and of all `updates[…, i, …]` at `indices[…, i, …]` along the
    axis, NaN where one is NaN; equal greatest ones share the gradient equally, and where the result
    is NaN so is the gradient, as torch's."""

    axis: int
    orders = True
    indexes = True

    _kind: ClassVar[str] = "max"
    _numpy: ClassVar[np.ufunc] = np.maximum
    _torch: ClassVar[str] = "amax"

    def infer(self, x: Type, indices: Type, updates: Type) -> Type:
        return scattered_type(x, indices, updates, self.axis)

    def pullback(
        self, g: Value, y: Value, x: Value, indices: Value, updates: Value
    ) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return None, None, None
        at = TakeAlongAxis(self.axis)
        from_x, from_updates = equal(x, y), equal(updates, at(y, indices))
        count = ScatterAdd(self.axis)(cast(from_x, x.dtype), indices, cast(from_updates, x.dtype))
        share, otherwise = (
            g / count,
            where(equal(count, 0), const(np.nan, x.dtype), 0),
        )  # of NaN none is chosen
        return (
            where(from_x, share, otherwise),
            None,
            where(from_updates, at(share, indices), at(otherwise, indices)),
        )

    rowwise = beside_axis

    def numpy(self, x: Array, indices: Array, updates: Array) -> Array:
        return numpy_scattered(self._numpy, x, indices, updates, self.axis)

    def onnx(self, o: OnnxEmitter, x: str, indices: str, updates: str) -> str:
        positions, dtype = places_of(o, indices), o.types[0].dtype
        if not dtype.is_float or self._kind == "mul":
            return self._scattered(o, x, positions, updates)
        unknown = [o.cast(o.IsNaN(v), i32) for v in (x, updates)]
        number = o.Add(*(o.ReduceSum(v, keepdims=0) for v in unknown))

        def careful(o: OnnxEmitter) -> list[str]:
            """onnxruntime takes NaN for greater or for less, as it comes."""
            neutral = o.scalar(-np.inf if self._kind == "max" else np.inf, dtype)
            known = [o.Where(o.IsNaN(v), neutral, v) for v in (x, updates)]
            y = self._scattered(o, known[0], positions, known[1])
            marks = o.ScatterElements(
                unknown[0], positions, unknown[1], axis=self.axis, reduction="max"
            )
            is_nan = o.Greater(marks, o.scalar(0, i32))
            return [o.Where(is_nan, o.scalar(np.nan, dtype), y)]

        return o.If(
            o.Greater(number, o.scalar(0, i32)),
            then_branch=o.branch("unknown", careful, [o.type]),
            else_branch=o.branch(
                "known", lambda o: [self._scattered(o, x, positions, updates)], [o.type]
            ),
        )

    def _scattered(self, o: OnnxEmitter, x: str, positions: str, updates: str) -> str:
        return o.ScatterElements(x, positions, updates, axis=self.axis, reduction=self._kind)

    def torch(self, t: TorchEmitter, x: str, indices: str, updates: str) -> str:
        if self.orders and t.types[1].dtype is u64:  # which was given as ordered in int64, too
            indices = t.call("torch.bitwise_xor", indices, -(2**63))
        index = torch_places(t, indices, t.types[0].shape[self.axis])
        y = t.call("torch.scatter_reduce", x, self.axis, index, updates, reduce=f'"{self._torch}"')
        return t.wrapped(y, t.type.dtype)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(
            cls(1), (f32["n", 4], i64["n", 3], f32["n", 3]), integers=(-4, 4), distinct=True
        )
        yield Sample(cls(0), (f64[3, "n"], i32["m", "n"], f64["m", "n"]), integers=(0, 3))
        yield Sample(cls(0), (i64[5], u32["n"], i64["n"]), integers=(0, 5))
        yield Sample(cls(0), (u32[2], i64["n"], u32["n"]), integers=(0, 2))


class ScatterMin(ScatterMax):
    """`x` with the least of itself and of all `updates[…, i, …]` at `indices[…, i, …]` along the
    axis, NaN where one is NaN; equal least ones share the gradient equally, and where the result is
    NaN so is the gradient, as torch's."""

    _kind: ClassVar[str] = "min"
    _numpy: ClassVar[np.ufunc] = np.minimum
    _torch: ClassVar[str] = "amin"


class ScatterMul(ScatterMax):
    """`x` multiplied by all `updates[…, i, …]` at `indices[…, i, …]` along the axis."""

    orders = False

    _kind: ClassVar[str] = "mul"
    _numpy: ClassVar[np.ufunc] = np.multiply
    _torch: ClassVar[str] = "prod"

    def pullback(
        self, g: Value, y: Value, x: Value, indices: Value, updates: Value
    ) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return None, None, None
        factors = ScatterMul(self.axis)(ones_like(x), indices, updates)
        other_products = _product_of_others(updates, indices, x.shape[self.axis], self.axis)
        return g * factors, None, TakeAlongAxis(self.axis)(g * x, indices) * other_products


def _product_of_others(updates: Value, indices: Value, size: Any, axis: int) -> Value:
    """For each element the product of the others that have its index: of those before it and of
    those after it, in the order of the indices. It is right where some are zero."""
    positions = cast(indices, i64)
    positions = where(positions < 0, positions + as_value(size), positions)
    order = argsort(positions, axis)
    at = TakeAlongAxis(axis)
    positions, ordered = at(positions, order), at(updates, order)
    before = _product_before(positions, ordered, axis)
    after = flip(_product_before(flip(positions, axis), flip(ordered, axis), axis), axis)
    return ScatterAdd(axis)(full(updates.shape, 0, updates.dtype), order, before * after)


def _product_before(positions: Value, x: Value, axis: int) -> Value:
    """For each element the product of those before it that have its place."""

    def combined(left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
        return right[0], where(left[0] == right[0], left[1] * right[1], right[1])

    _, products = running_together(combined, (positions, x), axis, (-1, 1))
    size = x.shape[axis]
    first, last = ([w if i == axis else 0 for i in range(x.rank)] for w in (1, 0))
    before = along(padded(products, first, last, 1), axis, 0, size, 1)
    position_before = along(padded(positions, first, last, -1), axis, 0, size, 1)
    return where(position_before == positions, before, 1)


REDUCTIONS: dict[str, Callable[[int], Op]] = {
    "add": ScatterAdd,
    "mul": ScatterMul,
    "max": ScatterMax,
    "min": ScatterMin,
}
# What they are called in torch and numpy.
_ELSEWHERE = {"sum": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}


def _check_reduction(name: str, reduction: str) -> None:
    if reduction != "none" and reduction not in REDUCTIONS:
        equivalent = _ELSEWHERE.get(reduction)
        names = ["none", *REDUCTIONS]
        raise ModelError(
            f"{name}: there is no reduction {reduction!r}",
            hint=f'here it is "{equivalent}"' if equivalent else did_you_mean(reduction, names),
        )


def _combined(x: Value, indices: Value, updates: Value, axis: int, reduction: str) -> Value:
    if reduction == "none":
        last = _last(x.shape[axis], indices, axis)
        return where(last > 0, TakeAlongAxis(axis)(_behind_zeros(updates, axis), last), x)
    if x.dtype.is_bool:
        # Sums and maxima of truth values are whether one is true, products and minima whether all.
        kind = "max" if reduction in ("add", "max") else "min"
        y = REDUCTIONS[kind](axis)(cast(x, i32), indices, cast(updates, i32))
        return cast(y, x.dtype)
    return REDUCTIONS[reduction](axis)(x, indices, updates)


def _last(size: Any, indices: Value, axis: int) -> Value:
    """For each place along the axis the number of the last index that is it, counted from 1; or 0.
    It does not matter in which order a runtime goes through them."""
    zeros = full(with_axis(indices.shape, axis, size), 0, i64)
    numbers = as_column(iota(indices.shape[axis]) + 1, indices, axis)
    return ScatterMax(axis)(zeros, indices, broadcast_to(numbers, indices.shape))


def _behind_zeros(x: Value, axis: int) -> Value:
    """`x` behind one slice of zeros."""
    return concatenate([full(with_axis(x.shape, axis, 1), 0, x.dtype), x], axis)


@suggests_names
def put_along_axis(x: Any, indices: Any, values: Any, axis: int, reduction: str = "none") -> Value:
    """`x` with `values[…, i, …]` at `indices[…, i, …]` along the axis, in the place of what was
    there; of equal indices the last one counts. Other axes of `indices`, and all of `values`,
    broadcast. With `reduction` "add", "mul", "max" or "min" they are combined with what was there.

    The gradient goes to what is in the result. Raises `ModelError` for another reduction.
    """
    _check_reduction("put_along_axis", reduction)
    x, indices = as_value(x), as_value(indices)
    check_integer(indices.type)
    axis = axis_of(axis, x.rank)
    indices, values = elements_at(x, indices, cast(as_value(values, x), x.dtype), axis)
    return _combined(x, indices, values, axis, reduction)


@suggests_names
def scatter(x: Any, indices: Any, updates: Any, axis: int = 0, reduction: str = "none") -> Value:
    """`x` with `updates` in the place of its slices across the axis at `indices`, the inverse of
    `take`: the shape of `updates` is that of `take(x, indices, axis)`. Of equal indices the last
    one counts. With `reduction` "add", "mul", "max" or "min" they are combined with what was there.

    The gradient goes to what is in the result. Raises `ModelError` for another reduction.
    """
    _check_reduction("scatter", reduction)
    if isinstance(axis, Value):
        raise ModelError(
            f"scatter: the axis must be a number, got {axis.type}",
            hint="torch's scatter(axis, indices, values) is "
            "put_along_axis(x, indices, values, axis)",
        )
    x, indices = as_value(x), as_value(indices)
    check_integer(indices.type)
    axis = axis_of(axis, x.rank)
    row, slices = slices_at(x, indices, cast(as_value(updates, x), x.dtype), axis)
    if reduction != "none":
        column = broadcast_to(as_column(row, slices, axis), slices.shape)
        return _combined(x, column, slices, axis, reduction)
    # Of the indices one is asked for each slice, and not each element.
    last = _last(x.shape[axis], row, 0)
    rows = take(_behind_zeros(slices, axis), last, axis)
    result: Value = where(as_column(last > 0, x, axis), rows, x)
    return result


register("scatter", scatter)
