"""Deformable convolution."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from nncompile import elementwise as e
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import dim, product
from nncompile.ir.op import Value
from nncompile.ir.types import DType, i64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.counting import iota
from nncompile.ops.shape.gathering import take, take_along_axis
from nncompile.ops.shape.reshape import expand_dims, reshape


@imports("DeformConv")
def _deformed(
    n: Node, x: Value, w: Value, offset: Value, bias: Value | None = None, mask: Value | None = None
) -> Any:
    """A product of the kernel with what lies between the pixels at the places of its elements, each
    of which is moved by its own offset (J. Dai et al., "Deformable convolutional networks", 2017);
    zeros beyond the image."""
    if x.rank != 4:
        raise Refused(f"{x.rank - 2} axes of space, where two are known")
    parts, groups = n["offset_group"], n["group"]
    batch, channels = x.shape[:2]
    if not all(isinstance(d, int) for d in (channels, *w.shape)):
        raise Refused("a number of channels, or of elements of the kernel, that depends on a size")
    if channels % parts or channels % groups or w.shape[0] % groups:
        raise Refused(f"{channels} and {w.shape[0]} channels in {groups} and {parts} groups")
    kernel, out = w.shape[2:], offset.shape[2:]
    taps, places = product(kernel), dim(product(out))
    moved = reshape(offset, (batch, parts, taps, 2, places))
    at = [
        expand_dims(_grid(n, axis, kernel, out, x.dtype), (0, 1)) + take(moved, const(axis, i64), 3)
        for axis in (0, 1)
    ]  # [batch, part, tap, place]
    share = channels // parts
    images = reshape(x, (batch, parts, share, product(x.shape[2:])))
    shape = (batch, parts, share, dim(taps * places))
    found = functools.reduce(e.add, _corners(at, images, x.shape[2:], shape))
    if mask is not None:
        found = found * reshape(mask, (batch, parts, 1, shape[3]))
    columns = reshape(found, (batch, groups, channels // groups * taps, places))
    weights = reshape(w, (groups, w.shape[0] // groups, w.shape[1] * taps))
    y = reshape(matmul(weights, columns), (batch, w.shape[0], *out))
    return y if bias is None else y + reshape(bias, (w.shape[0], 1, 1))


def _grid(n: Node, axis: int, kernel: Any, out: Any, dtype: DType) -> Value:
    """Where the elements of the kernel are along an axis without an offset: [tap, place]."""
    stride, dilation, before = (
        n[name][axis] if n[name] else otherwise
        for name, otherwise in (("strides", 1), ("dilations", 1), ("pads", 0))
    )
    sizes = (*kernel, *out)
    taps, places = (
        reshape(iota(sizes[i], i64), [sizes[i] if j == i else 1 for j in range(4)])
        for i in (axis, axis + 2)
    )
    whole = broadcast_to(places * stride - before + taps * dilation, sizes)
    return cast(reshape(whole, (product(kernel), dim(product(out)))), dtype)


def _corners(at: list[Value], images: Value, sizes: Any, shape: Any) -> list[Value]:
    """The pixels at the four corners of each place, with their weights."""
    found = []
    for corner in itertools.product((0, 1), (0, 1)):
        index: Any = const(0, i64)
        weight: Any = const(1, images.dtype)
        for place, further, size in zip(at, corner, sizes, strict=True):
            pixel = e.floor(place) + further
            last = size_value(dim(size - 1), place.dtype)
            inside = e.logical_and(pixel >= 0, pixel <= last)
            near = 1 - (place - pixel) if not further else 1 - (pixel - place)
            weight = weight * e.where(inside, near, 0)
            kept = e.minimum(e.maximum(pixel, 0), last)
            index = index * size_value(size) + cast(kept, i64)
        flat = (*shape[:2], 1, shape[3])
        indices = broadcast_to(reshape(index, flat), shape)
        found.append(take_along_axis(images, indices, 3) * reshape(weight, flat))
    return found
