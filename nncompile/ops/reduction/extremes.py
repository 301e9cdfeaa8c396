"""The greatest and the least over one or several axes, and their places along one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, where
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Axes, Type, boolean, f32, f64, i32, i64, u32, u64
from nncompile.ops.core.finite import or_exact
from nncompile.ops.reduction.operands import (
    Reduction,
    along,
    kept,
    needs_elements,
    over,
    reduced_type,
)
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape


class Max(Reduction, Op):
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
        is_extreme = equal(x, kept(y, x, self.axes))
        count = cast(Sum(self.axes, True)(is_extreme), x.dtype)
        otherwise = where(equal(count, 0), const(np.nan, x.dtype), 0)  # of NaN none is chosen
        return (where(is_extreme, kept(g, x, self.axes) / count, otherwise),)

    def numpy(self, x: Array) -> Array:
        result: Array = self._numpy(x, self.axes, keepdims=self.keepdims)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        dtype = o.type.dtype
        if dtype in (i64, u32, u64):
            # The kernels of Reduce… compare the lower halves of i64 as signed numbers
            # (onnxruntime 1.31); those of Arg… do not.
            for axis in self.axes:
                index = getattr(o, f"Arg{self._kind}")(x, axis=axis, keepdims=1)
                x = o.GatherElements(x, index, axis=axis)
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
        known = o.Where(isnan, o.scalar(-np.inf if self._kind == "Max" else np.inf, dtype), x)
        return o.Where(has_nan, o.scalar(np.nan, dtype), self._reduced(o, known))

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


class ArgMax(Reduction, Op):
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
        index: str = getattr(o, f"Arg{self._kind}")(x, **options)
        if not dtype.is_float:
            return index

        def exact(o: OnnxEmitter, x: str) -> str:
            """onnxruntime's search passes over NaN; on CUDA it has none among integers."""
            isnan = o.cast(o.IsNaN(x), f32)
            axes, keepdims = o.ints([self.axis]), options["keepdims"]
            has_nan = o.cast(o.ReduceMax(isnan, axes, keepdims=keepdims), boolean)
            return o.Where(has_nan, o.ArgMax(isnan, **options), index)

        return or_exact(o, x, index, exact, o.type)

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
def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Value:
    """The place of the greatest along one axis (among all elements if None), i64; the first of
    equal ones. Raises `ShapeError` where there is nothing to choose from."""
    return _index("argmax", ArgMax, x, axis, keepdims)


@suggests_names
def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Value:
    """The place of the least along one axis (among all elements if None), i64; the first of
    equal ones. Raises `ShapeError` where there is nothing to choose from."""
    return _index("argmin", ArgMin, x, axis, keepdims)


def _index(name: str, op_type: type[ArgMax], x: Any, axis: int | None, keepdims: bool) -> Value:
    x = as_value(x)
    row, row_axis = along(name, x, axis)
    if axis is not None:
        return op_type(row_axis, keepdims)(row)
    return op_type(0)(row) if not keepdims else reshape(op_type(0)(row), (1,) * x.rank)


for _function in (max, min, argmax, argmin):
    register(_function.__name__, _function)
