"""What differs between two ONNX files: their graphs, and the numbers of their weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.reading import Path_
from nncompile.frontends.onnx.linear import take_out
from nncompile.frontends.onnx.reading import operator, read_model
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.tensors import array_of


@dataclass(frozen=True)
class WeightChange:
    """A weight that both files have: its type, and the largest difference of an element relative
    to the largest element of the first file."""

    name: str
    type: str
    relative: float


@dataclass
class Differences:
    """What one file has and another has not. `graph` are lines on inputs, outputs, opsets, nodes
    and the names and types of weights; `about` on what runtimes do not compute with; `changed` the
    weights of other numbers, the largest change first, of `weights` that both have."""

    graph: list[str] = field(default_factory=list)
    about: list[str] = field(default_factory=list)
    changed: list[WeightChange] = field(default_factory=list)
    weights: int = 0
    nodes: tuple[int, int] = (0, 0)

    @property
    def is_same_graph(self) -> bool:
        """Whether both files compute the same of inputs and weights."""
        return not self.graph


def differences(first: Path_, second: Path_) -> Differences:
    """What differs between two files. The order of nodes, and their names and descriptions, are no
    part of the graph. Raises what `read_model` does."""
    models = read_model(first), read_model(second)
    for model in models:
        take_out(model.graph)
    found = Differences()
    found.nodes = _count(models[0].graph), _count(models[1].graph)
    _ports(found, "input", *(_formals(m.graph) for m in models))
    _ports(found, "output", *(_types(m.graph.output) for m in models))
    opsets = [{o.domain or "ai.onnx": str(o.version) for o in m.opset_import} for m in models]
    _listed(found.graph, "opset", opsets)
    nodes = [{_key(node): node for node in m.graph.node} for m in models]
    _nodes(found.graph, *nodes)
    functions = [{f"{f.domain}.{f.name}": _bytes(f) for f in m.functions} for m in models]
    _listed(found.graph, "function", functions, shown=False)
    _weights(found, models, [os.fspath(Path(path).parent) for path in (first, second)])
    _listed(found.about, "metadata", [_metadata(m) for m in models])
    names = [{key: node.name for key, node in by.items() if node.name} for by in nodes]
    renamed = [key for key in names[0].keys() & names[1].keys() if names[0][key] != names[1][key]]
    if renamed:
        found.about.append(f"names of nodes: {len(renamed)} differ")
    return found


def _count(graph: onnx.GraphProto) -> int:
    return sum(1 for _ in all_nodes(graph.node))


def _formals(graph: onnx.GraphProto) -> dict[str, str]:
    stored = {t.name for t in graph.initializer}
    return _types([i for i in graph.input if i.name not in stored])


def _types(ports: Sequence[onnx.ValueInfoProto]) -> dict[str, str]:
    return {port.name: _type(port.type) for port in ports}


def _type(type_: onnx.TypeProto) -> str:
    if type_.WhichOneof("value") != "tensor_type":
        return str(type_.WhichOneof("value") or "not declared")
    tensor = type_.tensor_type
    name = _element(tensor.elem_type)
    if not tensor.HasField("shape"):
        return name
    sizes = [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?")
             for d in tensor.shape.dim]  # fmt: skip
    return f"{name}[{', '.join(sizes)}]"


def _element(number: int) -> str:
    try:
        return str(TensorProto.DataType.Name(number).lower())
    except ValueError:
        return f"type {number}"


def _ports(found: Differences, kind: str, a: Mapping[str, str], b: Mapping[str, str]) -> None:
    _listed(found.graph, kind, (a, b))
    if list(a) != list(b) and set(a) == set(b):
        found.graph.append(f"{kind}s: in another order")


def _listed(
    lines: list[str], kind: str, pair: Sequence[Mapping[str, Any]], shown: bool = True
) -> None:
    """A line for each key that one of the two has alone, or with another value."""
    a, b = pair
    for key in {**a, **b}:
        if key not in b:
            lines.append(f"{kind} {key}: only in the first" + (f", {a[key]}" if shown else ""))
        elif key not in a:
            lines.append(f"{kind} {key}: only in the second" + (f", {b[key]}" if shown else ""))
        elif a[key] != b[key]:
            lines.append(f"{kind} {key}: {f'{a[key]} → {b[key]}' if shown else 'differs'}")


def _key(node: onnx.NodeProto) -> str:
    """What a node is known by: the names of its results."""
    return ", ".join(node.output)


def _nodes(
    lines: list[str], a: Mapping[str, onnx.NodeProto], b: Mapping[str, onnx.NodeProto]
) -> None:
    for key in {**a, **b}:
        if key not in a or key not in b:
            node, where = (a[key], "first") if key in a else (b[key], "second")
            lines.append(f"node {_title(node)}: only in the {where}")
            continue
        x, y = a[key], b[key]
        if operator(x) != operator(y):
            lines.append(f"node {_title(x)}: is a {operator(y)}")
        elif list(x.input) != list(y.input):
            lines.append(f"node {_title(x)}: takes {_text(x.input)} → {_text(y.input)}")
        else:
            ours, theirs = _attributes(x), _attributes(y)
            changed = sorted(n for n in {**ours, **theirs} if ours.get(n) != theirs.get(n))
            if changed:
                lines.append(f"node {_title(x)}: other {', '.join(changed)}")


def _title(node: onnx.NodeProto) -> str:
    return f"{operator(node)} {node.name or _key(node)}"


def _text(names: Sequence[str]) -> str:
    return f"({', '.join(names)})"


def _attributes(node: onnx.NodeProto) -> dict[str, bytes]:
    """Attributes by name; the numbers of a constant are those of a weight."""
    found = {}
    for attribute in node.attribute:
        if node.op_type == "Constant" and attribute.name == "value":
            found[attribute.name] = repr((attribute.t.data_type, list(attribute.t.dims))).encode()
        else:
            copy = deepcopy(attribute)
            copy.doc_string = ""
            found[attribute.name] = _bytes(copy)
    return found


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _tensors(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    constants = {
        node.output[0]: attribute.t
        for node in graph.node
        if node.op_type == "Constant" and node.output
        for attribute in node.attribute
        if attribute.name == "value"
    }
    return {**{t.name: t for t in graph.initializer}, **constants}


def _weights(
    found: Differences, models: Sequence[onnx.ModelProto], directories: Sequence[str]
) -> None:
    a, b = (_tensors(m.graph) for m in models)
    constants = [{n.output[0] for n in m.graph.node if n.op_type == "Constant"} for m in models]
    types = [
        {n: f"{_element(t.data_type)}{list(t.dims)}" for n, t in tensors.items() if n not in made}
        for tensors, made in zip((a, b), constants, strict=True)
    ]
    _listed(found.graph, "weight", types)
    for name in a:
        x, y = a[name], b.get(name)
        if y is None or x.data_type != y.data_type or list(x.dims) != list(y.dims):
            continue
        found.weights += 1
        relative = _relative(x, y, directories)
        if relative:
            type_ = f"{_element(x.data_type)}{list(x.dims)}"
            found.changed.append(WeightChange(name, type_, relative))
    found.changed.sort(key=lambda change: -change.relative)


def _relative(x: TensorProto, y: TensorProto, directories: Sequence[str]) -> float:
    """The largest difference relative to the largest element; infinite where there is none."""
    try:
        a, b = (array_of(t, d) for t, d in zip((x, y), directories, strict=True))
    except Refused:  # strings, and types that numpy has not
        return 0.0 if _bytes(x) == _bytes(y) else float("inf")
    if a.tobytes() == b.tobytes():
        return 0.0
    wide, other = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(wide) & np.isfinite(other)
    if not np.array_equal(wide[~finite], other[~finite], equal_nan=True):
        return float("inf")
    difference = float(np.abs(wide[finite] - other[finite]).max(initial=0.0))
    largest = float(np.abs(wide[finite]).max(initial=0.0))
    return difference / largest if largest else (float("inf") if difference else 0.0)


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    about = {
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "ir_version": str(model.ir_version),
        "graph name": model.graph.name,
        **{entry.key: entry.value for entry in model.metadata_props},
    }
    return {key: value for key, value in about.items() if value}
