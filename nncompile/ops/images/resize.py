"""Images and sequences in other sizes, by torch's conventions: the nearest element, linear and
cubic interpolation, with and without antialiasing, and averages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import ModelError, ShapeError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import minimum
from nncompile.ir.basic import floating, in_single, size_value
from nncompile.ir.dims import Dim, dim, floordiv
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, described
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.contraction.axis_maps import along_axis
from nncompile.ops.core.axes import example_by_example
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.core.counting import iota
from nncompile.ops.images.interpolation import interpolation_matrix
from nncompile.ops.pooling.adaptive import adaptive_average_pool
from nncompile.ops.pooling.average import AveragePool
from nncompile.ops.pooling.maximum import repeated
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import repeat, transpose
from nncompile.ops.windows.pooling import Window
from nncompile.ops.windows.space import LEAD

# What torch and others call linear interpolation along one, two and three axes.
LINEAR = ("linear", "bilinear", "trilinear")
CUBIC = ("cubic", "bicubic")
NEAREST = ("nearest", "nearest-exact")
MODES = (*NEAREST, *LINEAR, *CUBIC, "area")


class Enlarge(Op):
    """`x` [batch, channels, *space] `factors` times as large along the axes of space: each element
    repeated, or interpolated linearly between the centres of elements.

    The gradient of repeating takes axes of space that are not empty, as pooling does everywhere: of
    what onnxruntime pools, only the batch may be empty.
    """

    factors: tuple[int, ...]
    linear: bool = False

    def infer(self, x: Type) -> Type:
        require_real(x)
        if x.rank != LEAD + len(self.factors):
            raise ShapeError(f"{len(self.factors)} factors for [batch, channels, *space], got {x}")
        space = zip(x.shape[LEAD:], self.factors, strict=True)
        return Type(x.dtype, (*x.shape[:LEAD], *(dim(size * factor) for size, factor in space)))

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        if not self.linear:
            ones = (1,) * len(self.factors)
            window = Window(self.factors, self.factors, (0,) * len(ones), ones)
            return (AveragePool(window)(g) * math.prod(self.factors),)
        for i, factor in enumerate(self.factors):
            g = along_axis(g, LEAD + i, transpose(_matrix(x, i, factor)))
        return (g,)

    rowwise = example_by_example

    def numpy(self, x: Array) -> Array:
        for i, factor in enumerate(self.factors):
            axis = LEAD + i
            if not self.linear:
                x = np.repeat(x, factor, axis)
                continue
            size = x.shape[axis]
            positions = ((np.arange(size * factor) + 0.5) / factor - 0.5).clip(0, max(size - 1, 0))
            matrix = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(size)))
            x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T.astype(x.dtype), -1, axis)
        return x

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        if o.type.dtype is f64:  # no kernel
            return composed_onnx(o, lambda v: [self._composed(v)], x)[0]
        if not self.linear:
            return repeated(o, x, self.factors)
        scales = o.constant(np.asarray([1] * LEAD + list(self.factors), np.float32))
        return o.Resize(x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")

    def _composed(self, x: Value) -> Value:
        for i, factor in enumerate(self.factors):
            if self.linear:
                x = along_axis(x, LEAD + i, _matrix(x, i, factor))
            else:
                x = repeat(x, factor, LEAD + i)
        return x

    def torch(self, t: TorchEmitter, x: str) -> str:
        mode = LINEAR[len(self.factors) - 1] if self.linear else "nearest"
        scales = [float(factor) for factor in self.factors]
        function = "torch.nn.functional.interpolate"
        return t.call(function, x, scale_factor=scales, mode=f'"{mode}"')

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for linear in (False, True):
            yield Sample(cls((2, 2), linear), (f32["n", 2, "h + 1", "w + 1"],))
            yield Sample(cls((3, 1), linear), (f32["n", 2, 3, "w + 1"],))
            yield Sample(cls((2, 3), linear), (f64["n", 2, "h + 1", 2],))
            yield Sample(cls((4,), linear), (f32["n", 1, "m + 1"],))
            yield Sample(cls((2, 1, 2), linear), (f32["n", 1, 2, "m + 1", 3],))


def _matrix(x: Value, i: int, factor: int) -> Value:
    size = x.shape[LEAD + i]
    count = dim(size * factor)
    return interpolation_matrix(size, count, 1, factor, False, False, False, x.dtype)


@suggests_names
@in_single
def resize(
    x: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool = False,
    antialias: bool = False,
    *,
    rank: int | None = None,
    what: str = "resize",
) -> Value:
    """`x` [batch, channels, *space] with space of another `size`, or `scale_factor` times as large
    (a fraction: ⌊size·scale⌋ elements); one for all axes or one for each, symbolic or not.

    That is torch's `interpolate`, along any number of axes; the scale is size before over size
    after if only the size is given. "nearest" takes element ⌊i/scale⌋ for place i, "nearest-exact"
    ⌊(i + ½)/scale⌋. "linear" (or "bilinear", "trilinear") and "cubic" ("bicubic") interpolate at
    (i + ½)/scale − ½, or with `align_corners` so that the outermost elements stay where they are;
    beyond the ends, the last element counts. With `antialias` they weigh all elements that a new
    one covers where it becomes smaller, as Pillow does. "area" averages as `adaptive_average_pool`.
    Where that is a product with a matrix (all but whole factors of the first modes), a NaN or an
    infinity reaches its whole row and column.

    Raises `ShapeError`, which begins with `what`, where sizes do not fit, and `ModelError` for
    another mode, or one that has no such option.
    """
    x = floating(what, x)
    rank = x.rank - LEAD if rank is None else rank
    check_mode(what, mode, align_corners, antialias)
    _check_space(what, x, rank)
    if (size is None) == (scale_factor is None):
        raise ModelError(f"{what} takes either size or scale_factor")
    space = x.shape[LEAD:]
    requested = _per_axis(what, size if scale_factor is None else scale_factor, rank)
    targets = [
        _by_scale(what, n, s) if size is None else _by_size(what, n, s)
        for n, s in zip(space, requested, strict=True)
    ]
    if mode == "area":
        return adaptive_average_pool(x, [count for count, *_ in targets], rank=rank, what=what)
    factors = [_whole_ratio(over, under) for _, over, under in targets]
    is_plain = mode in NEAREST or (mode in LINEAR and not align_corners)
    if is_plain and all(factors) and rank <= len(LINEAR):
        # Antialiasing is for what becomes smaller.
        known = tuple(f for f in factors if f)
        return x if set(known) == {1} else Enlarge(known, mode in LINEAR)(x)
    y: Value = x
    for i, target in enumerate(targets):
        if factors[i] == 1:
            continue
        if mode in NEAREST:
            y = take(y, _nearest(space[i], *target, mode == "nearest-exact"), LEAD + i)
        else:
            is_cubic = mode in CUBIC
            matrix = interpolation_matrix(
                space[i], *target, is_cubic, align_corners, antialias, y.dtype
            )
            y = along_axis(y, LEAD + i, matrix)
    return y


def _check_space(what: str, x: Value, rank: int) -> None:
    """Raises `ShapeError` where x is not a batch of channels over spatial axes with elements."""
    if x.rank != LEAD + rank or rank < 1:
        raise ShapeError(
            f"{what} needs [batch, channels] and {max(rank, 1)} spatial axes, x is {x.type}",
            rows=[("x", *described(x))],
        )
    if 0 in x.shape[LEAD:]:
        raise ShapeError(
            f"{what}: a spatial axis has no elements, x is {x.type}", rows=[("x", *described(x))]
        )


def check_mode(what: str, mode: Any, align_corners: bool, antialias: bool) -> None:
    """Raises `ModelError` where the mode is none, or has no such option."""
    if mode not in MODES:
        raise ModelError(
            f"{what}: mode must be one of {', '.join(MODES)}, got {mode!r}",
            hint=did_you_mean(str(mode).lower(), MODES),
        )
    for option, is_set in (("align_corners", align_corners), ("antialias", antialias)):
        if is_set and mode not in (*LINEAR, *CUBIC):
            raise ModelError(
                f'{what}: {option} is an option of the modes "linear" and "cubic", not of {mode!r}'
            )


def _nearest(size: Dim, count: Dim, over: Dim, under: Dim, is_exact: bool) -> Value:
    """The index of the element that each new one copies."""
    positions = iota(count)
    numerator, denominator = size_value(over), size_value(under)
    if is_exact:  # from the middle of the new element
        positions, denominator = 2 * positions + 1, 2 * denominator
    indices: Value = minimum(positions * numerator // denominator, size_value(dim(size - 1)))
    return indices


def _per_axis(what: str, value: Any, rank: int) -> list[Any]:
    values = list(value) if isinstance(value, tuple | list) else [value] * rank
    if len(values) != rank:
        raise ShapeError(f"{what}: expected one number or {rank}, got {value!r}")
    return values


def _by_scale(what: str, size: Dim, scale: Any) -> tuple[Dim, Dim, Dim]:
    """The new size, and old over new as a fraction of two whole numbers."""
    try:
        ratio = Fraction(str(scale))
    except ValueError:
        raise ShapeError(f"{what}: scale_factor must be a number, got {scale!r}") from None
    if ratio <= 0:
        raise ShapeError(f"{what}: scale_factor must be positive, got {scale!r}")
    count = floordiv(dim(size * ratio.numerator), ratio.denominator)
    if count == 0:
        raise ShapeError(f"{what}: {scale} times {size} elements is less than one")
    return count, ratio.denominator, ratio.numerator


def _by_size(what: str, size: Dim, count: Any) -> tuple[Dim, Dim, Dim]:
    count = dim(count)
    if isinstance(count, int) and count < 1:
        raise ShapeError(f"{what}: a size must be at least 1, got {count}")
    return count, size, count


def _whole_ratio(over: Dim, under: Dim) -> int | None:
    """under/over, where that is a whole number for every size."""
    ratio = sp.cancel(sp.sympify(under) / sp.sympify(over)) if over != 0 else sp.S.Half
    return int(ratio) if ratio.is_Integer and ratio > 0 else None
