"""Convolutions and pooling."""

from __future__ import annotations

import math
from typing import Any

from nncompile import elementwise as e
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, size_value
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import dim, product
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f64, i32
from nncompile.ops.convolution.functions import conv, conv_transpose
from nncompile.ops.convolution.patches import fold
from nncompile.ops.core.counting import iota
from nncompile.ops.indexing.scattering import put_along_axis
from nncompile.ops.pooling.average import average_pool
from nncompile.ops.pooling.maximum import max_pool
from nncompile.ops.pooling.norms import local_response_norm
from nncompile.ops.pooling.places import max_pool_with_indices
from nncompile.ops.reduction.extremes import max as largest
from nncompile.ops.reduction.statistics import mean, norm
from nncompile.ops.shape.padding import pad
from nncompile.ops.shape.reshape import expand_dims, reshape, squeeze
from nncompile.ops.shape.slicing import padded

_POOLED = 256  # elements that pooling takes the mean of in the time of a reduction, or less


def _window(n: Node, rank: int) -> tuple[tuple[int, ...], Any, tuple[int, ...]]:
    """Strides, padding and dilations of a node."""
    strides = n.sizes("strides", rank, 1)
    dilations = n.sizes("dilations", rank, 1)
    automatic = n["auto_pad"] or "NOTSET"
    if automatic == "VALID":
        return strides, ((0, 0),) * rank, dilations
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        return strides, automatic, dilations
    pads = n.sizes("pads", 2 * rank, 0)
    return strides, tuple(zip(pads[:rank], pads[rank:], strict=True)), dilations


