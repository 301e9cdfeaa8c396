"""Several nodes that only move elements, as fewer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.shapes import as_reshape, can_reshape
from nncompile.frontends.onnx.simplify.work import Item, Work
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ir.dims import Dim, product
from nncompile.ir.types import Array, Type

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@rule(*_RESHAPES)
def reshape_of_a_reshape(work: Work, item: Item) -> bool:
    """Two reshapes as one."""
    inner = work.only_maker(item.inputs[0], *_RESHAPES)
    if inner is None:
        return False
    if work.is_alike(item.output, inner.inputs[0]):
        return work.replace(item.output, inner.inputs[0])
    return as_reshape(work, item, inner.inputs[0])


def _perm(work: Work, item: Item) -> list[int] | None:
    shape, perm = work.shape(item.inputs[0]), item.attribute("perm")
    if perm is None and shape is None:
        return None
    axes = list(range(len(perm if shape is None else shape)))
    listed = axes[::-1] if perm is None else list(perm)
    return listed if sorted(listed) == axes else None


@rule("Transpose")
def transpose_of_a_transpose(work: Work, item: Item) -> bool:
    """Two transpositions as one."""
    inner = work.only_maker(item.inputs[0], "Transpose")
    if inner is None:
        return False
    first, second = _perm(work, inner), _perm(work, item)
    if first is None or second is None or len(first) != len(second):
        return False
    item.set_attributes(perm=[first[axis] for axis in second])
    work.set_inputs(item, [inner.inputs[0]])
    return True


@rule(*_RESHAPES)
def transpose_between_reshapes(work: Work, item: Item) -> bool:
    """Axes that are joined, or put in, before a transposition and are as before after it."""
    transpose = work.only_maker(item.inputs[0], "Transpose")
    if transpose is None:
        return False
    inner = work.only_maker(transpose.inputs[0], *_RESHAPES)
    perm = _perm(work, transpose)
    if inner is None or perm is None:
        return False
    x = inner.inputs[0]
    before, middle, after = (work.shape(n) for n in (x, transpose.inputs[0], item.output))
    if before is None or middle is None or after is None:
        return False
    groups = _groups(before, middle)
    if groups is None:
        return False
    moved = [axis for position in perm for axis in groups[position]]
    if [before[axis] for axis in moved] != list(after):
        return False
    item.become("Transpose", perm=moved)
    work.set_inputs(item, [x])
    return True


@rule(*_RESHAPES)
def split_before_a_transpose(work: Work, item: Item) -> bool:
    """Axes that are split, or left out, after a transposition: the reshape before it does that."""
    transpose = work.only_maker(item.inputs[0], "Transpose")
    inner = transpose and work.only_maker(transpose.inputs[0], *_RESHAPES)
    perm = _perm(work, transpose) if transpose else None
    if transpose is None or inner is None or perm is None:
        return False
    moved, after = work.shape(transpose.output), work.shape(item.output)
    before, dtype = work.shape(inner.inputs[0]), work.facts.get(inner.inputs[0])
    groups = None if moved is None or after is None else _groups(after, moved)
    if groups is None or after is None or before is None or dtype is None:
        return False
    # The parts of each axis in the order of the axes before the transposition.
    order = [part for axis in range(len(perm)) for part in groups[perm.index(axis)]]
    shape = [after[part] for part in order]
    if not can_reshape(work, before, shape):
        return False
    name = work.unused(inner.output)
    work.facts[name] = Tensor(Type(dtype.type.dtype, tuple(shape)))
    work.set_outputs(inner, [name])
    if not as_reshape(work, inner, inner.inputs[0]):  # it is of the same shape
        work.replace(name, inner.inputs[0])
        name = inner.inputs[0]
    transpose.set_attributes(perm=[order.index(part) for part in range(len(after))])
    work.set_inputs(transpose, [name])
    work.take_output(transpose, item)
    return True


def _groups(before: Sequence[Dim], middle: Sequence[Dim]) -> list[list[int]] | None:
    """The axes that each axis of a reshaped tensor is made of: neighbours, and none where it is
    1."""
    if 0 in before:  # a product of no elements does not tell its factors
        return None
    groups: list[list[int]] = []
    axis = 0
    for size in middle:
        group: list[int] = []
        while product([before[a] for a in group]) != size:
            if axis == len(before):
                return None
            group.append(axis)
            axis += 1
        groups.append(group)
    return groups if axis == len(before) else None


@rule("Concat")
def concat_of_concats(work: Work, item: Item) -> bool:
    """A concatenation within another one along the same axis."""
    axis, names = item.attribute("axis"), []
    for name in item.inputs:
        inner = work.only_maker(name, "Concat")
        is_part = inner is not None and inner.attribute("axis") == axis
        names += list(inner.inputs) if is_part and inner is not None else [name]
    if len(names) == len(item.inputs):
        return False
    work.set_inputs(item, names)
    return True


_REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ArgMax", "ArgMin"),
)


@rule(*_RESHAPES)
def axes_of_a_reduction(work: Work, item: Item) -> bool:
    """Axes of 1 that a reduction leaves, or does not leave."""
    inner = work.only_maker(item.inputs[0], *_REDUCTIONS)
    shape, after = work.shape(item.inputs[0]), work.shape(item.output)
    before = None if inner is None else work.shape(inner.inputs[0])
    if inner is None or shape is None or after is None or before is None:
        return False
    axes = work.constant(inner.inputs[1]) if len(inner.inputs) > 1 else inner.attribute("axes")
    if inner.op in ("ArgMax", "ArgMin"):
        axes = [inner.attribute("axis", 0)]
    if axes is None:
        return False
    reduced = {int(axis) % len(before) for axis in np.asarray(axes).reshape(-1)}
    keeps = 1 - inner.attribute("keepdims", 1)
    other = [1 if i in reduced else d for i, d in enumerate(before) if keeps or i not in reduced]
    if not reduced or other != list(after):
        return False
    inner.set_attributes(keepdims=keeps)
    work.take_output(inner, item)
    return True


@rule(*_RESHAPES)
def reshape_of_moved_ones(work: Work, item: Item) -> bool:
    """A transposition that moves axes of 1 alone keeps the order of the elements."""
    transpose = work.only_maker(item.inputs[0], "Transpose")
    if transpose is None:
        return False
    shape, perm = work.shape(transpose.inputs[0]), _perm(work, transpose)
    if shape is None or perm is None:
        return False
    others = [axis for axis in perm if shape[axis] != 1]
    return others == sorted(others) and as_reshape(work, item, transpose.inputs[0])


@rule("Slice")
def slice_of_a_slice(work: Work, item: Item) -> bool:
    """Slices of other axes as one."""
    inner = work.only_maker(item.inputs[0], "Slice")
    shape = work.shape(item.output)
    parts = [None if x is None else _slices(work, x) for x in (inner, item)]
    if inner is None or shape is None or parts[0] is None or parts[1] is None:
        return False
    of_axes = [{int(axis) % len(shape) for axis in part["axes"]} for part in parts if part]
    if of_axes[0] & of_axes[1]:
        return False
    names = [
        work.store(np.concatenate([parts[0][kind], parts[1][kind]]), f"{item.output}_{kind}")
        for kind in parts[0]
    ]
    work.set_inputs(item, [inner.inputs[0], *names])
    return True


def _slices(work: Work, item: Item) -> dict[str, Array] | None:
    """The constants that say what a slice takes."""
    found: dict[str, Array] = {}
    for kind, name in zip(("starts", "ends", "axes"), item.inputs[1:4], strict=False):
        numbers = work.constant(name) if name else None
        if numbers is not None:
            found[kind] = numbers.astype(np.int64).reshape(-1)
    if len(found) < 3:
        return None
    steps = item.inputs[4] if len(item.inputs) > 4 else ""
    numbers = work.constant(steps) if steps else np.ones_like(found["axes"])
    if numbers is None:
        return None
    return {**found, "steps": numbers.astype(np.int64).reshape(-1)}


@rule("Slice")
def slices_that_are_a_split(work: Work, item: Item) -> bool:
    """Slices that are together the whole of an axis."""
    x = item.inputs[0]
    parts: dict[int, tuple[int, Item]] = {}
    axis = None
    for user in work.users[x]:
        part = _part(work, user) if user.op == "Slice" and user.inputs[0] == x else None
        if part is None or (axis is not None and part[0] != axis) or part[1] in parts:
            continue
        axis = part[0]
        parts[part[1]] = part[2], user
    shape = work.shape(x)
    if axis is None or shape is None or len(parts) < 2:
        return False
    bounds = sorted((start, end) for start, (end, _) in parts.items())
    meets = all(end == start for (_, end), (start, _) in pairwise(bounds))
    if not meets or bounds[0][0] != 0 or bounds[-1][1] != shape[axis]:
        return False
    _split(work, [parts[start][1] for start, _ in bounds], x, axis, [e - s for s, e in bounds])
    return True


def _part(work: Work, item: Item) -> tuple[int, int, int] | None:
    """The axis that a slice is of, and where it begins and ends there."""
    if not 4 <= len(item.inputs) <= 5:
        return None
    numbers = [work.constant(name) for name in item.inputs[1:]]
    shape = work.shape(item.inputs[0])
    if shape is None or any(n is None or n.size != 1 for n in numbers):
        return None
    start, end, axis, *step = (int(n.item()) for n in numbers if n is not None)
    axis %= len(shape)
    size = shape[axis]
    if not isinstance(size, int) or step not in ([], [1]):
        return None
    start, end = (min(max(n + size if n < 0 else n, 0), size) for n in (start, end))
    return (axis, start, end) if start < end else None


def _split(work: Work, slices: Sequence[Item], x: str, axis: int, sizes: Sequence[int]) -> None:
    """One node in the place of the first of the slices."""
    order = {item: position for position, item in enumerate(work.items)}
    kept = min(slices, key=order.__getitem__)
    outputs = [item.output for item in slices]
    for item in slices:
        if item is not kept:
            work.remove(item)
    kept.become("Split", axis=axis)
    work.set_outputs(kept, outputs)
    if work.opset >= 13:
        work.set_inputs(kept, [x, work.store(np.asarray(sizes, np.int64), f"{x}_sizes")])
    else:
        kept.set_attributes(split=list(sizes))
        work.set_inputs(kept, [x])
