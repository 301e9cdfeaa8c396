"""The softmax cross-entropy of classes and its gradient, as one call of a native kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from nncompile.diagnostics.locations import recording_locations
from nncompile.elementwise.map import Map, body_of
from nncompile.elementwise.sympy_functions import exp, placeholder
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import is_one, same_shape
from nncompile.ir.graph import Graph, toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import f32, i64
from nncompile.ops.loops.outlined import outlined
from nncompile.ops.reduction.softmax import LogSoftmax
from nncompile.ops.shape.gathering import ScatterAdd, TakeAlongAxis

Users = Mapping[Value, Sequence[Value]]


def loss_calls(graph: Graph) -> Graph:
    """The graph with calls of the kernel in place of losses whose gradients it has, too."""
    while (new := _first_call(graph)) is not None:
        graph = graph.mapped(partial(replace, new=new))
    return graph


def _first_call(graph: Graph) -> dict[Value, Value] | None:
    logarithms = [v for v in graph.nodes if isinstance(v.op, LogSoftmax) and v.dtype is f32]
    if not logarithms:
        return None
    users: dict[Value, list[Value]] = {}
    for v in graph.nodes:
        for a in v.args:
            users.setdefault(a, []).append(v)
    outputs = set(graph.outputs.values())
    for v in logarithms:
        with recording_locations(graph.locations), graph.locations.located(v):
            new = None if v in outputs else _call(v, users, outputs)
        if new is not None:
            return new
    return None


def _call(logarithm: Value, users: Users, outputs: set[Value]) -> dict[Value, Value] | None:
    """What stands for the loss of each row and for the gradient, where the logarithm of the softmax
    is for these two alone: log p at the indices, and ±p·weight with addends at the indices."""
    axis = logarithm.rank - 1
    both = users.get(logarithm, ())
    if len(both) != 2 or logarithm.op.attributes["axis"] != axis:
        return None
    picked, power = both if isinstance(both[0].op, TakeAlongAxis) else both[::-1]
    if not isinstance(picked.op, TakeAlongAxis) or not _is(power, exp(placeholder(0))):
        return None
    indices = picked.args[1]
    weighed = _only_user(power, users, outputs)
    if weighed is None or not _is(weighed, placeholder(0) * placeholder(1)):
        return None
    signed = _only_user(weighed, users, outputs)
    is_negative = signed is not None and _is(signed, -placeholder(0))
    gradient = _only_user(signed, users, outputs) if signed is not None and is_negative else signed
    if gradient is None or not isinstance(gradient.op, ScatterAdd) or gradient.op.axis != axis:
        return None
    weight = weighed.args[1] if weighed.args[0] is power else weighed.args[0]
    onto, at, addend = gradient.args
    if isinstance(addend.op, Expand) and not addend.args[0].rank:
        (addend,) = addend.args
    fits = (
        picked.op.axis == axis
        and onto is (signed if is_negative else weighed)
        and at is indices
        and indices.dtype is i64
        and is_one(indices.shape[-1])
        and all(_is_of_rows(x, logarithm) for x in (weight, addend))
    )
    if not fits or logarithm in set(toposort((weight, addend))):
        return None
    arguments = (logarithm.args[0], indices, weight, addend)
    return outlined("CrossEntropy", arguments, (picked, gradient), negative=int(is_negative))


def _only_user(v: Value, users: Users, outputs: set[Value]) -> Value | None:
    found = users.get(v, ())
    return found[0] if len(found) == 1 and v not in outputs else None


def _is(v: Value, body: object) -> bool:
    return isinstance(v.op, Map) and body_of(v) == body


def _is_of_rows(x: Value, like: Value) -> bool:
    """Whether it is a number, or one for each row."""
    return x.dtype is f32 and (not x.rank or same_shape(x.shape, (*like.shape[:-1], 1)) is True)
