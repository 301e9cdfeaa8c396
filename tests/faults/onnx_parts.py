"""Some part of an ONNX model, and numbers and names that are put into it."""

from __future__ import annotations

import math
import random

import onnx
from onnx import TensorProto

Random = random.Random

SIZES = (0, 1, 2, 3, 7, -1, -2, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1.0, 0.5, 1e-40, 3e38, -3e38, math.nan, math.inf, -math.inf)
NAMES = ("", "nothing", "x", "x.1", "a/b", "\x1b[2J", "ü" * 300, "0", "batch", "a\nb", "%s{}")
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "own", "org.nobody", "ai.onnx.training")
TYPES = (*range(28), 99, -1)


def all_graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The graph, and those within its nodes."""
    found, waiting = [], [model.graph]
    while waiting:
        graph = waiting.pop()
        found.append(graph)
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs
    return found


def some_graph(r: Random, model: onnx.ModelProto) -> onnx.GraphProto:
    graphs = all_graphs(model)
    return model.graph if r.random() < 0.6 else r.choice(graphs)


def some_node(r: Random, model: onnx.ModelProto) -> onnx.NodeProto:
    nodes = [n for g in all_graphs(model) for n in g.node]
    nodes += [n for f in model.functions for n in f.node]
    return r.choice(nodes) if nodes else model.graph.node.add(op_type="Relu")


def some_tensor(r: Random, model: onnx.ModelProto) -> TensorProto:
    tensors = [t for g in all_graphs(model) for t in g.initializer]
    tensors += [a.t for g in all_graphs(model) for n in g.node for a in n.attribute
                if a.HasField("t")]  # fmt: skip
    return r.choice(tensors) if tensors else model.graph.initializer.add(name="x", data_type=1)


def names_of(graph: onnx.GraphProto) -> list[str]:
    names = [x for n in graph.node for x in (*n.input, *n.output)]
    names += [x.name for x in (*graph.input, *graph.output, *graph.initializer)]
    return names or ["x"]


def some_name(r: Random, model: onnx.ModelProto) -> str:
    return r.choice(names_of(model.graph)) if r.random() < 0.8 else r.choice(NAMES)
