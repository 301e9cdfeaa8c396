"""The greatest elements of windows and where they are, in ONNX and in numpy.

onnxruntime's MaxPool loses NaN unless it comes last, may take −∞ for the lowest finite number, and
where nothing is above that number it gives no place, or one outside the tensor. See finite.py.
"""

from __future__ import annotations

import math

import numpy as np

from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import Array, Type, f64, i64
from nncompile.ops.core.finite import or_exact
from nncompile.ops.windows.pooling import Window
from nncompile.ops.windows.space import LEAD


def greatest(o: OnnxEmitter, x: str, window: Window) -> str:
    """The greatest element of each window of `x`, the op's last argument; of NaN, NaN."""
    usual = o.MaxPool(_apart_from_padding(o, x), **window.onnx)
    type_ = window.infer(o.types[-1])
    return or_exact(o, x, usual, lambda o, x: _exact_greatest(o, x, window), type_)


def places(o: OnnxEmitter, x: str, window: Window) -> str:
    """The places of the greatest elements among all elements of `x`, the op's last argument: of
    equal ones the first, of NaN the last, as torch's."""
    usual = o.MaxPool(_apart_from_padding(o, x), outputs=2, **window.onnx)[1]
    type_ = Type(i64, window.infer(o.types[-1]).shape)
    return or_exact(o, x, usual, lambda o, x: exact_places(o, x, window), type_)


def _apart_from_padding(o: OnnxEmitter, x: str) -> str:
    # Joined with a padding by zeros, maybe through a cast, the kernel would leave these out.
    return o.apart(x, "Pad", "Cast")


def _exact_greatest(o: OnnxEmitter, x: str, window: Window) -> str:
    dtype, pool = o.types[-1].dtype, window.onnx
    zero, one, infinity = (o.scalar(n, dtype) for n in (0, 1, -math.inf))
    lowest = o.scalar(np.finfo(dtype.numpy).min, dtype)
    has_nan = o.Greater(o.MaxPool(o.Where(o.IsNaN(x), one, zero), **pool), zero)
    above = o.Greater(x, infinity)
    has_more = o.Greater(o.MaxPool(o.Where(above, one, zero), **pool), zero)
    top = o.Where(has_more, o.MaxPool(o.Where(above, x, lowest), **pool), infinity)
    return o.Where(has_nan, o.scalar(math.nan, dtype), top)


def exact_places(o: OnnxEmitter, x: str, window: Window) -> str:
    """`places`, whatever the elements of `x` are."""
    # In float64, where the lowest number is below all of float32; one of float64 counts as its
    # neighbour.
    pool = window.onnx
    zero, one, lowest = (o.scalar(n, f64) for n in (0, 1, np.finfo(np.float64).min))
    x = o.cast(x, f64)
    isnan, above = o.IsNaN(x), o.Greater(x, o.scalar(-math.inf, f64))
    has_more, any_ = o.MaxPool(o.Where(above, one, zero), outputs=2, **pool)
    least = o.scalar(np.nextafter(np.finfo(np.float64).min, 0), f64)
    _, first = o.MaxPool(o.Where(above, o.Max(x, least), lowest), outputs=2, **pool)
    first = o.Where(o.Greater(has_more, zero), first, any_)
    numbers = o.Range(o.scalar(0, i64), o.Size(x), o.scalar(1, i64))
    numbers = o.cast(o.Reshape(numbers, o.Shape(x), allowzero=1), f64)
    last = o.MaxPool(o.Where(isnan, numbers, o.scalar(-1, f64)), **pool)
    return o.Where(o.Less(last, zero), first, o.cast(last, i64))


def numpy_places(window: Window, x: Array) -> tuple[Array, ...]:
    """The indices, along each axis, of the greatest element of each window: of equal ones the
    first, of NaN the last."""
    windows = window.numpy(x, -np.inf)
    shape = windows.shape[: x.ndim]
    flat = (*shape, math.prod(window.kernel))
    elements = windows.reshape(flat)
    is_inside = window.numpy(np.ones(x.shape, bool), False).reshape(flat)  # −∞ may be padding
    first = (is_inside & (elements == elements.max(-1, keepdims=True))).argmax(-1)
    isnan = np.isnan(elements)
    last = flat[-1] - 1 - isnan[..., ::-1].argmax(-1)
    taps = np.unravel_index(np.where(isnan.any(-1), last, first), window.kernel)
    grid = np.ogrid[tuple(map(slice, shape))]
    inside = [
        grid[LEAD + i] * window.strides[i] - window.pads[i] + taps[i] * window.dilations[i]
        for i in range(window.rank)
    ]
    return tuple(np.broadcast_to(index, shape) for index in (*grid[:LEAD], *inside))
