"""Leaves, data and checks for the tests of passes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.ops import (
    broadcast_to,
)
from nncompile.passes import PASSES, same_outputs
from tests.leaves import leaf
from tests.tolerances import assert_close

N = 4  # what the size `n` is in the data


A, B, C = leaf("a", f32["n", 3]), leaf("b", f32["n", 3]), leaf("c", f32[3])
W, V = leaf("w", f32[3, 2]), leaf("v", f32[3, 2])
G = leaf("g", f32["n", 2])
S, COLUMN = leaf("s", f32[()]), leaf("column", f32[3, 1])
LABEL = leaf("label", i64["n", 1])


def random_feeds(values: Iterable[Value], seed: int = 0) -> dict[str, np.ndarray]:
    """Data for the leaves: positive reals, and integers that are labels of two classes."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for v in toposort(values):
        if isinstance(v.op, Input):
            sizes = [d if isinstance(d, int) else N for d in v.shape]
            reals, labels = rng.uniform(0.2, 1.5, sizes), rng.integers(0, 2, sizes)
            feeds[v.op.name] = (reals if v.dtype.is_float else labels).astype(v.dtype.numpy)
    return feeds


def graph_of(*values: Value) -> Graph:
    """The values, and one that says how large `n` is."""
    return Graph("test", {f"y{i}": v for i, v in enumerate((*values, A))})


def after(name: str, *values: Value) -> tuple[Value, ...]:
    """The values after one pass, which is checked on the way: types, numbers, idempotence."""
    graph = graph_of(*values)
    done = PASSES[name](graph)
    feeds = random_feeds(graph.outputs.values())
    before, now = (evaluate(g, feeds, np.float64) for g in (graph, done))
    for output, value in graph.outputs.items():
        assert done.outputs[output].type == value.type
        assert_close(now[output], before[output], before[output].dtype.name, output)
    again = PASSES[name](done)
    assert same_outputs(again, done)
    return tuple(done.outputs.values())


def expanded(x: Value, *shape: object) -> Value:
    return broadcast_to(x, shape)
