"""What ONNX has one operator for, and a file spells out."""

from __future__ import annotations

import math

import numpy as np

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.work import Item, Work

_CLOSE = 1e-4  # relative: constants of files are rounded
_LAYER_NORMALIZATION, _GELU = 17, 20  # the opsets that they are operators from


def _number(work: Work, name: str) -> float | None:
    """The only number of a constant."""
    numbers = work.constant(name)
    is_one = numbers is not None and numbers.size == 1 and numbers.dtype.kind in "fiu"
    return float(numbers.item()) if numbers is not None and is_one else None


def _is(number: float | None, expected: float) -> bool:
    return number is not None and math.isclose(number, expected, rel_tol=_CLOSE)


def _factors(work: Work, name: str, depth: int = 4) -> tuple[float, list[str]]:
    """A product as its numbers, multiplied, and its other factors. What others take, too, is no
    product of its own."""
    number = _number(work, name)
    if number is not None:
        return number, []
    item = work.only_maker(name, "Mul", "Div", "Pow") if depth else None
    found = None if item is None else _factors_of(work, item, depth - 1)
    return (1.0, [name]) if found is None else found


def _factors_of(work: Work, item: Item, depth: int = 4) -> tuple[float, list[str]] | None:
    """The same of the node that makes the product."""
    if item.op == "Mul":
        parts = [_factors(work, n, depth) for n in item.inputs]
        return math.prod(n for n, _ in parts), [x for _, names in parts for x in names]
    second = _number(work, item.inputs[1])
    if item.op == "Div" and second:
        number, names = _factors(work, item.inputs[0], depth)
        return number / second, names
    if item.op == "Pow" and second in (2.0, 3.0):
        return 1.0, [item.inputs[0]] * int(second)
    return None


def _one_more_than(work: Work, name: str, op: str) -> str | None:
    """The argument of the function that 1 is added to."""
    item = work.only_maker(name, "Add")
    if item is None:
        return None
    for other, function in (item.inputs, reversed(item.inputs)):
        inner = work.only_maker(function, op)
        if inner is not None and _is(_number(work, other), 1.0):
            return inner.inputs[0]
    return None


@rule("Mul", "Div", rounds=True)
def gelu(work: Work, item: Item) -> bool:
    """x·(1 + erf(x/√2))/2, and its approximation by tanh."""
    found = _factors_of(work, item) if work.opset >= _GELU else None
    if found is None or len(found[1]) != 2 or not _is(found[0], 0.5):
        return False
    names = found[1]
    for x, function in (names, reversed(names)):
        inner = _one_more_than(work, function, "Erf")
        if inner is not None and _is_multiple(work, inner, x, 1 / math.sqrt(2)):
            item.become("Gelu")
            work.set_inputs(item, [x])
            return True
        inner = _one_more_than(work, function, "Tanh")
        if inner is not None and _is_cubic(work, inner, x):
            item.become("Gelu", approximate="tanh")
            work.set_inputs(item, [x])
            return True
    return False


def _is_multiple(work: Work, name: str, x: str, number: float) -> bool:
    found, names = _factors(work, name)
    return names == [x] and _is(found, number)


def _is_cubic(work: Work, name: str, x: str) -> bool:
    """Whether it is √(2/π)·(x + 0.044715·x³)."""
    number, names = _factors(work, name)
    item = work.only_maker(names[0], "Add") if len(names) == 1 else None
    if item is None or not _is(number, math.sqrt(2 / math.pi)) or x not in item.inputs:
        return False
    (other,) = [n for n in item.inputs if n != x] or [""]
    cube, factors = _factors(work, other)
    return factors == [x, x, x] and _is(cube, 0.044715)


@rule("Mul", rounds=True)
def layer_normalization(work: Work, item: Item) -> bool:
    """(x − mean)/√(variance + ε)·weight."""
    if work.opset < _LAYER_NORMALIZATION:
        return False
    for name, weight in (item.inputs, reversed(item.inputs)):
        divided = work.only_maker(name, "Div")
        numbers = work.constant(weight)
        if divided is None or numbers is None:
            continue
        found = _normalized(work, divided)
        if found is None:
            continue
        x, axis, epsilon = found
        shape = work.shape(x)
        if shape is None or list(numbers.shape) != list(shape[axis:]):
            continue
        item.become("LayerNormalization", axis=axis, epsilon=epsilon)
        work.set_inputs(item, [x, weight])
        return True
    return False


def _normalized(work: Work, divided: Item) -> tuple[str, int, float] | None:
    """What is normalized, from which axis on, and ε."""
    centred = work.maker(divided.inputs[0], "Sub")
    root = work.only_maker(divided.inputs[1], "Sqrt")
    added = root and work.only_maker(root.inputs[0], "Add")
    if centred is None or added is None or work.uses(centred.output) != 2:
        return None
    for name, other in (added.inputs, reversed(added.inputs)):
        epsilon, variance = _number(work, other), work.only_maker(name, "ReduceMean")
        if epsilon is None or variance is None:
            continue
        mean = work.only_maker(centred.inputs[1], "ReduceMean")
        square = work.only_maker(variance.inputs[0], "Pow", "Mul")
        x = centred.inputs[0]
        if mean is None or square is None or mean.inputs[0] != x:
            continue
        second = centred.output if square.op == "Mul" else square.inputs[1]
        is_square = square.inputs[1] == second and square.inputs[0] == centred.output
        if square.op == "Pow":
            is_square = is_square and _is(_number(work, second), 2.0)
        axes = _last_axes(work, mean), _last_axes(work, variance)
        if is_square and axes[0] is not None and axes[0] == axes[1]:
            return x, axes[0], epsilon
    return None


def _last_axes(work: Work, item: Item) -> int | None:
    """The negative axis from which on all are reduced."""
    shape = work.shape(item.inputs[0])
    axes = work.constant(item.inputs[1]) if len(item.inputs) > 1 else item.attribute("axes")
    if shape is None or axes is None or not item.attribute("keepdims", 1):
        return None
    last = sorted(int(a) % len(shape) - len(shape) for a in np.asarray(axes).reshape(-1))
    return last[0] if last and last == list(range(last[0], 0)) else None


@rule("Add", rounds=True)
def addend_of_a_normalization(work: Work, item: Item) -> bool:
    """The addend of a layer normalization that has none."""
    for name, other in (item.inputs, reversed(item.inputs)):
        inner = work.only_maker(name, "LayerNormalization")
        numbers = work.constant(other)
        if inner is None or numbers is None or len(inner.inputs) > 2 or len(inner.outputs) > 1:
            continue
        if list(numbers.shape) == list(work.shape(inner.inputs[1]) or ()):
            work.set_inputs(inner, [*inner.inputs, other])
            work.take_output(inner, item)
            return True
    return False


@rule("Mul", rounds=True)
def factors_in_a_row(work: Work, item: Item) -> bool:
    """Two constant factors as one."""
    for name, other in (item.inputs, reversed(item.inputs)):
        inner, second = work.only_maker(name, "Mul"), work.constant(other)
        if inner is None or second is None or second.dtype.kind != "f":
            continue
        for x, weight in (inner.inputs, reversed(inner.inputs)):
            first = work.constant(weight)
            if first is None or first.size > 1 or not work.is_alike(name, x):
                continue
            both = np.asarray(np.float64(first.reshape(-1)[0]) * second.astype(np.float64))
            work.set_inputs(item, [x, work.store(both.astype(second.dtype), f"{other}_scaled")])
            return True
    return False
