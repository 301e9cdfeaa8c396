"""A training step in the file of a model, as `training_info` of ONNX's format has it.

The nodes of the algorithm stand behind those of the model in one graph. Its weights are those of
the model, or its own where the model has none of that name; after a step each becomes what its
`update_binding` names. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy

import onnx
from onnx import numpy_helper

from nncompile.backends.onnx.protos import graphs_within
from nncompile.ir.names import unused_name
from nncompile.ir.types import Array

_PREFIX = "training"


def add_training_info(
    model: onnx.ModelProto,
    step: onnx.ModelProto,
    initialization: onnx.ModelProto,
    state: Mapping[str, Array],
    next_values: Mapping[str, str],
    first_values: Mapping[str, str],
) -> None:
    """Puts a step into a model whose weights are parameters and states of it, by the same paths.

    `state` are the numbers that the step begins with; `next_values` names the output of the step
    that is the next value of a path, `first_values` that of the initialization. Tensors of the step
    get other names where they would be those of the model.
    """
    info = model.training_info.add()
    info.initialization.CopyFrom(initialization.graph)
    _bind(info.initialization_binding, first_values)
    own = {i.name for i in model.graph.input}
    weights = {t.name for t in model.graph.initializer}
    shared = {i.name for i in step.graph.input}
    outputs = {o.name for o in step.graph.output}
    taken = {*own, *weights, *shared, *_made(model.graph)}
    names: dict[str, str] = {}

    def renamed(name: str) -> str:
        if not name or name in shared:
            return name
        if name not in names:
            is_output = name in outputs and name not in taken
            names[name] = unused_name(name if is_output else f"{_PREFIX}/{name}", taken)
            taken.add(names[name])
        return names[name]

    algorithm = info.algorithm
    algorithm.CopyFrom(step.graph)
    _rename(algorithm, renamed)
    del algorithm.input[:]
    algorithm.input.extend(i for i in step.graph.input if i.name not in own and i.name not in state)
    missing = [i.name for i in step.graph.input if i.name in state and i.name not in weights]
    algorithm.initializer.extend(numpy_helper.from_array(state[name], name) for name in missing)
    _bind(info.update_binding, {path: renamed(name) for path, name in next_values.items()})
    domains = {o.domain for o in model.opset_import}
    for opset in (*step.opset_import, *initialization.opset_import):
        if opset.domain not in domains:
            domains.add(opset.domain)
            model.opset_import.add().CopyFrom(opset)


def combined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that a step of such a file runs: that of the model, and the algorithm behind it."""
    whole = deepcopy(model)
    del whole.training_info[:]
    for info in model.training_info:
        for field in ("node", "initializer", "input", "output", "value_info"):
            getattr(whole.graph, field).extend(getattr(info.algorithm, field))
    return whole


def _bind(bindings: object, names: Mapping[str, str]) -> None:
    for key, value in names.items():
        bindings.add(key=key, value=value)  # type: ignore[attr-defined]  # a field of protobuf's


def _made(graph: onnx.GraphProto) -> Iterator[str]:
    """The names that nodes give, those of graphs within them too."""
    for node in graph.node:
        yield from node.output
        for inner in graphs_within(node):
            yield from (i.name for i in inner.input)
            yield from _made(inner)


def _rename(graph: onnx.GraphProto, renamed: Callable[[str], str]) -> None:
    for named in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        named.name = renamed(named.name)
    for node in graph.node:
        node.name = f"{_PREFIX}/{node.name}"
        for names in (node.input, node.output):
            names[:] = [renamed(name) for name in names]
        for inner in graphs_within(node):
            _rename(inner, renamed)
