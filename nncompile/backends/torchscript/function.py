"""A graph as a function of arrays: every leaf an argument, nothing held in the module."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from nncompile.backends.torchscript.arrays import array_of, tensor_of
from nncompile.backends.torchscript.script import to_script
from nncompile.diagnostics.locations import recording_locations
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace
from nncompile.ir.types import Array

Function = Callable[[Mapping[str, Array]], dict[str, Array]]


def to_function(graph: Graph) -> Function:
    """The graph as TorchScript, from arrays by the names of its leaves (parameters and states too)
    to arrays by the names of its outputs, on the CPU."""
    graph = of_data(graph)
    script = to_script(graph, {})
    names = list(graph.leaves)

    def function(feeds: Mapping[str, Array]) -> dict[str, Array]:
        tensors = [tensor_of(feeds[name]) for name in names]
        with torch.no_grad():
            results = script(*tensors)
        return {name: array_of(x) for name, x in results.items()}

    return function


def of_data(graph: Graph) -> Graph:
    """The graph in which parameters and states are data, of the same names."""
    new: dict[Value, Value] = {}
    with recording_locations(graph.locations):
        for name, leaf in graph.leaves.items():
            new[leaf] = apply(Input(name, leaf.type, "input"))
        outputs = replace(list(graph.outputs.values()), new)
    named = dict(zip(graph.outputs, outputs, strict=True))
    return Graph(graph.name, named, tuple(new.values()), graph.locations, graph.doc)
