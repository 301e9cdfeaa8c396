"""Where the greatest elements of windows are, and windows' numbers put back there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import maximum, where
from nncompile.ir.basic import as_value, size_value
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import Dim, dim, product, same, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, described
from nncompile.ir.types import Array, Type, i64
from nncompile.ops.convolution.patches import unfold
from nncompile.ops.core.counting import iota
from nncompile.ops.indexing.scattering import put_along_axis
from nncompile.ops.pooling.integers import integer_max_pool, numbers, wide_for
from nncompile.ops.pooling.maximum import MaxPool, by_planes, fitted, torch_places, window_samples
from nncompile.ops.pooling.window_maxima import numpy_places, places
from nncompile.ops.reduction.extremes import argmax
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.windows.pooling import Slid, Window, options, slid
from nncompile.ops.windows.space import LEAD, plane_by_plane


class MaxPlaces(Op):
    """The place of the greatest element of each window, among the elements of its channel in
    row-major order, i64: of equal ones the first, of NaN the last, as torch's."""

    window: Window
    differentiable: ClassVar[bool] = False

    def infer(self, x: Type) -> Type:
        require_real(x)
        return Type(i64, self.window.infer(x).shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (None,)

    rowwise = plane_by_plane

    def numpy(self, x: Array) -> Array:
        flat: Any = 0
        for size, index in zip(x.shape[LEAD:], numpy_places(self.window, x)[LEAD:], strict=True):
            flat = flat * size + index
        result: Array = flat.astype(i64.numpy)
        return result

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        plane = o.dim(product(o.types[0].shape[LEAD:]))
        return o.Mod(places(o, x, self.window), plane)

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.method(torch_places(t, self.window, x), "reshape", t.shape(t.type.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for window, type_ in window_samples():
            yield Sample(cls(window), (type_,), distinct=True, order=0)


@suggests_names
def max_pool_with_indices(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    rank: int | None = None,
    what: str = "max_pool_with_indices",
) -> tuple[Value, Value]:
    """`max_pool`, and the place of each greatest element among those of its channel in row-major
    order (i64), for `max_unpool`; torch's `max_pool2d(return_indices=True)`.

    Options and errors are those of `max_pool`. Of equal elements it is the first.
    """
    x = numbers(what, x)
    windows = slid(what, x, rank, kernel_size, stride, padding, dilation, ceil_mode)
    if x.dtype.is_integer:
        coordinates = _integer_coordinates(x, windows)
        return integer_max_pool(x, windows), _flat_indices(x, windows, coordinates)
    wide, window = fitted(x, windows)
    indices = by_planes(wide, MaxPlaces(window))
    if wide is not x:
        indices = _flat_indices(x, windows, _coordinates(wide, indices))
    return by_planes(wide, MaxPool(window)), indices


def _coordinates(wide: Value, flat: Value) -> list[Value]:
    """The place along each axis of space."""
    coordinates: list[Value] = []
    for axis in range(LEAD, wide.rank):
        inner = size_value(product(wide.shape[axis + 1 :]))
        coordinates.append(flat // maximum(inner, 1) % maximum(size_value(wide.shape[axis]), 1))
    return coordinates


def _integer_coordinates(x: Value, windows: Sequence[Slid]) -> list[Value]:
    """The same, of the first greatest element of each window of integers."""
    wide, (kernel, strides, gaps) = wide_for(x, windows), _options(windows)
    taps, counts = product(kernel), tuple(w.count for w in windows)
    columns = unfold(wide, kernel, gaps, 0, strides)
    split = reshape(columns, (*x.shape[:LEAD], taps, columns.shape[2]))
    best = reshape(argmax(split, LEAD), (*x.shape[:LEAD], *counts))
    coordinates: list[Value] = []
    for i, w in enumerate(windows):
        tap = best // product(kernel[i + 1 :]) % w.kernel
        starts = reshape(iota(w.count) * w.stride, (w.count, *(1 for _ in windows[i + 1 :])))
        coordinates.append(starts + tap * w.dilation)
    return coordinates


def _options(windows: Sequence[Slid]) -> list[tuple[int, ...]]:
    fields = "kernel", "stride", "dilation"
    return [tuple(getattr(w, field) for w in windows) for field in fields]


def _flat_indices(x: Value, windows: Sequence[Slid], coordinates: Sequence[Value]) -> Value:
    """Places among the padded elements as places among those of x."""
    flat: Any = 0
    for size, w, coordinate in zip(x.shape[LEAD:], windows, coordinates, strict=True):
        inside = coordinate - size_value(w.before)
        # Where a window's elements are no greater than the padding, its own first one counts.
        inside = where(inside < 0, inside % w.dilation, inside)
        flat = flat * size_value(size) + inside
    indices: Value = flat
    return indices


@suggests_names
def max_unpool(
    x: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
    *,
    rank: int | None = None,
    what: str = "max_unpool",
) -> Value:
    """`x` [batch, channels, *windows] put at the places `indices` of larger space, and zeros
    elsewhere: the inverse of `max_pool_with_indices`, torch's `max_unpool2d`, along any number of
    axes.

    `output_size`, one number for each axis of space, may be symbolic; by default an axis has
    (windows − 1)·stride − 2·padding + kernel elements (with "same", windows·stride). Where several
    windows have one place, the last one counts, and alone has its gradient; of overlapping windows
    they are equal, and torch's gradient goes to all of them. Raises `ShapeError`, which begins with
    `what`, where things do not fit, and `DTypeError` for indices that are not integers.
    """
    x, indices = as_value(x), as_value(indices)
    rank = x.rank - LEAD if rank is None else rank
    rows = [("x", *described(x)), ("indices", *described(indices))]
    if rank < 1 or x.rank != LEAD + rank or same_shape(x.shape, indices.shape) is not True:
        axes = f"{max(rank, 1)} spatial axes"
        raise ShapeError(
            f"{what} needs [batch, channels] and {axes}, x and indices of one shape", rows=rows
        )
    if not indices.dtype.is_integer:
        raise DTypeError(f"{what} needs indices that are integers", rows=rows)
    kernels, strides, _, pads = options(what, rank, kernel_size, stride, padding, 1)
    sizes: list[Dim] = []
    for i, n in enumerate(x.shape[LEAD:]):
        natural: Any = (n - 1) * strides[i] + kernels[i] - pads[i][0] - pads[i][1]
        sizes.append(dim(n * strides[i] if padding == "same" else natural))
    if output_size is not None:
        sizes = _sizes(what, output_size, sizes, strides)
    flat = (*x.shape[:LEAD], product(x.shape[LEAD:]))
    zeros = full((*x.shape[:LEAD], product(sizes)), 0, x.dtype)
    values = put_along_axis(zeros, reshape(indices, flat), reshape(x, flat), LEAD)
    return reshape(values, (*x.shape[:LEAD], *sizes))


def _sizes(
    what: str, output_size: Any, defaults: Sequence[Any], strides: Sequence[int]
) -> list[Dim]:
    """The requested sizes; as torch's, they must neither drop a window nor add one."""
    requested = list(output_size) if isinstance(output_size, tuple | list) else [output_size]
    sizes = [dim(n) for n in requested[-len(defaults) :]]
    if len(requested) not in (len(defaults), len(defaults) + LEAD):
        raise ShapeError(
            f"{what}: output_size must be a number for each of {len(defaults)} axes, got "
            f"{output_size!r}"
        )
    for size, default, stride in zip(sizes, defaults, strides, strict=True):
        extra = dim(size - default)
        if isinstance(extra, int) and abs(extra) >= stride and same(size, default) is not True:
            raise ShapeError(
                f"{what}: a size of {size} is not within the stride {stride} of {default}",
                hint="give the size of the tensor that was pooled",
            )
    return sizes
