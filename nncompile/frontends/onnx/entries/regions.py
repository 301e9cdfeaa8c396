"""Pooling of regions of images."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.dims import Dim
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.counting import iota
from nncompile.ops.reduction.extremes import max as largest
from nncompile.ops.reduction.statistics import mean
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import expand_dims, reshape, transpose


@imports("MaxRoiPool")
def _max_roi_pool(n: Node, x: Value, rois: Value) -> Any:
    """The maxima of the parts of each region, which lies on whole pixels: of the rows of its parts
    within the columns first, then of those."""
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 5:
        raise Refused(f"images {x.type} and regions {rois.type}")
    sizes = n.required("pooled_shape")
    if len(sizes) != 2 or min(sizes) < 1:
        raise Refused(f"pooled_shape {list(sizes)}")
    batch, left, top, right, bottom = (take(rois, const(i, i64), 1) for i in range(5))
    scale = const(n["spatial_scale"], f32)
    ends = [_rounded(cast(place, f32) * scale) for place in (left, right, top, bottom)]
    columns = _parts(ends[0], ends[1], sizes[1], x.shape[3])  # [region, part, column]
    rows = _parts(ends[2], ends[3], sizes[0], x.shape[2])
    lowest = const(-np.inf, x.dtype)
    images = expand_dims(take(x, cast(batch, i64), 0), 3)  # [region, channel, row, 1, column]
    within = largest(e.where(expand_dims(columns, (1, 2)), images, lowest), 4)
    parts = e.where(expand_dims(rows, (1, 4)), expand_dims(within, 2), lowest)
    found = largest(parts, 3)
    return e.where(found == lowest, const(0, x.dtype), found)  # of parts beyond the image


@imports("RoiAlign")
def _roi_align(n: Node, x: Value, rois: Value, batch: Value) -> Any:
    """Means or maxima of what lies between the pixels at a grid of places within each part of each
    region: products of matrices with the image, rows first, then columns."""
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 4:
        raise Refused(f"images {x.type} and regions {rois.type}")
    count, mode = n["sampling_ratio"], n["mode"]
    if count < 1:
        raise Refused("sampling_ratio 0, which takes as many places as the regions are large")
    if mode not in ("avg", "max"):
        raise Refused(f"the mode {mode!r}")
    is_shifted = (n["coordinate_transformation_mode"] or "output_half_pixel") == "half_pixel"
    left, top, right, bottom = (
        take(rois, const(i, i64), 1) * n["spatial_scale"] - (0.5 if is_shifted else 0.0)
        for i in range(4)
    )
    rows = _between(top, bottom, n["output_height"], count, x.shape[2], is_shifted)
    columns = _between(left, right, n["output_width"], count, x.shape[3], is_shifted)
    images = take(x, batch, 0)
    shape = (*images.shape[:2], n["output_height"], count, n["output_width"], count)
    if mode == "avg":
        return mean(reshape(_weighted(e.add(*rows), images, e.add(*columns)), shape), (3, 5))
    corners = [_weighted(a, images, b) for a in rows for b in columns]
    return largest(reshape(functools.reduce(e.maximum, corners), shape), (3, 5))


def _between(
    first: Value, last: Value, parts: int, count: int, size: Dim, is_shifted: bool
) -> list[Value]:
    """The weights [region, place, pixel] of the pixels before and after each place, of which there
    are `count` in each part; none for places more than a pixel outside."""
    length = last - first if is_shifted else e.maximum(last - first, 1)
    step = expand_dims(length / parts, 1)
    numbers = cast(iota(parts * count, i64), first.dtype) + 0.5
    place = expand_dims(first, 1) + numbers / count * step
    end = size_value(size, first.dtype)
    inside = cast(e.logical_and(place >= -1, place <= end), first.dtype)
    place = e.minimum(e.maximum(place, 0), end - 1)
    before = e.floor(place)
    pixels = reshape(cast(iota(size, i64), first.dtype), (1, 1, size))
    behind = place - before
    return [
        e.where(pixels == expand_dims(at, 2), expand_dims(share * inside, 2), 0)
        for at, share in ((before, 1 - behind), (before + 1, behind))
    ]


def _weighted(rows: Value, images: Value, columns: Value) -> Value:
    """Sums of the pixels of each channel, weighted along both axes."""
    return matmul(matmul(expand_dims(rows, 1), images), expand_dims(_swapped(columns), 1))


def _swapped(x: Value) -> Value:
    """The last two axes of three, one for the other."""
    return transpose(x, (0, 2, 1))


def _rounded(x: Value) -> Value:
    """To the nearest whole number, halves away from 0."""
    rounded: Value = e.sign(x) * e.floor(e.abs(x) + 0.5)
    return rounded


def _parts(first: Value, last: Value, count: int, size: Dim) -> Value:
    """Which places of an axis of that size belong to each of so many parts of each region."""
    length = e.maximum(last - first + 1, 1)
    step = expand_dims(length / count, 1)
    number = iota(count, f32)
    starts = e.floor(number * step) + expand_dims(first, 1)
    stops = e.ceil((number + 1) * step) + expand_dims(first, 1)
    places = reshape(iota(size, f32), (1, 1, size))
    covered: Value = e.logical_and(places >= expand_dims(starts, 2), places < expand_dims(stops, 2))
    return covered
