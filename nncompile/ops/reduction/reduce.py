"""Reductions: ops over one or several axes, and what is composed of them.

A reduction over nothing is as numpy's: a sum is 0, a product 1, a mean NaN; a maximum, a minimum
and their places do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, exp, where
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import product, same
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import (
    Array,
    Axes,
    DType,
    Type,
    boolean,
    dtype_of,
    f32,
    f64,
    i32,
    i64,
    u32,
    u64,
)
from nncompile.ops.core.axes import axes_of, axis_of
from nncompile.ops.core.finite import or_exact
from nncompile.ops.core.long_sums import reduced_shape, runs, total, whole_total
from nncompile.ops.shape.reshape import reshape

# So many integers of 32 bits have a sum below 2⁵³, up to where onnxruntime's is exact.
_EXACT_COUNT = 2**21


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


class Sum(Op):
    """Σ x over `axes`; of integers and truth values in i64."""

    axes: tuple[int, ...]
    keepdims: bool = False
    varies: ClassVar[str] = "axes"

    def infer(self, x: Type) -> Type:
        return reduced_type(x, self.axes, self.keepdims, accumulator(x.dtype))

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return (None,)
        return (broadcast_to(kept(g, x, self.axes), x.shape),)

    def numpy(self, x: Array) -> Array:
        dtype = accumulator(dtype_of(x)).numpy
        result: Array = x.sum(self.axes, dtype=dtype, keepdims=self.keepdims)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        source, dtype = o.types[0], o.type.dtype
        if dtype.is_float:
            return total(o, x, source, self.axes, self.keepdims)
        counts = product(source.shape[i] for i in self.axes)
        if source.dtype.is_bool or (
            source.dtype is not dtype and isinstance(counts, int) and counts < _EXACT_COUNT
        ):
            x = o.cast(x, dtype)
            return o.ReduceSum(x, o.ints(self.axes), keepdims=int(self.keepdims))
        x = x if source.dtype is dtype else o.cast(x, dtype)
        wide = Type(dtype, source.shape)
        return whole_total(o, x, wide, self.axes, self.keepdims)

    def torch(self, t: TorchEmitter, x: str) -> str:
        # Over axes that do not stand side by side, torch adds one number after the other.
        for start, stop in reversed(runs(self.axes)):
            x = t.call("torch.sum", x, [*range(start, stop)], keepdim=self.keepdims)
        return x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield from _samples(cls)
        yield Sample(cls((0, 2)), (boolean[2, "n", 3],))
        yield Sample(cls((0,)), (u32["n"],), integers=(2**32 - 9, 2**32))
        yield Sample(cls((1,)), (i32[2, "n"],), integers=(2**31 - 9, 2**31))
        yield Sample(cls((0, 2)), (i64["n", 2, 3],), integers=(-(2**63), 2**63))
        yield Sample(cls((1,), True), (i64["n", "m", 2],), integers=(-(2**63), 2**63))
        yield Sample(cls((1, 2)), (i64["n", "m", 3],), integers=(-(2**63), 2**63))
        # Beyond what one accumulator may add.
        yield Sample(cls((0,)), (f32[700, "n"],))
        yield Sample(cls((0, 1), True), (f32[1031, 2],))
        yield Sample(cls((1,)), (f32[2, 263, "n"],), order=1)
        yield Sample(cls((0,)), (f32["150*n", 2],))
        yield Sample(cls((0, 1)), (f32["n", 600],))


class Max(Op):
    """The greatest of `x` over `axes`, NaN where one is NaN; equal greatest ones share the gradient
    equally, and where the result is NaN so is the gradient, as that of torch's amax."""

    axes: tuple[int, ...]
    keepdims: bool = False
    varies: ClassVar[str] = "axes"
    orders = True

    _numpy: ClassVar[Callable[..., Any]] = staticmethod(np.max)
    _kind: ClassVar[str] = "Max"
    _torch: ClassVar[str] = "torch.amax"

    def infer(self, x: Type) -> Type:
        needs_elements(x, self.axes)
        return reduced_type(x, self.axes, self.keepdims, x.dtype)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        if not x.dtype.is_float:
            return (None,)
        chosen = equal(x, kept(y, x, self.axes))
        count = cast(Sum(self.axes, True)(chosen), x.dtype)
        others = where(equal(count, 0), const(np.nan, x.dtype), 0)  # of NaN none is chosen
        return (where(chosen, kept(g, x, self.axes) / count, others),)

    def numpy(self, x: Array) -> Array:
        result: Array = self._numpy(x, self.axes, keepdims=self.keepdims)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        dtype = o.type.dtype
        if dtype in (i64, u32, u64):
            # The kernels of Reduce… compare the lower halves of i64 as signed numbers
            # (onnxruntime 1.31); those of Arg… do not.
            for axis in self.axes:
                place = getattr(o, f"Arg{self._kind}")(x, axis=axis, keepdims=1)
                x = o.GatherElements(x, place, axis=axis)
            y = x if self.keepdims else o.Squeeze(x, o.ints(self.axes))
        else:
            y = self._reduced(o, x)
        if dtype.is_float:
            return or_exact(o, x, y, self._exact, o.type)
        return y

    def _reduced(self, o: OnnxEmitter, x: str, kind: str = "") -> str:
        emit = getattr(o, f"Reduce{kind or self._kind}")
        result: str = emit(x, o.ints(self.axes), keepdims=int(self.keepdims))
        return result

    def _exact(self, o: OnnxEmitter, x: str) -> str:
        """onnxruntime's reduction loses NaN."""
        dtype = o.type.dtype
        isnan = o.IsNaN(x)
        has_nan = o.cast(self._reduced(o, o.cast(isnan, i32), "Max"), boolean)
        others = o.Where(isnan, o.scalar(-np.inf if self._kind == "Max" else np.inf, dtype), x)
        return o.Where(has_nan, o.scalar(np.nan, dtype), self._reduced(o, others))

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.call(self._torch, x, list(self.axes), keepdim=self.keepdims)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls((1,)), (f32["n", 3],), distinct=True)
        yield Sample(cls((0,)), (f32["n+1", "m"],), distinct=True)
        yield Sample(cls((0, 1), True), (f64[2, "n+1"],), distinct=True)
        yield Sample(cls((0, 2)), (f32[2, "n", 3, 2],), distinct=True)
        yield Sample(cls((0, 2), True), (i64["n+1", "m", 2],), integers=(-(2**33), 2**33))
        yield Sample(cls((1,)), (i64["n", 4],), integers=(-(2**32), 2**32))
        yield Sample(cls((0,), True), (i64["n+1"],), integers=(-(2**62), 2**62))
        yield Sample(cls((0,)), (i32["n+1", 2],), integers=(-(2**31), 2**31))
        yield Sample(cls((1,)), (u32["n", 5],), integers=(0, 2**32))
        yield Sample(cls((1,), True), (boolean["n", 2],))


