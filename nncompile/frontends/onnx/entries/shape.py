"""Ops that arrange elements, and those that make tensors of nothing but a shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise import where
from nncompile.frontends.onnx.checking import axis_in, check_rank, check_slices
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor, array_of, dtype_from
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.broadcasting import broadcast_to, full, ones_like
from nncompile.ir.dims import broadcast, dim, floordiv, product, same
from nncompile.ir.op import Value
from nncompile.ir.size_arithmetic import FloorDiv
from nncompile.ir.types import Array, boolean, dtype_of, f32, i64
from nncompile.ops import getitem
from nncompile.ops import pad as padded
from nncompile.ops.core.counting import iota
from nncompile.ops.linear_algebra.matrices import tril, triu
from nncompile.ops.linear_algebra.systems import eye
from nncompile.ops.shape.gathering import take_along_axis
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import expand_dims, reshape, squeeze, tile, transpose

_LARGEST = 1 << 31  # an end of a slice that stands for the end of the axis


def dims_of(known: Array) -> list[Any]:
    """The numbers and sizes of a shape."""
    return [dim(int(x)) if not isinstance(x, sp.Expr) else dim(x) for x in known.reshape(-1)]


@imports("Constant")
def _constant(n: Node) -> Tensor:
    if len(n.attributes) > 1:
        raise Refused(f"it has several values: {', '.join(sorted(n.attributes))}")
    for name, dtype in (("value_int", np.int64), ("value_ints", np.int64),
                        ("value_float", np.float32), ("value_floats", np.float32)):  # fmt: skip
        if n[name] is not None:
            return Tensor.of_numbers(np.asarray(n[name], dtype))
    if n["value"] is None:
        raise Refused("a constant of strings, or a sparse one")
    return Tensor.of_numbers(array_of(n["value"]))


def _axis(x: Value, axis: int) -> int:
    """An axis of x, which is no number."""
    if not x.rank:
        raise Refused(f"axis {axis} does not exist in a tensor of rank 0")
    return axis_in(x, axis)


@imports("ConstantOfShape", known=(0,))
def _constant_of_shape(n: Node, shape: Array) -> Any:
    number = np.zeros(1, np.float32) if n["value"] is None else array_of(n["value"])
    return full(dims_of(shape), number.reshape(-1)[0].item(), dtype_of(number))


@imports("Reshape", known=(1,))
def _reshape(n: Node, x: Value, shape: Array | None = None) -> Any:
    target = dims_of(shape if shape is not None else np.asarray(n.required("shape")))
    if not n["allowzero"]:
        if 0 in target[x.rank :]:
            raise Refused(f"its shape {target} takes a size that a tensor of rank {x.rank} has not")
        target = [x.shape[i] if d == 0 else d for i, d in enumerate(target)]
    return reshape(x, target)


@imports("Flatten")
def _flatten(n: Node, x: Value) -> Any:
    axis = n["axis"] + (x.rank if n["axis"] < 0 else 0)
    return reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


@imports("Transpose")
def _transpose(n: Node, x: Value) -> Any:
    return transpose(x, n["perm"]) if n["perm"] is not None else transpose(x)


@imports("Squeeze", "Unsqueeze", known=(1,))
def _squeeze(n: Node, x: Value, *_: Any) -> Any:
    axes = n.option(1, "axes")
    if n.op == "Unsqueeze":
        return expand_dims(x, tuple(axes or ()))
    if axes is None:
        return squeeze(x)
    dropped = {axis_in(x, a) for a in axes}
    if all(x.shape[a] == 1 for a in dropped):
        return squeeze(x, tuple(axes))
    # Of what a slice leaves, as x[-1:] of some elements: that it is one is checked as it runs.
    return reshape(x, [size for a, size in enumerate(x.shape) if a not in dropped])


@imports("Expand", known=(1,))
def _expand(n: Node, x: Value, shape: Array) -> Any:
    return broadcast_to(x, broadcast(x.shape, tuple(dims_of(shape))))


@imports("Tile", known=(1, 2))
def _tile(n: Node, x: Value, repeats: Array, axis: Array | None = None) -> Any:
    if axis is not None:  # as before opset 6
        counts = [1] * x.rank
        counts[int(axis.reshape(-1)[0])] = dims_of(repeats)[0]
        return tile(x, tuple(counts))
    return tile(x, tuple(dims_of(repeats)))


@imports("Concat")
def _concat(n: Node, *xs: Value) -> Any:
    return concatenate(xs, n["axis"] if n["axis"] is not None else 1)


@imports("Slice", known=(1, 2, 3, 4))
def _slice(n: Node, x: Value, *_: Any) -> Any:
    if n.version < 10:
        starts, ends = list(n["starts"]), list(n["ends"])
        axes = n["axes"] or range(len(starts))
        steps = [1] * len(starts)
    else:
        starts, ends = (_known_dims(n, i) for i in (1, 2))
        axes = n.ints(3) or range(len(starts))
        steps = n.ints(4) or [1] * len(starts)
    check_slices(starts, ends, axes, steps)
    keys: list[Any] = [slice(None)] * x.rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = _axis(x, axis)
        size = x.shape[axis]
        keys[axis] = slice(_bound(start, size, step, True), _bound(end, size, step, False), step)
    return getitem(x, tuple(keys))


def _bound(bound: Any, size: Any, step: int, is_start: bool) -> Any:
    """A bound of a slice as numpy takes it: None for one at or beyond an end of the axis."""
    beyond = step > 0
    if not isinstance(bound, int):
        return None if not is_start and beyond and same(bound, size) is True else bound
    if isinstance(size, int):
        return None if not is_start and step < 0 and bound < -size else bound
    if bound >= _LARGEST - 1:  # a whole axis, from its end or up to it
        return None if is_start is not beyond else bound
    if bound <= 1 - _LARGEST:
        return None if is_start is beyond else bound
    return bound


@imports("Split", known=(1,))
def _split(n: Node, x: Value, *_: Any) -> Any:
    axis = _axis(x, n["axis"] or 0)
    size = x.shape[axis]
    if n.given(1):
        sizes = _known_dims(n, 1)
    elif n["split"] is not None:
        sizes = list(n["split"])
    else:
        count = n["num_outputs"] or len(n.outputs)
        if count != len(n.outputs):
            raise Refused(f"{count} parts for {len(n.outputs)} outputs")
        chunk = dim(-FloorDiv(sp.sympify(-size), sp.sympify(count)))
        if not isinstance(size, int) and same(dim(chunk * count), size) is not True:
            raise Refused(f"{size} elements are not known to be {count} equal parts")
        last: Any = size - chunk * (count - 1)
        sizes = [chunk] * (count - 1) + [dim(last)]
    start: Any = 0
    parts = []
    for part in sizes:
        keys: list[Any] = [slice(None)] * x.rank
        keys[axis] = slice(start, dim(start + part))
        parts.append(getitem(x, tuple(keys)))
        start = dim(start + part)
    return tuple(parts)


@imports("Range", raw=True)
def _range(n: Node, *_: Any) -> Any:
    dtype = n.type_of(0).dtype
    start, limit, delta = (_one(n, i) for i in range(3))
    if dtype.is_float:
        numbers = [n.number(i) for i in range(3)]
        count: Any = max(int(np.ceil((numbers[1] - numbers[0]) / numbers[2])), 0)
        start, delta = numbers[0], numbers[2]
    elif all(not isinstance(x, sp.Expr) for x in (start, limit, delta)):
        count = len(range(int(start), int(limit), int(delta)))
    else:
        if isinstance(delta, sp.Expr) or int(delta) == 0:
            raise Refused("the step of a range depends on a size")
        step = int(delta)
        span = sp.sympify(limit - start if step > 0 else start - limit)
        count = floordiv(dim(sp.Max(span, 0) if span.is_nonnegative is not True else span)
                         + abs(step) - 1, abs(step))  # fmt: skip
    steps = iota(count, i64 if dtype.is_integer else dtype)
    first = size_value(dim(start)) if isinstance(start, sp.Expr) else const(start, steps.dtype)
    step_value = const(delta if dtype.is_float else int(delta), steps.dtype)
    return cast(first + steps * step_value, dtype)


def _one(n: Node, i: int) -> Any:
    known = n.known(i)
    if known is None or known.size != 1:
        raise Refused(f"{n.label(i)} is not one number")
    return known.reshape(-1)[0]


@imports("EyeLike")
def _eye_like(n: Node, x: Value) -> Any:
    dtype = x.dtype if n["dtype"] is None else dtype_from(n["dtype"])
    check_rank(n, x, rank=2)
    rows, columns = x.shape
    plain = dtype if dtype.is_float or dtype.is_integer else f32
    return cast(eye(rows, columns, n["k"] or 0, plain), dtype)


@imports("Trilu", known=(1,))
def _trilu(n: Node, x: Value, k: Array | None = None) -> Any:
    return (triu if n["upper"] else tril)(x, 0 if k is None else dim(k.reshape(-1)[0]))


@imports("Pad", known=(1, 3))
def _pad(n: Node, x: Value, _: Any = None, constant: Value | None = None, *__: Any) -> Any:
    widths = _known_dims(n, 1) if n.given(1) else list(n["pads"] or n["paddings"] or ())
    axes = n.ints(3) if n.given(3) else None
    axes = list(range(x.rank)) if axes is None else axes
    if len(widths) != 2 * len(axes):
        raise Refused(f"{len(widths)} widths of padding for {len(axes)} axes")
    number: Any = 0 if n.version >= 11 else n["value"] or 0
    if n.given(2):
        number = constant if n.inputs[2].numbers is None else n.number(2)  # type: ignore[union-attr]  # it is given
    pairs: list[Any] = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pairs[_axis(x, axis)] = (widths[i], widths[i + len(axes)])
    x, pairs = _cut(x, pairs)
    if all(w == 0 for pair in pairs for w in pair):
        return x
    if isinstance(number, Value):  # one that data decide
        inside = padded(ones_like(cast(x, boolean)), pairs)
        return where(inside, padded(x, pairs), reshape(number, ()))
    return padded(x, pairs, n["mode"], number)


def _cut(x: Value, pairs: list[Any]) -> tuple[Value, list[Any]]:
    """x without what negative widths remove, and the other widths."""
    if not any(_removes(w) for pair in pairs for w in pair):
        return x, pairs
    keys = []
    for size, (first, last) in zip(x.shape, pairs, strict=True):
        stop = dim(size + last) if _removes(last) else None
        keys.append(slice(-first if _removes(first) else None, stop))
    return getitem(x, tuple(keys)), [tuple(0 if _removes(w) else w for w in pair) for pair in pairs]


def _removes(width: Any) -> bool:
    return isinstance(width, int) and width < 0


def _known_dims(n: Node, i: int) -> list[Any]:
    """The numbers and sizes of an input that is required."""
    known = n.known(i)
    if known is None:
        raise Refused(f"{n.label(i)} is missing")
    return dims_of(known)


@imports("DepthToSpace", "SpaceToDepth")
def _blocks(n: Node, x: Value) -> Any:
    size = n["blocksize"]
    check_rank(n, x, rank=4)
    batch, channels, height, width = x.shape
    if n.op == "SpaceToDepth":
        parts = (batch, channels, floordiv(height, size), size, floordiv(width, size), size)
        order = (0, 1, 3, 5, 2, 4) if n["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
        moved = transpose(reshape(x, parts), order)
        shape = (batch, dim(channels * size**2), floordiv(height, size), floordiv(width, size))
        return reshape(moved, shape)
    deep = floordiv(channels, size**2)
    if n["mode"] == "CRD":
        moved = transpose(reshape(x, (batch, deep, size, size, height, width)), (0, 1, 4, 2, 5, 3))
    else:
        moved = transpose(reshape(x, (batch, size, size, deep, height, width)), (0, 3, 4, 1, 5, 2))
    return reshape(moved, (batch, deep, dim(height * size), dim(width * size)))


@imports("ReverseSequence")
def _reverse_sequence(n: Node, x: Value, lengths: Value) -> Any:
    time = n["time_axis"]
    moved = x if time == 0 else transpose(x, (1, 0, *range(2, x.rank)))
    size = moved.shape[0]
    positions = expand_dims(iota(size), 1)
    rows = expand_dims(cast(lengths, i64), 0)
    index = where(positions < rows, rows - 1 - positions, positions)
    shape = (*index.shape, *(1,) * (moved.rank - 2))
    from_index = broadcast_to(reshape(index, shape), moved.shape)
    taken = take_along_axis(moved, from_index, 0)
    return taken if time == 0 else transpose(taken, (1, 0, *range(2, x.rank)))
