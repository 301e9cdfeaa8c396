"""The head of a loss and what its gradient begins with, made simpler before all that follows.

Everything behind a change is made anew. A gradient begins at the loss, where passes find most to
do, one after the other: with the whole graph behind it, each of these changes would make the whole
gradient anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from nncompile.ir.graph import Graph, toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import replace

LEVELS = 16  # behind the losses: a cross-entropy's gradient, and some of the layer before it
SMALL = 200  # nodes of a graph whose parts would take as long as the whole


def losses_first(graph: Graph, losses: Collection[str], change: Callable[[Graph], Graph]) -> Graph:
    """The graph after `change` of the part that makes the outputs `losses` and begins their
    gradients. Itself where there is no such part, or it is most of the graph."""
    part = _part(graph, losses)
    if part is None:
        return graph
    after = change(part)
    pairs = zip(part.outputs.values(), after.outputs.values(), strict=True)
    new = {old: value for old, value in pairs if old is not value}
    if not new:
        return graph
    return graph.mapped(lambda outputs: replace(outputs, new, order=graph.nodes))


def _part(graph: Graph, losses: Collection[str]) -> Graph | None:
    """The nodes up to some levels behind the losses. What is needed elsewhere is an output, as
    often as it is needed: changes ask for that."""
    found = [graph.outputs[name] for name in losses if name in graph.outputs]
    if not found or len(graph.nodes) < SMALL:
        return None
    levels = _levels(graph, found)
    if len(levels) > 0.8 * len(graph.nodes):
        return None
    needed = [a for v in graph.nodes if v not in levels for a in v.args if a in levels]
    needed += [v for v in graph.outputs.values() if v in levels]
    return graph.with_outputs({str(i): v for i, v in enumerate(needed)})


def _levels(graph: Graph, losses: Collection[Value]) -> Mapping[Value, int]:
    """How far behind the losses and what they are computed of each of the closest nodes is."""
    levels = dict.fromkeys(toposort(losses), 0)
    for v in graph.nodes:
        if v not in levels:
            level = 1 + max((levels.get(a, LEVELS) for a in v.args), default=0)
            if level <= LEVELS:
                levels[v] = level
    return levels