class Min(Max):
    """The least of `x` over `axes`, NaN where one is NaN; equal least ones share the gradient
    equally, and where the result is NaN so is the gradient, as that of torch's amin."""

    _numpy: ClassVar[Callable[..., Any]] = staticmethod(np.min)
    _kind: ClassVar[str] = "Min"
    _torch: ClassVar[str] = "torch.amin"


class LogSumExp(Op):
    """log Σ exp(x) over `axes`; never overflows."""

    label = "logsumexp"

    axes: tuple[int, ...]
    keepdims: bool = False
    varies: ClassVar[str] = "axes"

    def infer(self, x: Type) -> Type:
        require_real(x)
        return reduced_type(x, self.axes, self.keepdims, x.dtype)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        above, total = (kept(v, x, self.axes) for v in (g, y))
        # Where all of x is −∞, x − y would be NaN; no element matters there.
        total = where(equal(total, -np.inf), 0, total)
        return (above * exp(x - total),)

    def numpy(self, x: Array) -> Array:
        top = x.max(self.axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(top), top, 0)
        with np.errstate(divide="ignore"):  # log 0 = −∞ is meant
            total = np.log(np.exp(x - shift).sum(self.axes, keepdims=True)) + shift
        result: Array = total if self.keepdims else total.squeeze(self.axes)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        # onnxruntime 1.31's ReduceLogSumExp takes five times as long, and overlooks what is small
        # beside a first element of −∞.
        dtype, axes = o.type.dtype, o.ints(self.axes)
        greatest = np.finfo(dtype.numpy).max
        top = o.ReduceMax(x, axes, keepdims=1)
        top = o.Min(o.Max(top, o.scalar(-greatest, dtype)), o.scalar(greatest, dtype))
        powers = total(o, o.Exp(o.Sub(x, top)), o.types[0], self.axes, True)
        y = o.Add(o.Log(powers), top)
        return y if self.keepdims else o.Squeeze(y, axes)

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.call("torch.logsumexp", x, list(self.axes), keepdim=self.keepdims)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for sample in _samples(cls):
            if sample.types[0].dtype.is_float:
                yield sample
        yield Sample(cls((1,)), (f32["n", 4],), floats=(-200.0, 200.0), order=1)


