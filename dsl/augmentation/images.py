"""Augmentation of images [batch, channels, height, width] in the graph, of each example by itself.

All of it acts while training only; in the inference graph it is the identity. What is drawn
follows from the seed and the step, so a training is repeated bit for bit.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from dsl.layers.base import Layer
from dsl.layers.noise import at_least_zero, draw_key
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.diagnostics.options import real
from nncompile.elementwise import (
    cos,
    floor,
    logical_and,
    maximum,
    minimum,
    sin,
    where,
)
from nncompile.ir.basic import as_value, floating
from nncompile.ir.dims import Dim, dim, floordiv
from nncompile.ir.op import Value, described
from nncompile.ir.types import f32, i64
from nncompile.ops import (
    bernoulli,
    cast,
    flip,
    iota,
    random_key,
    reshape,
    size_value,
    take_along_axis,
    uniform,
    while_training,
)
from nncompile.ops.shape.slicing import padded
from nncompile.ops.windows.pooling import per_axis


def images(caller: str, x: Any) -> Value:
    """x as a value of images. Raises `ShapeError` where it has another number of axes."""
    value = as_value(x)
    if value.rank != 4:
        raise ShapeError(
            f"{caller} needs images [batch, channels, height, width], x is {value.type}",
            rows=[("x", *described(value))],
        )
    return value


def below(key: Value, batch: Dim, count: Dim) -> Value:
    """A random whole number from 0 to below `count` (a size, symbolic or not) for each example,
    i64[batch]."""
    share = uniform(key, (batch,)) * size_value(count, f32)
    return minimum(cast(floor(share), i64), size_value(dim(count - 1)))


def each(x: Value) -> Value:
    """One number for each example, with axes for channels, height and width."""
    return reshape(x, (x.shape[0], 1, 1, 1))


def at(x: Value, rows: Value, columns: Value, fill: float) -> Value:
    """x[i, c, rows[i, j, k], columns[i, j, k]], and `fill` beyond its edges; the places are i64
    and broadcast to [batch, height, width]."""
    batch, channels, height, width = x.shape
    inside = logical_and(
        logical_and(rows >= 0, rows < size_value(height)),
        logical_and(columns >= 0, columns < size_value(width)),
    )
    row = maximum(minimum(rows, size_value(dim(height - 1))), 0)
    column = maximum(minimum(columns, size_value(dim(width - 1))), 0)
    positions = row * size_value(width) + column
    space = positions.shape[1:]
    flat = reshape(x, (batch, channels, dim(height * width)))
    index = reshape(positions, (batch, 1, dim(space[0] * space[1])))
    picked = reshape(take_along_axis(flat, index, 2), (batch, channels, *space))
    return where(reshape(inside, (batch, 1, *space)), picked, fill)


class RandomHorizontalFlip(Layer):
    """While training, each image is mirrored left to right with probability `p`."""

    p: float = 0.5

    _axis: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not 0 <= real(f"p of {type(self).__name__}", self.p) <= 1:
            raise ModelError(f"p of {type(self).__name__} must be in [0, 1], got {self.p!r}")

    def __call__(self, x: Any) -> Value:
        caller = type(self).__name__
        x = images(caller, x)
        flipped = bernoulli(draw_key(caller), self.p, (x.shape[0], 1, 1, 1))
        return while_training(where(flipped, flip(x, self._axis), x), x)


class RandomVerticalFlip(RandomHorizontalFlip):
    """While training, each image is mirrored top to bottom with probability `p`."""

    _axis: ClassVar[int] = 2


class RandomCrop(Layer):
    """While training, a part of each image at a random place, after `padding` zeros on all sides:
    as large as the image by default, or of the given `size` (height and width, or one number).
    Otherwise the image itself, or the part in its middle. Raises `ShapeError` for a part that is
    larger than the image with its padding."""

    padding: int = 4
    size: Any = None
    fill: float = 0.0

    def __post_init__(self) -> None:
        per_axis("RandomCrop", "the padding", self.padding, 1, least=0)
        if self.size is not None:
            per_axis("RandomCrop", "the size", self.size, 2)

    def __call__(self, x: Any) -> Value:
        x = images("RandomCrop", x)
        crop = (
            x.shape[2:] if self.size is None else per_axis("RandomCrop", "the size", self.size, 2)
        )
        key = draw_key("RandomCrop")
        indices: list[Value] = []
        center = x
        for axis, (total, size) in enumerate(zip(x.shape[2:], crop, strict=True)):
            free = dim(total + 2 * self.padding - size)
            if isinstance(free, int) and free < 0:
                raise ShapeError(
                    f"RandomCrop: cannot cut {size} rows or columns from {total} with "
                    f"{self.padding} of padding on both sides",
                    rows=[("x", *described(x))],
                )
            start = below(random_key(axis, key), x.shape[0], dim(free + 1)) - self.padding
            shape = [x.shape[0], 1, 1]
            along = [1, 1, 1]
            along[axis + 1] = size
            indices.append(reshape(start, shape) + reshape(iota(size), along))
            center = middle(center, axis + 2, size)
        rows, columns = indices
        return while_training(at(x, rows, columns, self.fill), center)


def middle(x: Value, axis: int, size: Dim) -> Value:
    """`size` elements of the middle of the axis; with zeros around where it has fewer."""
    from_front = floordiv(dim(x.shape[axis] - size), 2)
    before = [dim(-from_front) if i == axis else 0 for i in range(x.rank)]
    after = [dim(size - x.shape[axis] + from_front) if i == axis else 0 for i in range(x.rank)]
    return padded(x, before, after)


class RandomRotation(Layer):
    """While training, each image is turned about its middle by a random angle within ±`degrees`,
    positive ones against the clock; what comes from beyond the edges is `fill`. `mode` is
    "bilinear" or "nearest"."""

    degrees: float = 15.0
    mode: str = "bilinear"
    fill: float = 0.0

    def __post_init__(self) -> None:
        at_least_zero("the degrees of RandomRotation", self.degrees)
        if self.mode not in ("bilinear", "nearest"):
            raise ModelError(
                f'the mode of RandomRotation must be "bilinear" or "nearest", got {self.mode!r}'
            )

    def __call__(self, x: Any) -> Value:
        x = floating("RandomRotation", images("RandomRotation", x))
        limit = math.radians(self.degrees)
        angle = uniform(draw_key("RandomRotation"), (x.shape[0],), -1, 1, x.dtype) * limit
        return while_training(rotated(x, angle, self.mode, self.fill), x)


def rotated(x: Value, angle: Value, mode: str = "bilinear", fill: float = 0.0) -> Value:
    """Each image turned about its middle by its angle, in radians against the clock."""
    batch, _, height, width = x.shape
    dtype = x.dtype
    turn = [reshape(f(angle), (batch, 1, 1)) for f in (cos, sin)]
    middles = [(size_value(n, dtype) - 1) / 2 for n in (height, width)]
    down = reshape(iota(height, dtype), (1, height, 1)) - middles[0]
    right = reshape(iota(width, dtype), (1, 1, width)) - middles[1]
    row = turn[1] * right + turn[0] * down + middles[0]
    column = turn[0] * right - turn[1] * down + middles[1]
    if mode == "nearest":
        return at(x, cast(floor(row + 0.5), i64), cast(floor(column + 0.5), i64), fill)
    top, left = floor(row), floor(column)
    shares = row - top, column - left
    total: Any = 0.0
    for i in (0, 1):
        for j in (0, 1):
            picked = at(x, cast(top, i64) + i, cast(left, i64) + j, fill)
            weight = (shares[0] if i else 1 - shares[0]) * (shares[1] if j else 1 - shares[1])
            total = picked * reshape(weight, (batch, 1, height, width)) + total
    result: Value = total
    return result


class Cutout(Layer):
    """While training, a rectangle of `size` (height and width, or one number) about a random pixel
    of each image is `fill`; it may reach over the edges (T. DeVries and G. Taylor, "Improved
    regularization of convolutional neural networks with cutout", 2017)."""

    size: Any = 8
    fill: float = 0.0

    def __post_init__(self) -> None:
        per_axis("Cutout", "the size", self.size, 2)

    def __call__(self, x: Any) -> Value:
        x = images("Cutout", x)
        key = draw_key("Cutout")
        sizes = per_axis("Cutout", "the size", self.size, 2)
        starts = [
            below(random_key(axis, key), x.shape[0], x.shape[axis + 2]) - size // 2
            for axis, size in enumerate(sizes)
        ]
        ends = [start + size for start, size in zip(starts, sizes, strict=True)]
        return while_training(where(box(x, starts, ends), self.fill, x), x)


def box(x: Value, starts: list[Value], ends: list[Value]) -> Value:
    """Which pixels lie in each image's rectangle: bool[batch, 1, height, width]."""
    within = []
    for axis in (0, 1):
        size = x.shape[axis + 2]
        positions = reshape(iota(size), (size, 1) if axis == 0 else (size,))
        within.append(logical_and(positions >= each(starts[axis]), positions < each(ends[axis])))
    return logical_and(*within)


__all__ = [
    "Cutout",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomVerticalFlip",
]
