"""The head of a loss and what its gradient begins with, made simpler before all that follows.

Everything behind a change is made anew. A gradient begins at the loss, where passes find most to
do, one after the other: with the whole graph behind it, each of these changes would make the whole
gradient anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from nncompile.ir.graph import Graph, toposort
from nncompile.ir.op import Value
from nncompile.passes.rewriter import Change, Rule, replaced

LEVELS = 16  # behind the losses: a cross-entropy's gradient, and some of the layer before it
SMALL = 200  # nodes of a graph whose parts would take as long as the whole


def losses_first(
    graph: Graph,
    losses: Collection[str],
    change: Callable[[Graph], Graph],
    others: Collection[Rule | Change] = (),
) -> Graph:
    """The graph after `change` of the part that makes the outputs `losses` and begins their
    gradients, and after the `others` of what is made anew behind it. Itself where there is no such
    part, or it is most of the graph."""
    part = _part(graph, losses)
    if part is None:
        return graph
    after = change(part)
    pairs = zip(part.outputs.values(), after.outputs.values(), strict=True)
    new = {old: value for old, value in pairs if old is not value}
    return replaced(graph, new, others) if new else graph


def _part(graph: Graph, losses: Collection[str]) -> Graph | None:
    """The nodes up to some levels behind the losses. What is needed elsewhere is an output, as
    often as it is needed: changes ask for that."""
    found = [graph.outputs[name] for name in losses if name in graph.outputs]
    if not found or len(graph.nodes) < SMALL:
        return None
    part = set(toposort(_close(graph, found)))
    if len(part) > 0.8 * len(graph.nodes):
        return None
    needed = [a for v in graph.nodes if v not in part for a in v.args if a in part]
    needed += [v for v in graph.outputs.values() if v in part]
    return graph.with_outputs({str(i): v for i, v in enumerate(needed)})


def _close(graph: Graph, losses: Collection[Value]) -> Collection[Value]:
    """What the losses are computed of, and what follows from it within some levels."""
    close = dict.fromkeys(toposort(losses), 0)
    others: dict[Value, int] = {}  # such as the state of an optimizer
    for v in graph.nodes:
        if v not in close:
            level = 1 + max((close.get(a, others.get(a, LEVELS)) for a in v.args), default=0)
            if level <= LEVELS:
                (others if close.keys().isdisjoint(v.args) else close)[v] = level
    return close