class ArgMax(Op):
    """The place of the greatest along one axis, i64; the first of equal ones, or of NaN."""

    orders = True
    label = "argmax"

    axis: int
    keepdims: bool = False
    varies: ClassVar[str] = "axis"
    differentiable: ClassVar[bool] = False

    _numpy: ClassVar[Callable[..., Any]] = staticmethod(np.argmax)
    _kind: ClassVar[str] = "Max"
    _torch: ClassVar[str] = "torch.argmax"

    def infer(self, x: Type) -> Type:
        needs_elements(x, (self.axis,))
        return reduced_type(x, (self.axis,), self.keepdims, i64)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (None,)

    def numpy(self, x: Array) -> Array:
        result: Array = self._numpy(x, self.axis, keepdims=self.keepdims)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        dtype = o.types[0].dtype
        options: dict[str, Any] = {"axis": self.axis, "keepdims": int(self.keepdims)}
        place: str = getattr(o, f"Arg{self._kind}")(x, **options)
        if not dtype.is_float:
            return place

        def exact(o: OnnxEmitter, x: str) -> str:
            """onnxruntime's search passes over NaN."""
            isnan = o.cast(o.IsNaN(x), i32)
            axes, keepdims = o.ints([self.axis]), options["keepdims"]
            has_nan = o.cast(o.ReduceMax(isnan, axes, keepdims=keepdims), boolean)
            return o.Where(has_nan, o.ArgMax(isnan, **options), place)

        return or_exact(o, x, place, exact, o.type)

    def torch(self, t: TorchEmitter, x: str) -> str:
        if t.types[0].dtype.is_bool:  # torch has none for truth values
            x = t.method(x, "to", t.dtype(i64))
        return t.call(self._torch, x, self.axis, keepdim=self.keepdims)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(1), (f32["n", 3],), distinct=True)
        yield Sample(cls(0, True), (f32["n+1", "m"],), distinct=True)
        yield Sample(cls(0), (f64["n+1"],), distinct=True)
        for dtype in (i64, i32, u32, boolean):
            yield Sample(cls(1), (dtype["n", 5],), integers=(0, 3))


class ArgMin(ArgMax):
    """The place of the least along one axis, i64; the first of equal ones, or of NaN."""

    label = "argmin"

    _numpy: ClassVar[Callable[..., Any]] = staticmethod(np.argmin)
    _kind: ClassVar[str] = "Min"
    _torch: ClassVar[str] = "torch.argmin"


def _samples(op_type: type[Sum] | type[LogSumExp]) -> Iterator[Sample]:
    """What a reduction over several axes is tested on."""
    yield Sample(op_type((0,)), (f32["n"],))
    yield Sample(op_type((1,), True), (f32["n", "m"],))
    yield Sample(op_type((0, 2)), (f32[2, "n", 3],))
    yield Sample(op_type((0, 1, 2, 3)), (f32[2, "n", 1, 2],))
    yield Sample(op_type((1,)), (f64[3, "2*n", 2],))
    yield Sample(op_type((0,)), (i64["n", 2],), integers=(-9, 9))


# What users call, with numpy's names and arguments.


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


@suggests_names
def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """Σ x over one axis, several or all; of integers and truth values in i64.

    Raises `ShapeError` for an axis that `x` does not have.
    """
    x, axes = over("sum", x, axis)
    return Sum(axes, keepdims)(x) if axes else cast(x, accumulator(x.dtype))


@suggests_names
def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The greatest over one axis, several or all. Equal greatest ones share the gradient equally.

    Raises `ShapeError` where there is nothing to choose from.
    """
    x, axes = over("max", x, axis)
    return Max(axes, keepdims)(x) if axes else x


@suggests_names
def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """The least over one axis, several or all. Equal least ones share the gradient equally.

    Raises `ShapeError` where there is nothing to choose from.
    """
    x, axes = over("min", x, axis)
    return Min(axes, keepdims)(x) if axes else x


@suggests_names
def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Value:
    """log Σ exp(x) over one axis, several or all; never overflows."""
    x, axes = over("logsumexp", x, axis)
    x = real_value(x)
    return LogSumExp(axes, keepdims)(x) if axes else x


@suggests_names
def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Value:
    """The place of the greatest along one axis (among all elements if None), i64; the first of
    equal ones. Raises `ShapeError` where there is nothing to choose from."""
    return _place("argmax", ArgMax, x, axis, keepdims)


@suggests_names
def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Value:
    """The place of the least along one axis (among all elements if None), i64; the first of
    equal ones. Raises `ShapeError` where there is nothing to choose from."""
    return _place("argmin", ArgMin, x, axis, keepdims)


def _place(name: str, op_type: type[ArgMax], x: Any, axis: int | None, keepdims: bool) -> Value:
    x = as_value(x)
    row, place = along(name, x, axis)
    if axis is not None:
        return op_type(place, keepdims)(row)
    return op_type(0)(row) if not keepdims else reshape(op_type(0)(row), (1,) * x.rank)


for _function in (sum, max, min, argmax, argmin):
    register(_function.__name__, _function)
