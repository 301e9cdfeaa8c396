"""Elements by their indices."""

from __future__ import annotations

import functools
from typing import Any

from nncompile.elementwise import add, where
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import dim, product
from nncompile.ir.op import Value
from nncompile.ir.types import Array, i64
from nncompile.ops.core.counting import iota
from nncompile.ops.indexing.scattering import put_along_axis, scatter
from nncompile.ops.shape.gathering import take, take_along_axis
from nncompile.ops.shape.reshape import reshape, transpose
from nncompile.ops.shape.selecting import argwhere, flatnonzero
from nncompile.ops.shape.slicing import along


@imports("Gather")
def _gather(n: Node, x: Value, indices: Value) -> Any:
    return take(x, indices, n["axis"])


@imports("GatherElements")
def _gather_elements(n: Node, x: Value, indices: Value) -> Any:
    """Other axes of the indices may be shorter than those of x."""
    axis = axis_in(x, n["axis"])
    for i, size in enumerate(indices.shape):
        if i != axis and size != x.shape[i]:
            x = along(x, i, 0, size, 1)
    return take_along_axis(x, indices, axis)


@imports("GatherND")
def _gather_nd(n: Node, x: Value, indices: Value) -> Any:
    batch = n["batch_dims"] or 0
    flat, rest, count = _flat_places(x, indices, batch)
    lead = indices.shape[batch:-1]
    sizes = (product(x.shape[batch : batch + count]), *rest)
    if not batch:
        return reshape(take(reshape(x, sizes), flat, 0), (*lead, *rest))
    # The elements of all batches in one row: each batch's begin behind those before it.
    number = product(x.shape[:batch])
    rows = reshape(flat, (number, product(lead)))
    starts = reshape(iota(number), (number, 1)) * size_value(sizes[0])
    flat = reshape(rows + starts, (dim(number * product(lead)),))
    taken = take(reshape(x, (dim(number * sizes[0]), *rest)), flat, 0)
    return reshape(taken, (*x.shape[:batch], *lead, *rest))


def _flat_places(x: Value, indices: Value, batch: int = 0) -> tuple[Value, Any, int]:
    """Tuples of indices as one index each, from the front; the sizes behind what they index."""
    count = indices.shape[-1]
    if not isinstance(count, int):
        raise Refused("the number of indices of an element depends on a size")
    terms = []
    for i in range(count):
        column = take(cast(indices, i64), const(i, i64), -1)
        size = size_value(x.shape[batch + i])
        column = where(column < 0, column + size, column)
        terms.append(column * size_value(product(x.shape[batch + i + 1 : batch + count])))
    zero = const(0, i64)
    flat = functools.reduce(add, terms, broadcast_to(zero, indices.shape[:-1]))
    return reshape(flat, (product(indices.shape[:-1]),)), x.shape[batch + count :], count


@imports("ScatterElements", "Scatter")
def _scatter_elements(n: Node, x: Value, indices: Value, updates: Value) -> Any:
    axis = axis_in(x, n["axis"])
    reduction = n["reduction"] or "none"
    if all(i == axis or size == x.shape[i] for i, size in enumerate(indices.shape)):
        return put_along_axis(x, indices, updates, axis, reduction)
    # Where they are fewer than the rows of x: all places as one index.
    from_front = where(indices < 0, cast(indices, i64) + size_value(x.shape[axis]),
                       cast(indices, i64))  # fmt: skip
    flat: Any = from_front * size_value(product(x.shape[axis + 1 :]))
    for i, size in enumerate(indices.shape):
        if i != axis:
            steps = iota(size) * size_value(product(x.shape[i + 1 :]))
            flat = flat + reshape(steps, [size if j == i else 1 for j in range(x.rank)])
    count = product(indices.shape)
    row = reshape(x, (product(x.shape),))
    spread = put_along_axis(row, reshape(flat, (count,)), reshape(updates, (count,)), 0, reduction)
    return reshape(spread, x.shape)


@imports("ScatterND")
def _scatter_nd(n: Node, x: Value, indices: Value, updates: Value) -> Any:
    flat, rest, count = _flat_places(x, indices)
    rows = reshape(x, (product(x.shape[:count]), *rest))
    values = reshape(updates, (flat.shape[0], *rest))
    return reshape(scatter(rows, flat, values, 0, n["reduction"] or "none"), x.shape)


@imports("OneHot", known=(1,))
def _one_hot(n: Node, indices: Value, depth: Array, values: Value) -> Any:
    count = depth.reshape(-1)[0]
    count = dim(int(count)) if not hasattr(count, "free_symbols") else dim(count)
    off, on = (take(values, const(i, i64), 0) for i in (0, 1))
    places = cast(indices, i64)
    places = where(places < 0, places + size_value(count), places)
    axis = n["axis"] % (indices.rank + 1)
    shape = (*indices.shape[:axis], 1, *indices.shape[axis:])
    numbers = reshape(iota(count), [count if i == axis else 1 for i in range(indices.rank + 1)])
    return where(reshape(places, shape) == numbers, on, off)


@imports("NonZero")
def _nonzero(n: Node, x: Value) -> Any:
    return transpose(argwhere(x if x.rank else reshape(x, (1,))), (1, 0))


@imports("Compress")
def _compress(n: Node, x: Value, condition: Value) -> Any:
    axis = n["axis"]
    if axis is None:
        x, axis = reshape(x, (product(x.shape),)), 0
    axis %= x.rank
    return take(x, flatnonzero(condition), axis)


@imports("TensorScatter")
def _tensor_scatter(n: Node, past: Value, update: Value, starts: Value | None = None) -> Any:
    """Rows of an axis replaced from a place on, each batch's own."""
    axis = axis_in(past, n["axis"])
    size, count = past.shape[axis], update.shape[axis]
    shape = [count if i == axis else 1 for i in range(past.rank)]
    places: Any = reshape(iota(count), shape)
    if starts is not None:
        places = places + reshape(cast(starts, i64), (-1, *(1,) * (past.rank - 1)))
    if n["mode"] == "circular":
        places = places % size_value(size)
    return put_along_axis(past, broadcast_to(places, update.shape), update, axis)


@imports("ArrayFeatureExtractor", domain="ai.onnx.ml")
def _array_feature(n: Node, x: Value, indices: Value) -> Any:
    taken = take(x, reshape(indices, (product(indices.shape),)), -1)
    return reshape(taken, (1, *taken.shape)) if x.rank == 1 else taken
