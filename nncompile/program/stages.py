"""A graph in stages, each of which is given what earlier ones computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nncompile.ir.basic import Constant
from nncompile.ir.graph import Graph, Input, input_of
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace as replaced
from nncompile.ir.types import TupleType


@dataclass(frozen=True)
class Stage:
    """A graph, after which processes meet where later stages need it: its vectors `sums`, of these
    lengths, are added up over them, and what was computed so far is reduced, where some of it is
    `reduced` for the next one. Other outputs are inputs of later stages, or results."""

    graph: Graph
    sums: Mapping[str, int]
    reduced: tuple[str, ...] = ()


def cut(
    graph: Graph,
    outputs: Sequence[Mapping[str, Value]],
    stage_of: Mapping[Value, int],
    order: Iterable[Value],
) -> list[Graph]:
    """The graphs of stages, which give these outputs. What one computes and a later one needs, of
    all nodes in their `order`, is handed over; so is nothing that is an input or a constant."""
    leaves: dict[Value, Value] = {}
    for v in order:
        for a in v.args:
            is_made = not isinstance(a.op, Input | Constant) and not isinstance(a.type, TupleType)
            if is_made and a not in leaves and stage_of[a] < stage_of[v]:
                leaves[a] = apply(Input(f"handed.{len(leaves)}", a.type))
    return [_stage(graph, i, outs, stage_of, leaves) for i, outs in enumerate(outputs)]


def _stage(
    graph: Graph,
    number: int,
    outputs: Mapping[str, Value],
    stage_of: Mapping[Value, int],
    leaves: Mapping[Value, Value],
) -> Graph:
    """One stage, in which leaves stand for what earlier ones hand over."""
    own = {input_of(leaf).name: v for v, leaf in leaves.items() if stage_of[v] == number}
    earlier = {v: leaf for v, leaf in leaves.items() if stage_of[v] < number}
    every = {**outputs, **own}
    values = replaced(list(every.values()), earlier)
    made = dict(zip(every, values, strict=True))
    return replace(graph, name=f"{graph.name}_{number}", outputs=made, inputs=())
