"""Shapes that are computed while the file runs, as far as constants say the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.work import Item, Work
from nncompile.ir.dims import Dim
from nncompile.ir.types import Array

_TO_THE_END = np.iinfo(np.int64).max
_SHAPE_TAKES_ENDS = 15  # the opset from which `Shape` has a start and an end


def as_reshape(work: Work, item: Item, x: str) -> bool:
    """Makes a node, whose result has the elements of `x` in their order, one that takes `x`."""
    before, after = work.shape(x), work.shape(item.output)
    if before is None or after is None:
        return False
    for op, small, large in (("Unsqueeze", before, after), ("Squeeze", after, before)):
        axes = _ones_beside(small, large)
        if axes:
            with_axes(work, item, op, x, axes)
            return True
    target = _target(before, after)
    if target is None or work.opset < 5:
        return False
    item.become("Reshape")
    work.set_inputs(item, [x, work.store(target, f"{item.output}_shape")])
    return True


def can_reshape(work: Work, before: Sequence[Dim], after: Sequence[Dim]) -> bool:
    """Whether `as_reshape` can."""
    if _ones_beside(before, after) or _ones_beside(after, before):
        return True
    return work.opset >= 5 and _target(before, after) is not None


def with_axes(work: Work, item: Item, op: str, x: str, axes: Sequence[int]) -> None:
    """Makes a node a `Squeeze` or `Unsqueeze`, which takes its axes as its version does."""
    if work.opset >= 13:
        item.become(op)
        work.set_inputs(item, [x, work.store(np.asarray(axes, np.int64), f"{item.output}_axes")])
    else:
        item.become(op, axes=list(axes))
        work.set_inputs(item, [x])


def _ones_beside(small: Sequence[Dim], large: Sequence[Dim]) -> list[int]:
    """The axes of the larger shape that are 1 and not in the smaller one; none where that is not
    all they differ by."""
    axes, left = [], list(small)
    for axis, size in enumerate(large):
        rest = len(large) - axis
        if left and left[0] == size and (size != 1 or len(left) == rest):
            left.pop(0)
        elif size == 1:
            axes.append(axis)
        else:
            return []
    return [] if left else axes


def _target(before: Sequence[Dim], after: Sequence[Dim]) -> Array | None:
    """A constant that reshapes the one to the other whatever the sizes of inputs are."""
    target = []
    for axis, size in enumerate(after):
        if isinstance(size, int):
            target.append(size)
        else:
            target.append(0 if axis < len(before) and before[axis] == size else -1)
    # A size of 0 would be that of the input.
    if target.count(-1) > 1 or any(size == 0 for size in after):
        return None
    return np.asarray(target, np.int64)


@rule("Reshape")
def constant_target(work: Work, item: Item) -> bool:
    """A reshape to sizes of its own input, or to one other size."""
    if len(item.inputs) < 2 or work.is_constant(item.inputs[1]):
        return False
    return as_reshape(work, item, item.inputs[0])


@rule("Expand")
def constant_expansion(work: Work, item: Item) -> bool:
    """An expansion of axes by numbers."""
    if work.is_constant(item.inputs[1]):
        return False
    before, after = work.shape(item.inputs[0]), work.shape(item.output)
    if before is None or after is None:
        return False
    padded = [*[1] * (len(after) - len(before)), *before]
    target = [1 if a == b else b for a, b in zip(padded, after, strict=True)]
    if not all(isinstance(size, int) for size in target):
        return False
    shape = work.store(np.asarray(target, np.int64), f"{item.output}_shape")
    work.set_inputs(item, [item.inputs[0], shape])
    return True


@rule("Slice")
def constant_ends(work: Work, item: Item) -> bool:
    """A slice that ends where its axis does ends there whatever the size is."""
    if len(item.inputs) < 3 or work.is_constant(item.inputs[2]):
        return False
    starts, ends = work.known(item.inputs[1]), work.known(item.inputs[2])
    axes = work.known(item.inputs[3]) if len(item.inputs) > 3 else None
    steps = work.known(item.inputs[4]) if len(item.inputs) > 4 else None
    shape = work.shape(item.inputs[0])
    if starts is None or ends is None or shape is None or not work.is_constant(item.inputs[1]):
        return False
    if steps is not None and any(step != 1 for step in steps.flat):
        return False
    over = range(ends.size) if axes is None else [int(a) for a in axes.flat]
    found = []
    for end, axis in zip(ends.flat, over, strict=True):
        if not isinstance(end, int | np.integer) and end != shape[axis]:
            return False
        found.append(int(end) if isinstance(end, int | np.integer) else _TO_THE_END)
    dtype = work.dtype(item.inputs[1])
    limited = np.asarray([min(end, np.iinfo(dtype).max) for end in found], dtype)
    names = list(item.inputs)
    names[2] = work.store(limited, f"{item.output}_ends")
    work.set_inputs(item, names)
    return True


@rule("Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Cast", "Reshape", "Add", "Mul", "Sub")
def sizes_of_an_input(work: Work, item: Item) -> bool:
    """Sizes that stand beside each other in the shape of an input are a part of that shape."""
    fact = work.facts.get(item.output)
    if work.opset < _SHAPE_TAKES_ENDS or fact is None or fact.known is None:
        return False
    if fact.known.dtype != object or fact.known.ndim != 1 or fact.type.dtype.name != "int64":
        return False
    sizes = list(fact.known)
    for name in work.inputs:
        shape = list(work.shape(name) or ())
        for start in range(len(shape) - len(sizes) + 1):
            if shape[start : start + len(sizes)] == sizes:
                end = start + len(sizes)
                item.become("Shape", start=start, end=None if end == len(shape) else end)
                work.set_inputs(item, [name])
                return True
    return False


_BROADCASTING = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Where", "And", "Or", "Xor", "Equal", "Less", "Greater"),
    *("LessOrEqual", "GreaterOrEqual", "Mod", "PRelu", "Min", "Max", "Sum", "Mean", "BitwiseAnd"),
)


@rule(*_BROADCASTING)
def expanded_anyway(work: Work, item: Item) -> bool:
    """What is expanded for an operator that expands it itself."""
    for i, name in enumerate(item.inputs):
        expand = work.only_maker(name, "Expand")
        if expand is None or (item.op == "PRelu" and i):
            continue
        names = [expand.inputs[0] if j == i else n for j, n in enumerate(item.inputs)]
        shapes = [work.shape(n) for n in names]
        result = work.shape(item.output)
        known = [s for s in shapes if s is not None]
        if result is not None and len(known) == len(shapes) and _broadcast(known) == result:
            work.set_inputs(item, names)
            return True
    return False


def _broadcast(shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...] | None:
    """The shape of all together, where their sizes are equal or 1."""
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for axis in range(-rank, 0):
        sizes = {s[axis] for s in shapes if -axis <= len(s)} - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)
