"""Average pooling and its transpose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import maximum, minimum
from nncompile.ir.basic import cast, const, floating, size_value
from nncompile.ir.dims import Dim, Shape, dim, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.contraction.axis_maps import along_axis, span_matrix
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.core.counting import iota
from nncompile.ops.core.long_sums import ACROSS
from nncompile.ops.pooling.maximum import (
    around,
    by_planes,
    padded_behind,
    repeated,
    window_of,
    window_samples,
)
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.shape.reshape import reshape, transpose
from nncompile.ops.shape.slicing import padded
from nncompile.ops.windows.pooling import Slid, Window, slid
from nncompile.ops.windows.space import LEAD, plane_by_plane


class AveragePool(Op):
    """The sum of each window over [batch, channels, *space], zeros in the padding, divided by the
    number of the kernel's elements."""

    window: Window

    def infer(self, x: Type) -> Type:
        require_real(x)
        return self.window.infer(x)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (AverageSpread(self.window, x.shape[LEAD:])(g),)

    rowwise = plane_by_plane

    def numpy(self, x: Array) -> Array:
        windows = self.window.numpy(x, 0)
        result: Array = windows.mean(tuple(range(-self.window.rank, 0)))
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        w = self.window
        if o.type.dtype is f64:  # no kernel
            return composed_onnx(o, lambda v: [_by_matrices(v, w)], x)[0]
        if set(w.dilations) != {1}:  # its kernel mixes gaps and padding up, in 1.23
            planes = o.Reshape(x, o.shape(_planes(o.types[0].shape)))
            weights = _weights(o, w)
            y = o.Conv(planes, weights, **w.onnx)
            return o.Reshape(y, o.shape(o.type.shape), allowzero=1)
        pads = w.pads
        # onnxruntime before 1.24 does not count all of those at the ends.
        if len(set(pads)) > 1 or (w.rank > 2 and any(pads)):
            widths = o.shape(([0] * LEAD + list(pads)) * 2)
            x, pads = o.Pad(x, widths, o.scalar(0, o.type.dtype), mode="constant"), (0,) * w.rank
        # Joined with a padding, maybe through a cast, that must be smaller than a window.
        x = o.apart(x, "Pad", "Cast", static=pads != w.pads)
        return o.AveragePool(
            x, kernel_shape=list(w.kernel), strides=list(w.strides), pads=[*pads, *pads],
            count_include_pad=1,
        )  # fmt: skip

    def torch(self, t: TorchEmitter, x: str) -> str:
        w = self.window
        if set(w.dilations) != {1}:  # torch has none
            planes = t.method(x, "reshape", t.shape(_planes(t.types[0].shape)))
            weights = t.call("torch.full", [1, 1, *w.kernel], w.share, dtype=t.type.dtype)
            where = map(list, (w.strides, w.pads, w.dilations))
            y = t.call(f"torch.conv{w.rank}d", planes, weights, "None", *where)
            return t.method(y, "reshape", t.shape(t.type.shape))
        options = map(list, (w.kernel, w.strides, w.pads))
        function = "torch.avg_pool1d" if w.rank == 1 else f"torch._C._nn.avg_pool{w.rank}d"
        return t.call(function, x, *options)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for window, type_ in _samples():
            yield Sample(cls(window), (type_,))


