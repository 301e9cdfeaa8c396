"""From training to use: ops with a meaning of their own in training get the one of inference."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from nncompile.elementwise import sqrt
from nncompile.ir.graph import Graph, Input, Item, items
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.core.modes import Training
from nncompile.ops.normalization.batch import BatchNorm, normalized
from nncompile.ops.shape.joining import sections
from nncompile.passes.rewriter import Change, on, rewrite


@on(Training)
def as_used(value: Value) -> Value | None:
    """What is used after training, in place of what is trained: dropout and augmentation are the
    identity."""
    return value.args[1]


@on(Item)
def by_running_statistics(value: Value) -> Value | None:
    """Batch normalization by the running mean and variance, which stay as they are; one that has
    none is as it is in training."""
    batch = value.args[0]
    if not isinstance(value.op, Item) or not isinstance(batch.op, BatchNorm):
        return None
    if not batch.op.tracked:
        return None
    _, _, _, mean, variance = batch.args
    match value.op.index:
        case 0:
            return normalized(*batch.args, epsilon=batch.op.epsilon)
        case 1 | 3:
            return mean
        case 2:
            return variance
    inverse: Value = 1 / sqrt(variance + batch.op.epsilon)
    return inverse


@by_running_statistics.refuses(f32[4, 2], f32[2])
def _(x: Value, vector: Value) -> Iterator[Any]:
    yield sections(x, [1, 3], 0)[0]
    yield items(BatchNorm(0.1, 1e-5, False)(x, vector, vector, vector, vector))[0]


CHANGES: list[Change] = [as_used, by_running_statistics]


def inference(graph: Graph, scope: str | None = None) -> Graph:
    """The graph as it is computed after training: dropout is the identity, batch normalization is
    by its running statistics.

    `scope` limits it to the layers of that path and those within them (`"backbone"` holds
    `backbone/a`, too), so that a frozen part can be used as trained while the rest learns.
    """

    def within(change: Change) -> Change:
        @on(*change.roots)
        def limited(value: Value) -> Value | None:
            return change(value) if scope is None or _is_within(graph, value, scope) else None

        return limited

    return rewrite(graph, [within(change) for change in CHANGES])


def with_statistics_held(graph: Graph, frozen: Collection[Value]) -> Graph:
    """The graph with batch normalization by its running statistics wherever these and its scale and
    shift are in `frozen`: of a model that was applied in another one, too, whose layers are not its
    own."""

    @on(*by_running_statistics.roots)
    def held(value: Value) -> Value | None:
        batch = value.args[0]
        if not isinstance(batch.op, BatchNorm):
            return None
        _, scale, bias, *statistics = batch.args
        leaves = [v for v in (scale, bias) if isinstance(v.op, Input)] + statistics
        return by_running_statistics(value) if all(v in frozen for v in leaves) else None

    return rewrite(graph, [held])


def _is_within(graph: Graph, value: Value, scope: str) -> bool:
    model, *layer = names = scope.replace(".", "/").split("/")
    for location in graph.locations.all_locations(value):
        path = location.scope.replace(".", "/").split("/")  # of a file, a layer is `blocks.0`
        if any(path[i : i + len(names)] == names for i in range(len(path))):
            return True
        if layer and path[0] != model and path[: len(layer)] == layer:  # of a file itself
            return True
    return False
