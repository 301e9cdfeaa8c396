"""Loops to test with, their gradients against differences, and all backends against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.autodiff.grad import grad
from nncompile.elementwise import cos, sigmoid, tanh
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f64
from nncompile.ops import scan, split
from nncompile.ops.loops.scan import Scan
from nncompile.passes import optimize
from tests.backends import script_of, session, valid_model
from tests.differences import check_difference
from tests.leaves import leaf
from tests.tolerances import assert_close

Feeds = dict[str, np.ndarray]


def scans(graph: Graph) -> list[Value]:
    return [v for v in graph.nodes if isinstance(v.op, Scan)]


def body_nodes(v: Value) -> list[Value]:
    """The nodes of a body that take something."""
    assert isinstance(v.op, Scan)
    return [x for x in v.op.body.graph.nodes if x.args]


def feeds_of(graph: Graph, sizes: dict[str, int], seed: int = 0) -> Feeds:
    rng = np.random.default_rng(seed)
    found = {}
    for name, v in graph.leaves.items():
        shape = tuple(d if isinstance(d, int) else sizes[str(d)] for d in v.shape)
        if v.dtype.is_float:
            found[name] = rng.uniform(-1, 1, shape).astype(v.dtype.numpy)
        else:
            found[name] = rng.integers(0, 5, shape).astype(v.dtype.numpy)
    return found


def check_gradients(y: Value, leaves: list[Value], feeds: Feeds) -> None:
    """The gradient of the scalar y at each leaf is its central difference."""
    rng = np.random.default_rng(1)
    for x, gradient in zip(leaves, grad(y, leaves), strict=True):
        check_difference([y], [gradient], [np.ones(())], [x], feeds, rng)


def check_everywhere(graph: Graph, *data: Feeds) -> None:
    """numpy, onnxruntime and TorchScript agree, before and after the passes, on all data."""
    for form in (graph, optimize(graph)):
        run, script = session(valid_model(form)), script_of(form)
        for feeds in data:
            expected = evaluate(graph, feeds, np.float64)
            for name, x in evaluate(form, feeds, np.float64).items():
                assert_close(x, expected[name], "float64", name)
            for results in (run(feeds, expected), script(feeds)):
                for name, y in graph.outputs.items():
                    assert_close(results[name], expected[name], y.dtype.name, name)


class Memory:
    """A cell with two carries, of which the second is gated, and a weight that is used outside,
    too."""

    def __init__(self, dtype: DType = f64) -> None:
        self.h, self.c = leaf("h", dtype["b", 3]), leaf("c", dtype["b", 3])
        self.x = leaf("x", dtype["time", "b", 2])
        self.w, self.u = leaf("w", dtype[3, 12]), leaf("u", dtype[2, 12])
        self.inputs = [self.h, self.c, self.x, self.w, self.u]

    def __call__(self, **options: Any) -> tuple[Value, Value, Value]:
        def cell(h: Value, c: Value, x: Value) -> tuple[Value, ...]:
            i, f, g, o = split(x @ self.u + h @ self.w, 4, -1)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            return h, c, h

        return scan(cell, (self.h, self.c), self.x, **options)  # type: ignore[no-any-return]

    def loss(self) -> Value:
        h, c, hs = self()
        return (hs * cos(hs)).sum() + (c * c).sum() * self.w.sum() + h.mean()


def sum_of_squares(values: list[Value]) -> Value:
    total: Value = (values[0] * values[0]).sum()
    for v in values[1:]:
        total = total + (v * v).sum()
    return total
