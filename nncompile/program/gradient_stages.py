"""A gradient half in stages, each of which gives the gradients of some layers, so that those of the
last layers are reduced while the others are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nncompile.ir.graph import Graph, Item, toposort
from nncompile.ir.op import Value
from nncompile.program.stages import cut
from nncompile.program.step import Step


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
    the first all else, too. What one computes and a later one needs is handed over."""
    graph = step.gradient_of_rows
    number_of = {name: i for i, names in enumerate(buckets) for name in names}
    wanted: list[dict[str, Value]] = [{} for _ in buckets]
    for name, value in graph.outputs.items():
        wanted[number_of.get(name, 0)][name] = value
    stage_of: dict[Value, int] = {}
    for number, outputs in enumerate(wanted):
        for v in toposort(outputs.values()):
            stage_of.setdefault(v, number)
    order = list(stage_of)
    for v in toposort(graph.outputs.values()):
        if isinstance(v.op, Item):  # a result of several is handed over, not all of them
            stage_of[v] = stage_of[v.args[0]]
    return cut(graph, wanted, stage_of, order)
