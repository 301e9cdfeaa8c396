"""A gradient half in stages, each of which gives the gradients of some layers, so that those of the
last layers are reduced while the others are computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from nncompile.ir.basic import Constant
from nncompile.ir.graph import Graph, Input, Item, toposort
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace as replaced
from nncompile.ir.types import TupleType
from nncompile.program.step import Step

HANDED = "handed."
"""How the names of what one stage hands to later ones begin."""


def buckets_of(step: Step, most: int) -> list[list[str]]:
    """The gradients in the order in which they are made, in buckets of about so many bytes."""
    buckets: list[list[str]] = [[]]
    size = 0
    for name in step.reductions.gradients:
        if size >= most:
            buckets.append([])
            size = 0
        value = step.gradient.outputs[name]
        size += math.prod(map(int, value.shape)) * value.dtype.numpy.itemsize
        buckets[-1].append(name)
    return buckets


def gradient_stages(step: Step, buckets: Sequence[Sequence[str]]) -> list[Graph]:
    """The graphs of `gradient_of_rows`, one after the other: each gives the gradients of a bucket,
    the first all else, too. What one computes and a later one needs is handed over; so is nothing
    that is an input or a constant."""
    graph = step.gradient_of_rows
    number_of = {name: i for i, names in enumerate(buckets) for name in names}
    ends = {name: number_of.get(name, 0) for name in graph.outputs}
    stage_of: dict[Value, int] = {}
    for number in range(len(buckets)):
        for v in toposort([v for name, v in graph.outputs.items() if ends[name] == number]):
            stage_of.setdefault(v, number)
    for v in toposort(graph.outputs.values()):
        if isinstance(v.op, Item):  # a result of several is handed over, not all of them
            stage_of[v] = stage_of[v.args[0]]
    handed: dict[Value, int] = {}
    for v in stage_of:
        for a in v.args:
            is_made = not isinstance(a.op, Input | Constant)
            if is_made and stage_of[a] < stage_of[v] and not isinstance(a.type, TupleType):
                handed.setdefault(a, len(handed))
    leaves = {v: apply(Input(f"{HANDED}{i}", v.type)) for v, i in handed.items()}
    return [_stage(graph, i, stage_of, ends, leaves) for i in range(len(buckets))]


def _stage(
    graph: Graph,
    number: int,
    stage_of: Mapping[Value, int],
    ends: Mapping[str, int],
    leaves: Mapping[Value, Value],
) -> Graph:
    outputs = {n: v for n, v in graph.outputs.items() if ends[n] == number}
    own = [v for v in leaves if stage_of[v] == number]
    earlier = {v: leaf for v, leaf in leaves.items() if stage_of[v] < number}
    values = replaced(list(outputs.values()), earlier)
    made = dict(zip(outputs, values, strict=True))
    names = {leaf: f"{HANDED}{i}" for i, leaf in enumerate(leaves)}
    made |= dict(zip((names[v] for v in own), replaced(own, earlier), strict=True))
    return replace(graph, name=f"{graph.name}_{number}", outputs=made, inputs=())
