"""Maximum pooling, and the two linear ops that its gradients of any order are made of.

Where several elements of a window are greatest, the first in row-major order gets the gradient, and
of several that are NaN the last, as torch's.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.dims import Dim, dim, product, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64, i64, u8
from nncompile.ops.core.finite import masked, or_exact
from nncompile.ops.pooling.integers import integer_max_pool, numbers
from nncompile.ops.pooling.window_maxima import exact_places, greatest, numpy_places, places
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.slicing import LIMIT, padded
from nncompile.ops.windows.pooling import Slid, Window, slid
from nncompile.ops.windows.space import LEAD, plane_by_plane

# Up to that many elements of a window are compared one by one; onnxruntime's indices of the
# maxima cost several times the pooling itself.
TAPS = 16
NATIVE_AXES = (1, 2, 3)  # of space, that native kernels have


class MaxPool(Op, Native):
    """The greatest element of each window over [batch, channels, *space], NaN where one is NaN;
    padding is below every number."""

    window: Window

    def infer(self, x: Type) -> Type:
        require_real(x)
        return self.window.infer(x)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (MaxSpread(self.window)(g, x),)

    rowwise = plane_by_plane

    def numpy(self, x: Array) -> Array:
        windows = self.window.numpy(x, -np.inf)
        result: Array = windows.max(axis=_kernel_axes(self.window))
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return greatest(o, x, self.window)

    def native(self, x: Type) -> Kernel | None:
        return _kernel("MaxPool", x, self.window)

    def torch(self, t: TorchEmitter, x: str) -> str:
        w = self.window
        return t.call(f"torch.max_pool{w.rank}d", x, *w.torch)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for window, type_ in window_samples():
            yield Sample(cls(window), (type_,), distinct=True)


class MaxSpread(Op, Native):
    """`g`, one number for each window, added up at the places of the greatest elements of the
    windows of `x`; zeros elsewhere."""

    window: Window

    def infer(self, g: Type, x: Type) -> Type:
        require_real(g)
        if g.dtype is not x.dtype:
            raise DTypeError(f"element types differ, {g} ≠ {x}")
        if same_shape(g.shape, self.window.infer(x).shape) is not True:
            raise ShapeError(f"{g} is not one number for each window of {x}")
        return x

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return MaxPick(self.window)(g, args[1]), None

    rowwise = plane_by_plane

    def numpy(self, g: Array, x: Array) -> Array:
        spread = np.zeros(x.shape, x.dtype)
        np.add.at(spread, numpy_places(self.window, x), g)
        return spread

    def onnx(self, o: OnnxEmitter, g: str, x: str) -> str:
        window, dtype = self.window, o.type.dtype
        if window.is_partition and math.prod(window.kernel) <= TAPS and dtype is f32:
            return self._by_taps(o, g, x)
        flat = o.ints([-1])
        zeros = o.Expand(o.scalar(0, dtype), o.shape((product(o.type.shape),)))
        at, values = o.Reshape(places(o, x, window), flat), o.Reshape(g, flat)
        spread = o.ScatterElements(zeros, at, values, axis=0, reduction="add")
        return o.Reshape(spread, o.shape(o.type.shape), allowzero=1)

    def native(self, g: Type, x: Type) -> Kernel | None:
        return _kernel("MaxSpread", x, self.window)

    def _by_taps(self, o: OnnxEmitter, g: str, x: str) -> str:
        """The number of the first greatest element of each window, compared with the number of
        each element, both in the size of x: more than twice as fast as scattering."""
        kernel, space, counts = self.window.kernel, o.type.shape[LEAD:], o.types[0].shape[LEAD:]
        covered = tuple(dim(n * k) for n, k in zip(counts, kernel, strict=True))
        is_whole = same_shape(covered, space) is True
        chosen = self._numbers(o, x, None if is_whole else covered)
        numbers = np.arange(math.prod(kernel), dtype=np.uint8).reshape(kernel)
        pattern = o.Tile(o.constant(numbers), o.shape(counts))
        chosen = o.Equal(repeated(o, chosen, kernel), pattern)
        spread = masked(o, chosen, repeated(o, g, kernel), f32, source=g)
        left = [dim(n - c) for n, c in zip(space, covered, strict=True)]
        return spread if is_whole else padded_behind(o, spread, left)

    def _numbers(self, o: OnnxEmitter, x: str, covered: tuple[Dim, ...] | None) -> str:
        """The number within its window of the greatest element of each, u8."""
        kernel, type_ = self.window.kernel, o.types[0]
        axes, steps = o.ints(range(LEAD, LEAD + len(kernel))), o.ints(kernel)
        inner = x
        if covered:
            inner = o.Slice(x, o.ints([0] * len(kernel)), o.shape(covered), axes)
        top = greatest(o, x, self.window)  # that of the forward pass
        taps = list(itertools.product(*map(range, kernel)))
        if len(taps) == 1:
            return o.Expand(o.constant(np.asarray(0, np.uint8)), o.shape(type_.shape))
        # From each element on, the number of those before the first that is greatest.
        first, one = "", o.constant(np.asarray(1, np.uint8))
        for tap in reversed(taps[:-1]):
            element = o.Slice(inner, o.ints(tap), o.ints([LIMIT] * len(kernel)), axes, steps)
            is_less = o.cast(o.Less(element, top), u8)
            first = o.Mul(is_less, o.Add(first, one)) if first else is_less

        def exact(o: OnnxEmitter, x: str) -> str:
            at, number, count = exact_places(o, x, self.window), o.scalar(0, i64), 1
            for axis in reversed(range(len(kernel))):
                size = o.Shape(x, start=LEAD + axis, end=LEAD + axis + 1)
                position = o.Mod(o.Mod(at, size), o.scalar(kernel[axis], i64))
                number = o.Add(number, o.Mul(position, o.scalar(count, i64)))
                at, count = o.Div(at, size), count * kernel[axis]
            return o.cast(number, u8)

        return or_exact(o, x, first, exact, Type(u8, type_.shape))

    def torch(self, t: TorchEmitter, g: str, x: str) -> str:
        shape = t.type.shape
        flat = (*shape[:LEAD], product(shape[LEAD:]))
        zeros = t.call("torch.zeros", t.shape(flat), dtype=t.type.dtype)
        indices = torch_places(t, self.window, x)
        values = t.method(g, "flatten", LEAD)
        spread = t.call("torch.scatter_add", zeros, -1, indices, values)
        return t.method(spread, "reshape", t.shape(shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for window, type_ in window_samples():
            yield Sample(cls(window), (window.infer(type_), type_), distinct=True)


class MaxPick(Op):
    """The elements of `u` at the places where the windows of `x` have their greatest."""

    window: Window

    def infer(self, u: Type, x: Type) -> Type:
        require_real(u)
        if u.dtype is not x.dtype:
            raise DTypeError(f"element types differ, {u} ≠ {x}")
        if same_shape(u.shape, x.shape) is not True:
            raise ShapeError(f"{u} and {x} must have one shape")
        return self.window.infer(x)

    def pullback(self, g: Value, y: Value, u: Value, x: Value) -> Sequence[Value | None]:
        return MaxSpread(self.window)(g, x), None

    rowwise = plane_by_plane

    def numpy(self, u: Array, x: Array) -> Array:
        return u[numpy_places(self.window, x)]

    def onnx(self, o: OnnxEmitter, u: str, x: str) -> str:
        return o.Gather(o.Reshape(u, o.ints([-1])), places(o, x, self.window), axis=0)

    def torch(self, t: TorchEmitter, u: str, x: str) -> str:
        indices = torch_places(t, self.window, x)
        elements = t.call("torch.gather", t.method(u, "flatten", LEAD), -1, indices)
        return t.method(elements, "reshape", t.shape(t.type.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for window, type_ in window_samples():
            yield Sample(cls(window), (type_, type_), distinct=True)


def window_samples() -> Iterator[tuple[Window, Type]]:
    """Windows and what they slide over."""
    yield Window((2, 2), (2, 2), (0, 0), (1, 1)), f32["n", 3, "2*h + 2", "2*w + 2"]
    yield Window((2, 3), (2, 3), (0, 0), (1, 1)), f32["n", 2, "h + 2", 7]
    yield Window((3, 3), (2, 2), (1, 1), (1, 1)), f32["n", 2, "h + 1", "w + 1"]
    yield Window((3, 2), (1, 2), (0, 1), (2, 1)), f64["n", 2, 7, "w + 1"]
    yield Window((3,), (2,), (1,), (1,)), f32["n", 2, "m + 1"]
    yield Window((2,), (2,), (0,), (1,)), f64["n", 2, "2*m + 2"]
    yield Window((1,), (1,), (0,), (1,)), f32["n", 2, "m + 1"]
    yield Window((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)), f32["n", 1, 4, "h + 2", 5]
    yield Window((3, 1, 2), (1, 1, 1), (1, 0, 0), (1, 1, 1)), f32["n", 2, 3, 2, 4]
    yield Window((5, 5), (5, 5), (0, 0), (1, 1)), f32["n", 1, 11, 10]


def repeated(o: OnnxEmitter, x: str, factors: Sequence[int]) -> str:
    """Each element of space `factors` times in a row along its axis."""
    scales = o.constant(np.asarray([1] * LEAD + list(factors), np.float32))
    return o.Resize(
        x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )  # fmt: skip


def padded_behind(o: OnnxEmitter, x: str, widths: Sequence[Dim]) -> str:
    """`x` with zeros behind its last elements of space."""
    pads = o.shape((*[0] * (2 * LEAD + len(widths)), *widths))
    return o.Pad(x, pads, o.scalar(0, o.type.dtype), mode="constant")


def _kernel(name: str, x: Type, window: Window) -> Kernel | None:
    """A native kernel, for float32 along up to three axes."""
    if x.dtype is not f32 or window.rank not in NATIVE_AXES:
        return None
    return Kernel(name, **dataclasses.asdict(window))


def _kernel_axes(window: Window) -> tuple[int, ...]:
    return tuple(range(-window.rank, 0))


def torch_places(t: TorchEmitter, window: Window, x: str) -> str:
    """The places of the greatest elements of each plane, which is a vector."""
    function = f"torch.nn.functional.max_pool{window.rank}d_with_indices"
    results = t.call(function, x, *window.torch)
    return t.method(t.item(results, 1), "flatten", LEAD)


@suggests_names
def max_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    rank: int | None = None,
    what: str = "max_pool",
) -> Value:
    """The greatest element of each window over `x` [batch, channels, *space].

    `kernel_size`, `stride` (the kernel by default), `padding` (on both sides, a pair (before,
    after) for each axis, or "same") and `dilation` are one number or one for each axis of space.
    With `ceil_mode` a window may hang over the end, as torch's may; what is padded is below every
    number. Of equal elements the first in row-major order gets the gradient, as torch's. Integers
    are pooled exactly. Sizes may be symbolic. Raises `ShapeError`, which begins with `what`, where
    no window fits, and `DTypeError` for truth values.
    """
    x = numbers(what, x)
    windows = slid(what, x, rank, kernel_size, stride, padding, dilation, ceil_mode)
    if x.dtype.is_integer:
        return integer_max_pool(x, windows)
    wide, window = fitted(x, windows)
    return by_planes(wide, MaxPool(window))


def by_planes(x: Value, pool: Callable[[Value], Value]) -> Value:
    """pool(x), as of images of one channel where there may be no channels: of what onnxruntime
    pools, only the batch may be empty."""
    channels = x.shape[1]
    if isinstance(channels, int) and channels > 0:
        return pool(x)
    y = pool(reshape(x, (dim(x.shape[0] * channels), 1, *x.shape[LEAD:])))
    return reshape(y, (*x.shape[:LEAD], *y.shape[LEAD:]))


def fitted(x: Value, windows: Sequence[Slid]) -> tuple[Value, Window]:
    """x and a window of it that the op has: where padding is not equal, it is part of x."""
    if all(w.is_plain for w in windows):
        return x, window_of(windows, tuple(w.pads[0] for w in windows))
    before, after = around(windows)
    return padded(x, before, after, -math.inf), window_of(windows, (0,) * len(windows))


def window_of(windows: Sequence[Slid], pads: tuple[int, ...]) -> Window:
    """The windows of all axes as one, with other padding."""
    return Window(
        tuple(w.kernel for w in windows),
        tuple(w.stride for w in windows),
        pads,
        tuple(w.dilation for w in windows),
    )


def around(windows: Sequence[Slid]) -> tuple[list[Dim], list[Dim]]:
    """What is padded before and after the elements, for all axes."""
    return [0] * LEAD + [w.before for w in windows], [0] * LEAD + [w.after for w in windows]
