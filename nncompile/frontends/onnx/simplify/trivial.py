"""Nodes that change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.work import Item, Work


@rule("Identity")
def identity(work: Work, item: Item) -> bool:
    """What is passed on as it is."""
    return work.replace(item.output, item.inputs[0])


@rule("Dropout")
def dropout(work: Work, item: Item) -> bool:
    """Drops nothing where a file is run, unless it says so."""
    if len(item.outputs) > 1 and work.uses(item.outputs[1]):
        return False
    trains = item.inputs[2] if len(item.inputs) > 2 else ""
    if work.opset < 7 and not item.attribute("is_test", 0):
        return False
    numbers = work.constant(trains) if trains else None
    if trains and (numbers is None or bool(numbers.any())):
        return False
    return work.replace(item.output, item.inputs[0])


@rule("ReduceProd", "ReduceMax", "ReduceMin")
@rule("Reshape", "Expand", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Tile")
def of_the_same_type(work: Work, item: Item) -> bool:
    """What gives an equal tensor wherever it gives one of the same shape and type: reductions do so
    along axes of one element, which stay."""
    alike = work.is_alike(item.output, item.inputs[0])
    return alike and work.replace(item.output, item.inputs[0])


@rule("Slice")
def whole_slice(work: Work, item: Item) -> bool:
    """A slice that is all."""
    steps = work.known(item.inputs[4]) if len(item.inputs) > 4 else None
    forward = len(item.inputs) < 5 or (steps is not None and all(s == 1 for s in steps.flat))
    alike = forward and work.is_alike(item.output, item.inputs[0])
    return alike and work.replace(item.output, item.inputs[0])


@rule("Transpose")
def unmoved(work: Work, item: Item) -> bool:
    """A transposition that moves no axis."""
    perm = item.attribute("perm")
    if perm is None or list(perm) != list(range(len(perm))):
        return False
    return work.replace(item.output, item.inputs[0])


@rule("Pad")
def no_padding(work: Work, item: Item) -> bool:
    """A padding by nothing."""
    pads = work.constant(item.inputs[1]) if len(item.inputs) > 1 else item.attribute("pads")
    if pads is None or any(p != 0 for p in pads):
        return False
    return work.replace(item.output, item.inputs[0])


@rule("Concat", "Sum", "Max", "Min", "Mean", "Split")
def of_one(work: Work, item: Item) -> bool:
    """One tensor joined with no other, or split into one."""
    alone = len(item.proto.output) == 1 if item.op == "Split" else len(item.inputs) == 1
    return alone and work.replace(item.output, item.inputs[0])


@rule("Mul", "Div", "Pow", "And", "Or")
def neutral(work: Work, item: Item) -> bool:
    """A product with 1 and the like."""
    return _without(work, item, item.op != "Or")


@rule("Add", "Sub", rounds=True)
def without_zero(work: Work, item: Item) -> bool:
    """A sum with 0, which makes 0 of −0."""
    return _without(work, item, False)


def _without(work: Work, item: Item, wanted: bool) -> bool:
    """Passes on the other input where one is that number everywhere."""
    for kept, other in ((0, 1), (1, 0)):
        if item.op in ("Div", "Sub", "Pow") and other == 0:
            continue
        shape = work.shape(item.inputs[other])
        if shape is None or any(not isinstance(d, int) for d in shape):
            continue
        numbers = work.constant(item.inputs[other])
        if numbers is None or not bool((numbers == wanted).all()):
            continue
        if work.is_alike(item.output, item.inputs[kept]):
            return work.replace(item.output, item.inputs[kept])
    return False


@rule("Where")
def one_branch(work: Work, item: Item) -> bool:
    """A choice that is the same everywhere."""
    condition = work.constant(item.inputs[0])
    if condition is None or not condition.size:
        return False
    for branch, holds in ((1, condition.all()), (2, not condition.any())):
        if holds and work.is_alike(item.output, item.inputs[branch]):
            return work.replace(item.output, item.inputs[branch])
    return False


@rule("Where")
def choice_by_the_opposite(work: Work, item: Item) -> bool:
    """A choice where something does not hold: the other way round where it does."""
    opposite = work.maker(item.inputs[0], "Not")
    if opposite is None:
        return False
    work.set_inputs(item, [opposite.inputs[0], item.inputs[2], item.inputs[1]])
    return True


@rule("ReduceSum", "ReduceMean", rounds=True)
def sum_of_one(work: Work, item: Item) -> bool:
    """The same of sums, which make 0 of −0."""
    return of_the_same_type(work, item)


@rule("Cast")
def cast_of_a_cast(work: Work, item: Item) -> bool:
    """Two casts as one, where the first one loses nothing."""
    inner = work.only_maker(item.inputs[0], "Cast")
    if inner is None:
        return False
    first, second = work.dtype(inner.inputs[0]), work.dtype(inner.output)
    # Of bool, integers and numbers whose type holds all of the one before.
    if first is None or second is None or first.kind not in "biuf" or second.kind not in "iuf":
        return False
    if not _holds_all(first, second):
        return False
    work.set_inputs(item, [inner.inputs[0]])
    return True


def _holds_all(narrow: Any, wide: Any) -> bool:
    """Whether one element type has every number of another; numpy counts float64 as one that has
    those of 64 bits."""
    lossy = narrow.kind in "iu" and narrow.itemsize == 8 and wide.kind == "f"
    return bool(np.can_cast(narrow, wide, "safe")) and not lossy


@rule("Relu", "Abs", "Ceil", "Floor", "Round", "Sign")
def twice(work: Work, item: Item) -> bool:
    """A function that gives its own results again."""
    return work.maker(item.inputs[0], item.op) is not None and work.replace(
        item.output, item.inputs[0]
    )
