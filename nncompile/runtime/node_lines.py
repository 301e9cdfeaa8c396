"""Which of the user's lines a node is of that onnxruntime names in an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import onnx

from nncompile.backends.onnx.protos import graphs_within
from nncompile.diagnostics.errors import Row

_NODE = re.compile(r"while running (\w+) node\. Name:'([^']+)'")
_INLINED = re.compile(
    r"_inlfunc_(\w+?)(?:_\d+)*_outlined_"
)  # a node of a function, put in its place


def rows_of_node(model: Any, error: Exception) -> list[Row]:
    """The node that an error names, and the user's lines that the model says of it: the file of a
    model, its bytes or an `onnx.ModelProto`. Nothing where it says none, such as of a node that
    onnxruntime made."""
    found = _NODE.search(str(error))
    if found is None:
        return []
    operator, name = found.groups()
    inlined = _INLINED.match(name)
    lines = dict.fromkeys(
        source
        for node in _nodes(_proto(model).graph)
        if (node.op_type == inlined[1] if inlined else node.name == name)
        for source in _sources(node)
    )
    return [("node", operator, f"at {', '.join(lines)}")] if lines else []


def _proto(model: Any) -> Any:
    if isinstance(model, str | os.PathLike):
        return onnx.load(model, load_external_data=False)
    return onnx.load_model_from_string(model) if isinstance(model, bytes) else model


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for within in graphs_within(node):
            yield from _nodes(within)


def _sources(node: onnx.NodeProto) -> Iterator[str]:
    return (x.value for x in node.metadata_props if x.key == "source")
