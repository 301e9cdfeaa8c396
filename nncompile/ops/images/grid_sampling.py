"""Elements of images at places that are given as numbers: `grid_sample`, and grids of such places.

What is sampled is a sum of elements that are taken, times weights that are formulas of the places;
so the gradients at both, of any order, follow from those.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import abs as absolute
from nncompile.elementwise import add, clip, floor, maximum, minimum, multiply, rint, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast, floating, size_value
from nncompile.ir.dims import Dim, dim, product, same
from nncompile.ir.op import Value, described
from nncompile.ir.types import f32, f64, i64
from nncompile.ops.core.counting import iota
from nncompile.ops.images.interpolation import PLAIN, cubic_kernel
from nncompile.ops.images.resize import CUBIC, LINEAR
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import expand_dims, moveaxis, reshape
from nncompile.ops.windows.space import LEAD

MODES = (*LINEAR, "nearest", *CUBIC)
PADDING_MODES = ("zeros", "border", "reflection")


@suggests_names
def grid_sample(
    x: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
    *,
    what: str = "grid_sample",
) -> Value:
    """`x` [batch, channels, *space] at the places of `grid` [batch, *places, axes of space]:
    [batch, channels, *places]. torch's `grid_sample`, along any number of axes.

    A place has one number for each axis, that of the last axis first; −1 and 1 are the ends of the
    axis, or, with `align_corners`, the middles of its outermost elements. `mode` is "bilinear",
    "nearest" or "bicubic"; beyond the ends are zeros, the outermost element ("border") or the
    mirror image ("reflection"). A place that is NaN has the sample NaN, for which torch may have
    another. Gradients are torch's, at the ends of the axes, too; there are none at the places for
    "nearest". Raises `ShapeError`, which begins with `what`, where `grid` does not fit or `x` has
    an axis of space without elements, `DTypeError` where the element types differ, and `ModelError`
    for other modes.
    """
    x, grid = floating(what, x), floating(what, grid)
    _check(what, x, grid, mode, padding_mode)
    space, grid_shape = x.shape[LEAD:], grid.shape[1:-1]
    rank, count = len(space), product(grid_shape)
    points = reshape(grid, (grid.shape[0], count, rank))
    taps = [
        _taps(points[:, :, rank - 1 - i], size, mode, padding_mode, align_corners)
        for i, size in enumerate(space)
    ]
    plane, channels = product(space), x.shape[1]
    rows = reshape(moveaxis(x, 1, -1), (dim(x.shape[0] * plane), channels))
    first = expand_dims(iota(x.shape[0]) * size_value(plane), 1)
    total = (dim(grid.shape[0] * count), 1)
    terms = []
    for corner in itertools.product(*taps):
        position: Any = 0
        for size, (index, _) in zip(space, corner, strict=True):
            position = position * size_value(size) + index
        elements = take(rows, reshape(position + first, total[:1]), 0)
        weight = functools.reduce(multiply, (weight for _, weight in corner))
        terms.append(elements * reshape(weight, total))
    sampled = reshape(functools.reduce(add, terms), (grid.shape[0], *grid_shape, channels))
    return moveaxis(sampled, -1, 1)


def _check(what: str, x: Value, grid: Value, mode: Any, padding_mode: Any) -> None:
    for name, value, known in (
        ("mode", mode, MODES),
        ("padding_mode", padding_mode, PADDING_MODES),
    ):
        if value not in known:
            hint = did_you_mean(str(value).lower(), known)
            raise ModelError(
                f"{what}: {name} must be one of {', '.join(known)}, got {value!r}", hint=hint
            )
    rank, rows = x.rank - LEAD, [("x", *described(x)), ("grid", *described(grid))]
    if rank < 1 or grid.rank < 3 or same(grid.shape[-1], rank) is not True:
        raise ShapeError(
            f"{what} needs [batch, channels, *space] and a grid [batch, *places, axes of space]",
            rows=rows,
            hint=f"the grid has {rank} numbers per position, the last axis first"
            if rank > 0
            else None,
        )
    if same(x.shape[0], grid.shape[0]) is not True:
        raise ShapeError(f"{what}: x and grid are not known to have the same batch size", rows=rows)
    if grid.dtype is not x.dtype:
        raise DTypeError(f"{what}: element types differ, {x.dtype} ≠ {grid.dtype}", rows=rows)
    if 0 in x.shape[LEAD:]:
        raise ShapeError(f"{what}: x has a spatial axis without elements", rows=rows)


def _taps(
    numbers: Value, size: Dim, mode: str, padding_mode: str, align_corners: bool
) -> list[tuple[Value, Value]]:
    """Along one axis, the elements that a sample is made of: their indices and weights."""
    dtype = numbers.dtype
    if dtype.bits < f32.bits:  # too few digits for positions among many elements
        wide_taps = _taps(cast(numbers, f32), size, mode, padding_mode, align_corners)
        return [(index, cast(weight, dtype)) for index, weight in wide_taps]
    count = size_value(size, dtype)
    last = count - 1
    positions = (numbers + 1) / 2 * last if align_corners else ((numbers + 1) * count - 1) / 2
    low, span = (0.0, last) if align_corners else (-0.5, count)
    if mode in CUBIC:
        taps = _cubic_taps(positions, count, low, span, padding_mode)
    else:
        if padding_mode == "reflection":
            positions = _reflected(positions, low, maximum(span, 1.0))
        is_open = padding_mode == "zeros"
        positions = clip(positions, -1.0, count) if is_open else _bounded(positions, last)
        taps = _linear_taps(positions, mode == "nearest")
    end = size_value(dim(size - 1))
    if padding_mode == "zeros":
        taps = [(index, _within(weight, index, last)) for index, weight in taps]
    return [(minimum(maximum(cast(index, i64), 0), end), weight) for index, weight in taps]


def _cubic_taps(
    positions: Value, count: Value, low: float, span: Value, padding_mode: str
) -> list[tuple[Value, Value]]:
    reflects = padding_mode == "reflection"
    # Further out, all of the elements are beyond the end; a reflection goes on for ever.
    inside = positions if reflects else clip(positions, -3.0, count + 2)
    base = floor(inside)
    taps = []
    for j in (-1, 0, 1, 2):
        weight, index = cubic_kernel(inside - base - j, PLAIN), base + j
        taps.append((_reflected(index, low, maximum(span, 1.0)) if reflects else index, weight))
    return taps


def _linear_taps(positions: Value, nearest: bool) -> list[tuple[Value, Value]]:
    if nearest:
        return [(rint(positions), _one(positions))]
    base = floor(positions)
    return [(base, 1 - (positions - base)), (base + 1, positions - base)]


@formula
def _within(weight: Any, index: Any, last: Any) -> Any:
    """The weight of an element, 0 of what is none; NaN stays."""
    return where((index < 0) | (index > last), 0, weight)


@formula
def _one(position: Any) -> Any:
    """1, or NaN where the position is NaN."""
    return where(position == position, 1, position)


@formula
def _bounded(position: Any, last: Any) -> Any:
    """The position clipped to the axis; at the ends the gradient is 0 already, as torch's."""
    return where(position <= 0, 0, where(position >= last, last, position))


