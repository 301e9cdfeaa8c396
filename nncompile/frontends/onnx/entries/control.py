"""Conditions and loops.

A condition that is known takes its branch; one that depends on data chooses between the results of
both. A loop whose end is known is unrolled, or a scan where it runs as often as a size says and its
condition is seen to hold until then."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise import where
from nncompile.frontends.onnx.checking import check_body
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import dim, same_shape
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Type, i64
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.scan import scan
from nncompile.ops.shape.joining import stack
from nncompile.ops.shape.reshape import moveaxis, reshape
from nncompile.ops.shape.slicing import flip

_UNROLLED = 64  # iterations at most
# Of branches of our own files, by their names (else, then), that which computes what both do: the
# same sums, of few terms and of many; a loop, and what it gives where it has no iteration.
_OURS = {("many", "few"): "then_branch", ("loop", "empty"): "else_branch"}
_BACK = sp.Symbol("iterations_back", integer=True, nonnegative=True)


@imports("If", raw=True)
def _if(n: Node, condition: Tensor) -> Any:
    importer, environment = n.context
    branches = [n["else_branch"], n["then_branch"]]
    for branch in branches:
        check_body(branch, 0, len(n.outputs))
    known = condition.known
    if known is not None and known.dtype != object:
        chosen = branches[bool(n.number(0))]
        return tuple(importer.graph(chosen, environment, {}, opsets=n.opsets))
    ours = _OURS.get(tuple(branch.name for branch in branches)) if importer.is_ours else None
    if ours is not None:
        return tuple(importer.graph(n[ours], environment, {}, opsets=n.opsets))
    results = [importer.graph(branch, environment, {}, opsets=n.opsets) for branch in branches]
    return tuple(_chosen(condition, then, other) for other, then in zip(*results, strict=True))


def _chosen(condition: Tensor, then: Any, other: Any) -> Value:
    needs = condition.name or None
    if not (isinstance(then, Tensor) and isinstance(other, Tensor)):
        raise Refused("the condition depends on data, and a branch gives a sequence", needs)
    if then.type.dtype is not other.type.dtype or (
        same_shape(then.type.shape, other.type.shape) is not True
    ):
        raise Refused(
            f"the condition depends on data, and the branches give {then.type} and {other.type}",
            needs,
        )
    chosen: Value = where(reshape(condition.value, ()), then.value, other.value)
    return chosen


@imports("Loop", raw=True)
def _loop(n: Node, trips: Tensor | None, condition: Tensor | None, *initial: Any) -> Any:
    check_body(n["body"], 2 + len(initial), 1 + len(n.outputs), 1 + len(initial))
    start = True if condition is None else _truth(condition)
    count = None if trips is None else _count(trips)
    if start is False:
        count = 0
    if (isinstance(count, int) and count <= _UNROLLED) or (count is None and start):
        return _unrolled(n, count, condition is not None, list(initial))
    if trips is None or count is None or not all(isinstance(x, Tensor) for x in initial):
        decides = condition if trips is None else trips
        needs = None if decides is None else decides.name
        raise Refused("the number of iterations depends on data", needs)
    return _scanned(n, count, condition, list(initial))


def _truth(condition: Any) -> bool | None:
    if condition.known is None or condition.known.dtype == object:
        return None
    return bool(condition.known.reshape(-1)[0])


def _count(trips: Tensor) -> Any:
    if trips.known is None:
        return None
    number = trips.known.reshape(-1)[0]
    return dim(number) if isinstance(number, sp.Expr) else max(int(number), 0)


def _fed(body: Any, *tensors: Any) -> dict[str, Any]:
    return {formal.name: x for formal, x in zip(body.input, tensors, strict=False)}


def _unrolled(n: Node, count: int | None, conditional: bool, carried: list[Any]) -> Any:
    importer, environment = n.context
    body, stacks = n["body"], []
    going = Tensor.of_numbers(np.asarray(True))
    i = 0
    while count is None or i < count:
        if i >= _UNROLLED:
            raise Refused(f"a loop of more than {_UNROLLED} iterations whose end depends on data")
        number = Tensor.of_numbers(np.asarray(i, np.int64))
        fed = _fed(body, number, going, *carried)
        following, *results = importer.graph(body, environment, fed, opsets=n.opsets)
        carried, rows = results[: len(carried)], results[len(carried) :]
        stacks.append(rows)
        i += 1
        # Without a condition of its own, a loop goes by its count alone.
        if conditional or count is None:
            more = _truth(following)
            if more is None:
                raise Refused("the condition of the loop depends on data")
            if not more:
                break
    if not stacks and len(body.output) > len(carried) + 1:
        return (*carried, *_empty(n, carried))
    return (*carried, *(stack([row.value for row in rows]) for rows in zip(*stacks, strict=True)))


def _empty(n: Node, carried: list[Any]) -> list[Value]:
    """The stacked results of no iteration: their types are those of one."""
    importer, environment = n.context
    fed = _fed(n["body"], Tensor.of_numbers(np.asarray(0, np.int64)),
               Tensor.of_numbers(np.asarray(True)), *carried)  # fmt: skip
    _, *results = importer.graph(n["body"], environment, fed, opsets=n.opsets)
    return [full((0, *x.type.shape), 0, x.type.dtype) for x in results[len(carried) :]]


def _scanned(n: Node, count: Any, condition: Any, initial: list[Any]) -> Any:
    importer, environment = n.context
    body = n["body"]
    same, holds = _probed(n, count, initial)
    if condition is not None and not holds:
        raise Refused("the condition of the loop is not known to hold until the last iteration")
    moving = [i for i in range(len(initial)) if i not in same]

    def step(number: Value, *carries: Value) -> tuple[Value, ...]:
        tensors = list(initial)
        for i, carry in zip(moving, carries, strict=True):
            tensors[i] = Tensor.of(carry)
        fed = _fed(body, Tensor.of(number), Tensor.of_numbers(np.asarray(True)), *tensors)
        _, *results = importer.graph(body, environment, fed, opsets=n.opsets)
        following = [results[i].value for i in moving]
        return (*following, *(x.value for x in results[len(initial) :]))

    firsts = [initial[i].value for i in moving]
    numbers = iota(count, i64)
    outputs = scan(lambda *xs: step(xs[-1], *xs[:-1]), tuple(firsts), (numbers,))
    results: list[Any] = list(initial)
    for i, value in zip(moving, outputs, strict=False):
        results[i] = value
    if condition is not None and not _begins(condition, count):
        if len(outputs) > len(moving):
            raise Refused("whether the loop runs at all depends on data, and it stacks results")
        flag = reshape(condition.value, ())
        for i in moving:
            results[i] = where(flag, results[i], initial[i].value)
    return (*results, *outputs[len(moving) :])


def _probed(n: Node, count: Any, initial: list[Any]) -> tuple[set[int], bool]:
    """Which carried tensors stay as they are, and whether the condition holds after every iteration
    but the last: one is imported as the last but one or any before it, with those tensors as sizes
    that are seen to count iterations."""
    importer, environment = n.context
    body = n["body"]
    number = dim(count - 2 - _BACK)
    # What each carried tensor is taken for, until an iteration shows that it is not.
    kinds = {i: "counter" if _counts(x) else "same" for i, x in enumerate(initial)}
    while True:
        formals = [_formal(kinds[i], x, i, number) for i, x in enumerate(initial)]
        fed = _fed(body, Tensor.of_sizes(number, i64, ()),
                   Tensor.of_numbers(np.asarray(True)), *formals)  # fmt: skip
        refusals = len(importer.refusals)
        updates = dict(importer.updates)
        following, *results = importer.graph(body, environment, fed, opsets=n.opsets)
        importer.updates = updates
        if len(importer.refusals) > refusals:
            raise Refused("a node within the loop cannot be imported")
        wrong = [i for i in kinds if not _confirms(kinds[i], results[i], initial[i], number)]
        if not wrong:
            same = {i for i, kind in kinds.items() if kind == "same"}
            return same, _truth(following) is True
        kinds |= {i: "same" if kinds[i] == "counter" else "free" for i in wrong}


def _counts(x: Tensor) -> bool:
    return x.known is not None and x.known.size == 1 and x.type.dtype.is_integer


def _begins(condition: Tensor, count: Any) -> bool:
    """Whether a condition holds at first, if there is any iteration."""
    if condition.known is None:
        return False
    if condition.known.dtype != object:
        return bool(condition.known.reshape(-1)[0])
    some = {s: s + 1 for s in sp.sympify(count).free_symbols}
    return bool(condition.known.reshape(-1)[0].subs(some) == sp.true)


def _formal(kind: str, x: Tensor, i: int, number: Any) -> Tensor:
    """A carried tensor as an iteration gets it."""
    if kind == "same":
        return x
    if kind == "free":
        return Tensor(x.type, None, functools.partial(_leaf, f"carry {i}", x.type))
    assert x.known is not None
    count = dim(x.known.reshape(-1)[0] + number)
    return Tensor.of_sizes(np.full(x.known.shape, count, object), x.type.dtype, x.known.shape)


def _confirms(kind: str, result: Any, x: Tensor, number: Any) -> bool:
    """Whether an iteration leaves of a carried tensor what it was taken for."""
    if kind != "counter":
        return kind == "free" or result is x
    if not isinstance(result, Tensor) or result.known is None or result.known.size != 1:
        return False
    assert x.known is not None
    expected = x.known.reshape(-1)[0] + number + 1
    return bool(sp.expand(sp.sympify(result.known.reshape(-1)[0]) - expected) == 0)


def _leaf(name: str, type_: Type) -> Value:
    return Input(name, type_)()


@imports("Scan", raw=True)
def _scan(n: Node, *inputs: Any) -> Any:
    if n.version < 9:
        raise Refused("a scan over batches, as before opset 9")
    importer, environment = n.context
    body, count = n["body"], n["num_scan_inputs"]
    if not 1 <= count <= len(inputs):
        raise Refused(f"{count} of its {len(inputs)} inputs are scanned")
    states = len(inputs) - count
    check_body(body, len(inputs), len(n.outputs), states)
    axes = n["scan_input_axes"] or [0] * count
    backward = n["scan_input_directions"] or [0] * count
    sequences: list[Value] = []
    for tensor, axis, reverse in zip(inputs[states:], axes, backward, strict=True):
        x = moveaxis(tensor.value, axis, 0)
        sequences.append(flip(x, 0) if reverse else x)

    def step(*values: Value) -> tuple[Value, ...]:
        fed = _fed(body, *(Tensor.of(v) for v in values))
        return tuple(x.value for x in importer.graph(body, environment, fed, opsets=n.opsets))

    outputs = scan(step, tuple(x.value for x in inputs[:states]), tuple(sequences))
    stacked = list(outputs[states:])
    output_axes = n["scan_output_axes"] or [0] * len(stacked)
    directions = n["scan_output_directions"] or [0] * len(stacked)
    for i, (axis, reverse) in enumerate(zip(output_axes, directions, strict=True)):
        y = flip(stacked[i], 0) if reverse else stacked[i]
        stacked[i] = moveaxis(y, 0, axis)
    return (*outputs[:states], *stacked)