class AverageSpread(Op):
    """`g`, one number for each window over space of the given sizes: each element gets the sum of
    those of the windows that it lies in, divided by the number of the kernel's elements. The
    transpose of `AveragePool`."""

    window: Window
    sizes: Shape

    def infer(self, g: Type) -> Type:
        require_real(g)
        x = Type(g.dtype, (*g.shape[:LEAD], *self.sizes))
        if same_shape(g.shape, self.window.infer(x).shape) is not True:
            raise ShapeError(f"{g} is not one number for each window of {x}")
        return x

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return (AveragePool(self.window)(g),)

    rowwise = plane_by_plane

    def numpy(self, g: Array) -> Array:
        w = self.window
        sizes = [int(n) for n in self.sizes]
        wide = [n + 2 * p for n, p in zip(sizes, w.pads, strict=True)]
        total = np.zeros((*g.shape[:LEAD], *wide), g.dtype)
        share = g / math.prod(w.kernel)
        lead = (slice(None),) * LEAD
        for tap in itertools.product(
            *(range(0, n, d) for n, d in zip(w.spans, w.dilations, strict=True))
        ):
            reach = zip(tap, w.strides, g.shape[LEAD:], strict=True)
            total[lead + tuple(slice(i, i + (n - 1) * s + 1, s) for i, s, n in reach)] += share
        inner = zip(w.pads, sizes, strict=True)
        return total[lead + tuple(slice(p, p + n) for p, n in inner)]

    def _left(self, counts: Shape) -> list[Dim]:
        """How many elements lie behind the last window, along each axis."""
        w = self.window
        axes: Any = zip(self.sizes, counts, w.spans, w.strides, w.pads, strict=True)
        return [dim(size - ((n - 1) * s + k - 2 * p)) for size, n, k, s, p in axes]

    def _ends(self, left: Sequence[Any]) -> tuple[list[int], list[Dim]]:
        """What to cut off behind the sum of all windows, and then to add (or to remove, where
        negative): elements behind the last window that the padding would have covered are cut by
        their number, which may depend on the sizes."""
        pairs = list(zip(left, self.window.pads, strict=True))
        return [p if n == 0 else 0 for n, p in pairs], [
            dim(n - p) if n != 0 else 0 for n, p in pairs
        ]

    def onnx(self, o: OnnxEmitter, g: str) -> str:
        w, type_ = self.window, o.types[0]
        if type_.dtype is f64:  # no kernel
            return composed_onnx(o, lambda v: [_by_matrices(v, w, self.sizes)], g)[0]
        left = self._left(type_.shape[LEAD:])
        if w.is_partition:
            share = o.Mul(g, o.scalar(w.share, f32))
            spread = repeated(o, share, w.kernel)
            return padded_behind(o, spread, left) if any(n != 0 for n in left) else spread
        planes = o.Reshape(g, o.shape(_planes(type_.shape)))
        cut, missing = self._ends(left)
        spread = o.ConvTranspose(planes, _weights(o, w), **w.onnx | {"pads": [*w.pads, *cut]})
        spread = padded_behind(o, spread, missing) if any(n != 0 for n in missing) else spread
        return o.Reshape(spread, o.shape(o.type.shape), allowzero=1)

    def torch(self, t: TorchEmitter, g: str) -> str:
        w, shape = self.window, t.types[0].shape
        planes = t.method(g, "reshape", t.shape(_planes(shape)))
        weights = t.call("torch.full", [1, 1, *w.kernel], w.share, dtype=t.type.dtype)
        function = f"torch.conv_transpose{w.rank}d"
        zeros = [0] * w.rank
        options = list(w.strides), zeros, zeros, 1, list(w.dilations)
        spread = t.call(function, planes, weights, "None", *options)
        left: list[Any] = self._left(shape[LEAD:])
        widths = [
            dim(d) for n, p in reversed(list(zip(left, w.pads, strict=True))) for d in (-p, n - p)
        ]
        if any(d != 0 for d in widths):
            spread = t.call("torch.nn.functional.pad", spread, t.shape(widths))
        return t.method(spread, "reshape", t.shape(t.type.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for window, type_ in _samples():
            yield Sample(cls(window, type_.shape[LEAD:]), (window.infer(type_),))


def _samples() -> Iterator[tuple[Window, Type]]:
    """Windows and what they slide over."""
    yield from window_samples()
    yield Window((3, 2), (1, 3), (0, 1), (1, 1)), f64["n", 2, 7, "w + 1"]
    yield Window((2,), (2,), (0,), (1,)), f64["n", 2, "2*m + 3"]
    yield Window((2,), (3,), (0,), (1,)), f32["n", 2, "m + 2"]
    yield Window((3, 2), (1, 2), (1, 0), (1, 1)), f32["n", 2, "h + 1", "w + 2"]
    yield Window((2, 3), (2, 1), (1, 0), (3, 2)), f32["n", 2, "h + 2", "w + 5"]
    yield Window((3,), (2,), (1,), (2,)), f64["n", 2, "m + 3"]
    yield Window((2,), (2,), (0,), (2,)), f32["n", 2, "m + 3"]


def _planes(shape: Shape) -> Shape:
    """[batch, channels, *space] as images of one channel."""
    return (dim(shape[0] * shape[1]), 1, *shape[LEAD:])


def _weights(o: OnnxEmitter, window: Window) -> str:
    """The kernel that averages."""
    return o.constant(np.full((1, 1, *window.kernel), window.share, np.float32))


def _by_matrices(x: Value, window: Window, sizes: Shape | None = None) -> Value:
    """The average pooling of x, or its transpose to space of the given sizes."""
    space = x.shape[LEAD:] if sizes is None else sizes
    for i, count in enumerate(window.counts(space)):
        starts = iota(count) * window.strides[i] - window.pads[i]
        share = const(1 / window.kernel[i], x.dtype)
        step = window.dilations[i]
        matrix = span_matrix(starts, starts + window.spans[i], space[i], share, step)
        x = along_axis(x, LEAD + i, matrix if sizes is None else transpose(matrix))
    return x


@suggests_names
def average_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    dilation: Any = 1,
    *,
    rank: int | None = None,
    what: str = "average_pool",
) -> Value:
    """The mean of each window over `x` [batch, channels, *space].

    `kernel_size`, `stride` (the kernel by default), `padding` (zeros on both sides, a pair (before,
    after) for each axis, or "same") and `dilation` are one number or one for each axis of space.
    Zeros that are padded count among the elements that the sum is divided by, as torch's do, unless
    `count_include_pad` is false; those of "same" do not, as in Keras. With `ceil_mode` a window may
    hang over the end; what hangs over does not count. Sizes may be symbolic. Raises `ShapeError`,
    which begins with `what`, where no window fits.
    """
    x = floating(what, x)
    windows = slid(what, x, rank, kernel_size, stride, padding, dilation, ceil_mode)
    counted = count_include_pad and padding != "same"
    space, pads = x.shape[LEAD:], tuple(w.pads[0] for w in windows)
    if not all(w.is_plain for w in windows):
        before, after = around(windows)
        x, pads = padded(x, before, after), (0,) * len(windows)
    y: Value = x
    for window in _by_axes(window_of(windows, pads)):
        y = by_planes(y, AveragePool(window))
    for i, (w, size) in enumerate(zip(windows, space, strict=True)):
        margins = w.pads if counted else (0, 0)
        if (w.before, w.after) != margins:
            share = w.kernel / cast(_counts(w, size, margins), y.dtype)
            y = y * reshape(share, (w.count, *(1 for _ in windows[i + 1 :])))
    return y


def _by_axes(window: Window) -> Iterator[Window]:
    """The window, or one for each axis where it has so many elements that kernels, which add one
    after the other, would lose digits; it is faster, too."""
    if math.prod(window.kernel) <= ACROSS:
        yield window
        return
    for i in range(window.rank):
        sizes = (window.kernel, window.strides, window.pads, window.dilations)
        defaults = (1, 1, 0, 1)
        parts = [
            tuple(n if j == i else default for j, n in enumerate(x))
            for x, default in zip(sizes, defaults, strict=True)
        ]
        if window.kernel[i] > 1 or window.strides[i] > 1 or window.pads[i]:
            yield Window(*parts)


def _counts(window: Slid, size: Dim, margins: tuple[int, int]) -> Value:
    """How many elements of each window along one axis count, those of the margins around x among
    them, i64."""
    starts, step = iota(window.count) * window.stride - size_value(window.before), window.dilation
    ends = size_value(dim(size + margins[1]))
    # Elements before the margin, and elements before its end: ⌈distance/step⌉.
    outside = maximum(-((starts + margins[0]) // step), 0)
    return minimum(-((starts - ends) // step), window.kernel) - outside