@formula
def _reflected(position: Any, low: Any, span: Any) -> Any:
    """The position mirrored at `low` and at `low + span` until it lies between them."""
    distance = absolute(position - low)
    periods = floor(distance / span)
    rest = distance - periods * span
    return where(periods - 2 * floor(periods / 2) > 0, span - rest, rest) + low


@suggests_names
def affine_grid(
    theta: Any, size: Sequence[Any], align_corners: bool = False, *, what: str = "affine_grid"
) -> Value:
    """Where an affine map puts the places of an image, for `grid_sample`: `theta`
    [batch, axes, axes + 1] and the size (batch, channels, *space) to [batch, *space, axes]. torch's
    `affine_grid`, along any number of axes.

    Raises `ShapeError`, which begins with `what`, where these do not fit.
    """
    theta = floating(what, theta)
    sizes = tuple(dim(n) for n in size) if isinstance(size, tuple | list) else ()
    rank = len(sizes) - LEAD
    expected = (sizes[0], rank, rank + 1) if rank > 0 else ()
    if theta.rank != 3 or len(expected) != 3:
        raise ShapeError(
            f"{what} needs theta [batch, axes, axes + 1] and a size (batch, channels, *space), got "
            f"{theta.type} and {size!r}"
        )
    if not all(same(a, b) for a, b in zip(theta.shape, expected, strict=True)):
        text = ", ".join(map(str, expected))
        raise ShapeError(f"{what}: theta is [{text}] for the size {size!r}, got {theta.type}")
    space = sizes[LEAD:]
    ones = (1,) * rank
    grid = reshape(theta[:, :, rank], (theta.shape[0], *ones, rank))
    for i, n in enumerate(space):
        count, steps = size_value(n, f64), iota(n, f64)
        middle = 2 * steps + 1 - count  # of each element, in halves from the middle of the axis
        base = middle / maximum(count - 1, 1.0) if align_corners else middle / count
        line = reshape(cast(base, theta.dtype), (1, *(n if j == i else 1 for j in range(rank)), 1))
        factor = reshape(theta[:, :, rank - 1 - i], (theta.shape[0], *ones, rank))
        grid = grid + factor * line
    return grid
