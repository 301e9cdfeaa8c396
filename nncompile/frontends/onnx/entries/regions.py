"""Pooling of regions of images."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const
from nncompile.ir.dims import Dim
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.ops.core.counting import iota
from nncompile.ops.reduction.extremes import max as largest
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import expand_dims, reshape


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
