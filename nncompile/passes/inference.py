"""From training to use: ops with a meaning of their own in training get the one of inference."""

from __future__ import annotations

from nncompile.graph import Graph, Value
from nncompile.ops.random import Dropout
from nncompile.rewrite import Change, on, rewrite


@on(Dropout)
def without_dropout(value: Value) -> Value | None:
    """Dropout is the identity in inference."""
    return value.args[0] if isinstance(value.op, Dropout) else None


CHANGES: list[Change] = [without_dropout]


def inference(graph: Graph, scope: str | None = None) -> Graph:
    """The graph as it is computed after training: dropout is the identity.

    `scope` limits it to the layers of that path and those within them (`"backbone"` holds
    `backbone/a`, too), so that a frozen part can be used as trained while the rest learns.
    """

    def within(change: Change) -> Change:
        @on(*change.roots)
        def limited(value: Value) -> Value | None:
            return change(value) if scope is None or _is_within(graph, value, scope) else None

        return limited

    return rewrite(graph, [within(change) for change in CHANGES])


def _is_within(graph: Graph, value: Value, scope: str) -> bool:
    wanted = scope.replace(".", "/").split("/")
    for site in graph.trace.sites(value):
        path = site.scope.split("/")
        if any(path[i : i + len(wanted)] == wanted for i in range(len(path))):
            return True
    return False
