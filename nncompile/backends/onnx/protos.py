"""ONNX graphs as protobuf holds them: nodes, the graphs within them, what they say and take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx
from onnx import helper


def graphs_within(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node holds, such as the body of a loop."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            found += attribute.graphs
    return found


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of graphs within them."""
    waiting: list[Iterable[onnx.NodeProto]] = [nodes]
    while waiting:
        for node in waiting.pop():
            yield node
            if node.attribute:
                waiting += [graph.node for graph in graphs_within(node)]


def taken_within(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that graphs within a node take, or give as they are; their own among them."""
    for graph in graphs_within(node):
        yield from (name for inner in graph.node for name in needs(inner))
        yield from (output.name for output in graph.output)


def needs(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node takes, those of graphs within it among them."""
    yield from node.input
    yield from taken_within(node)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Gives a graph other nodes; some of its own may be among them."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's operators that a model is written in."""
    versions: Mapping[str, int] = {x.domain: x.version for x in model.opset_import}
    return versions.get("", versions.get("ai.onnx", 1))