def _explicit(padding: Any, x: Value, kernel: Any, strides: Any, dilations: Any) -> Any:
    """The padding as pairs; by name only where it depends on a size."""
    if not isinstance(padding, str):
        return padding
    pairs = []
    for i, size in enumerate(x.shape[2:]):
        span = (kernel[i] - 1) * dilations[i] + 1
        if not isinstance(size, int):
            if strides[i] == 1:
                missing = span - 1
            elif padding == "SAME_UPPER":
                return "same"
            else:
                raise Refused("auto_pad SAME_LOWER with strides, of an axis of unknown size")
        else:
            missing = max((-(-size // strides[i]) - 1) * strides[i] + span - size, 0)
        low, high = missing // 2, missing - missing // 2
        pairs.append((low, high) if padding == "SAME_UPPER" else (high, low))
    return tuple(pairs)


def _check_kernel(n: Node, w: Value) -> None:
    """Raises `Refused` where the attribute is not the size of the kernel."""
    kernel = n["kernel_shape"]
    if kernel and tuple(kernel) != w.shape[2:] and all(isinstance(d, int) for d in w.shape[2:]):
        shape = list(w.shape[2:])
        raise Refused(f"its attribute kernel_shape is {list(kernel)}, its kernel has {shape}")


@imports("Conv")
def _conv(n: Node, x: Value, w: Value, bias: Value | None = None) -> Any:
    return convolved(n, x, w, bias)


def convolved(n: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """The convolution of a node with these operands."""
    rank = x.rank - 2
    strides, padding, dilations = _window(n, rank)
    _check_kernel(n, w)
    padding = _explicit(padding, x, w.shape[2:], strides, dilations)
    return conv(x, w, bias, strides, padding, dilations, n["group"] or 1)


@imports("ConvInteger")
def _conv_integer(
    n: Node, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None
) -> Any:
    """In double, where the products of 8 bits are exact."""
    left = cast(x, f64) if x_zero is None else cast(x, f64) - cast(x_zero, f64)
    right = cast(w, f64)
    if w_zero is not None:
        zero = cast(w_zero, f64)
        right = right - (reshape(zero, (-1, *(1,) * (w.rank - 1))) if zero.rank else zero)
    return cast(convolved(n, left, right), i32)


@imports("ConvTranspose")
def _conv_transpose(n: Node, x: Value, w: Value, bias: Value | None = None) -> Any:
    rank = x.rank - 2
    strides, padding, dilations = _window(n, rank)
    _check_kernel(n, w)
    extra = list(n.sizes("output_padding", rank, 0))
    shape = n["output_shape"]
    if shape and len(shape) != x.rank:  # of all axes, or of those of space
        shape = n.sizes("output_shape", rank)
    if shape or isinstance(padding, str):
        pairs = []
        for i, size in enumerate(x.shape[2:]):
            span = (w.shape[2 + i] - 1) * dilations[i] + 1
            if shape and not isinstance(size, int):
                raise Refused("output_shape of an axis of unknown size")
            if shape:
                target = shape[len(shape) - rank + i]
                missing = strides[i] * (size - 1) + extra[i] + span - target
            else:
                missing = extra[i] + span - strides[i]
            half = missing // 2
            upper = n["auto_pad"] == "SAME_UPPER"
            pairs.append((half, missing - half) if upper else (missing - half, half))
        padding = tuple(pairs)
    groups = n["group"] or 1
    return conv_transpose(x, w, bias, strides, padding, extra, dilations, groups)


@imports("MaxPool")
def _max_pool(n: Node, x: Value) -> Any:
    rank = x.rank - 2
    strides, padding, dilations = _window(n, rank)
    padding = _explicit(padding, x, n.sizes("kernel_shape", rank), strides, dilations)
    options = (n.sizes("kernel_shape", rank), strides, padding, dilations, bool(n["ceil_mode"]))
    if len(n.outputs) < 2 or not n.outputs[1]:
        return max_pool(x, *options)
    y, indices = max_pool_with_indices(x, *options)
    if n["storage_order"] and rank > 1:
        if rank != 2:
            raise Refused("indices in column-major order of more than two axes")
        height, width = (size_value(size) for size in x.shape[2:])
        indices = indices % width * height + e.floor_divide(indices, width)
    planes = _plane_starts(x)
    return y, indices + planes


def _plane_starts(x: Value) -> Value:
    """Where each plane of [batch, channels, *space] begins in all of it."""
    count = dim(x.shape[0] * x.shape[1])
    starts = iota(count) * size_value(product(x.shape[2:]))
    return reshape(starts, (*x.shape[:2], *(1,) * (x.rank - 2)))


@imports("MaxUnpool", known=(2,))
def _max_unpool(n: Node, x: Value, indices: Value, shape: Array | None = None) -> Any:
    rank = x.rank - 2
    strides, padding, _ = _window(n, rank)
    kernel = n.sizes("kernel_shape", rank)
    sizes = [
        (size - 1) * s + k - sum(p)
        for size, s, k, p in zip(x.shape[2:], strides, kernel, padding, strict=True)
    ]
    natural = (*x.shape[:2], *map(dim, sizes))
    flat = full((product(natural),), 0, x.dtype)
    # Indices are those of the smallest tensor, whatever is asked for.
    spread = put_along_axis(flat, reshape(indices, (-1,)), reshape(x, (-1,)), 0)
    y = reshape(spread, natural)
    if shape is None:
        return y
    after = [dim(d - size) for d, size in zip(shape.reshape(-1).tolist(), natural, strict=True)]
    return padded(y, [0] * x.rank, after)


@imports("AveragePool")
def _average_pool(n: Node, x: Value) -> Any:
    rank = x.rank - 2
    strides, padding, dilations = _window(n, rank)
    padding = _explicit(padding, x, n.sizes("kernel_shape", rank), strides, dilations)
    counted = bool(n["count_include_pad"])
    if padding == "same" and counted:
        raise Refused("auto_pad that counts, of an axis of unknown size")
    return average_pool(
        x, n.sizes("kernel_shape", rank), strides, padding, bool(n["ceil_mode"]), counted, dilations
    )


@imports("LpPool")
def _lp_pool(n: Node, x: Value) -> Any:
    """(Σ |x|ᵖ)^(1/p), zeros in the padding; the gradient is 0 where it is 0."""
    rank = x.rank - 2
    strides, padding, dilations = _window(n, rank)
    kernel = n.sizes("kernel_shape", rank)
    padding = _explicit(padding, x, kernel, strides, dilations)
    if padding == "same" or n["ceil_mode"]:
        raise Refused("ceil_mode, or auto_pad of an axis of unknown size")
    before, after = ([0, 0, *(pair[i] for pair in padding)] for i in (0, 1))
    p = float(n["p"])
    powers = padded(e.power(e.abs(x), p), before, after)
    count = float(math.prod(kernel))
    sums = average_pool(powers, kernel, strides, 0, False, True, dilations) * count
    return e.where(sums == 0, 0, e.power(sums, 1 / p))


@imports("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(n: Node, x: Value) -> Any:
    axes = tuple(range(2, x.rank))
    if n.op == "GlobalMaxPool":
        return largest(x, axes, True)
    if n.op == "GlobalAveragePool":
        whole = x.shape[2:]
        count = product(whole)
        if x.dtype.is_float and isinstance(count, int) and 0 < count <= _POOLED:
            return average_pool(x, whole, whole)
        return mean(x, axes, True)
    return norm(x, n["p"], axes, True)


@imports("LRN")
def _lrn(n: Node, x: Value) -> Any:
    size = n["size"]
    if size % 2:
        return local_response_norm(x, size, n["alpha"], n["beta"], n["bias"])
    squares = expand_dims(e.square(x), 1)
    pads = [(0, 0), (0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (x.rank - 2)]
    kernel = (size, *(1,) * (x.rank - 2))
    means = squeeze(average_pool(pad(squares, pads), kernel, 1), 1)
    return x / e.power(means * n["alpha"] + n["bias"], n["beta"])


@imports("Col2Im", known=(1, 2))
def _col2im(n: Node, x: Value, image: Array, block: Array) -> Any:
    rank = block.size
    pads = n.sizes("pads", 2 * rank, 0)
    if pads[:rank] != pads[rank:]:
        raise Refused("padding that differs between the sides")
    sizes = [int(d) if isinstance(d, int) or not hasattr(d, "free_symbols") else d
             for d in image.reshape(-1)]  # fmt: skip
    kernel = [int(k) for k in block.reshape(-1)]
    return fold(x, tuple(sizes), tuple(kernel), n.sizes("dilations", rank, 1),
                pads[:rank], n.sizes("strides", rank, 1))  # fmt: skip
