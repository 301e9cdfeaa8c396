"""Changed ONNX models: each function changes one thing of a valid one."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from tests.faults.onnx_parts import (
    DOMAINS,
    FLOATS,
    NAMES,
    SIZES,
    Random,
    names_of,
    some_graph,
    some_name,
    some_node,
)
from tests.faults.onnx_tensors import (
    content,
    converted,
    declared,
    element_types,
    external,
    initializers,
    numbers,
    sizes,
)

Change = Callable[[Random, onnx.ModelProto], None]


def inputs_of_a_node(r: Random, model: onnx.ModelProto) -> None:
    """Another one, one more, one less, or in another order: cycles and missing tensors."""
    node = some_node(r, model)
    kind = r.randrange(5)
    if kind == 0 or not node.input:
        node.input.insert(r.randrange(len(node.input) + 1), some_name(r, model))
    elif kind == 1:
        del node.input[r.randrange(len(node.input))]
    elif kind == 2 and node.output:
        node.input[r.randrange(len(node.input))] = r.choice(node.output)
    elif kind == 3:
        mixed = r.sample(list(node.input), len(node.input))
        node.input[:] = mixed
    else:
        node.input[r.randrange(len(node.input))] = some_name(r, model)


def outputs_of_a_node(r: Random, model: onnx.ModelProto) -> None:
    """Another name, that of another tensor, one more or one less."""
    node = some_node(r, model)
    if not node.output or r.random() < 0.2:
        node.output.append(some_name(r, model))
    elif r.random() < 0.25:
        del node.output[r.randrange(len(node.output))]
    else:
        node.output[r.randrange(len(node.output))] = some_name(r, model)


def operator(r: Random, model: onnx.ModelProto) -> None:
    """Another operator, or its domain, overload or name."""
    node = some_node(r, model)
    kind = r.random()
    if kind < 0.7:
        schema = r.choice(_schemas())
        node.op_type, node.domain = schema.name, schema.domain
    elif kind < 0.9:
        node.domain = r.choice(DOMAINS)
    elif kind < 0.95:
        node.overload = r.choice(NAMES)
    else:
        node.name = r.choice(NAMES)


@cache
def _schemas() -> list[Any]:
    everything = onnx.defs.get_all_schemas_with_history()
    return sorted(everything, key=lambda s: (s.domain, s.name, s.since_version))


def opsets(r: Random, model: onnx.ModelProto) -> None:
    """Another version, a domain more or less."""
    kind = r.random()
    if kind < 0.7 and model.opset_import:
        opset = r.choice(model.opset_import)
        opset.version = r.choice(
            (-1, 0, 1, 2, 5, 6, 7, 9, 10, 11, 13, 14, 18, 21, 24, 99, 2**63 - 1)
        )
    elif kind < 0.85:
        model.opset_import.add(domain=r.choice(DOMAINS), version=r.choice((0, 1, 13, 99)))
    elif model.opset_import:
        del model.opset_import[r.randrange(len(model.opset_import))]


def attributes(r: Random, model: onnx.ModelProto) -> None:
    """Of another type, with extreme numbers, missing, doubled, or of a function that is none."""
    node = some_node(r, model)
    given = list(node.attribute)
    kind = r.random()
    if not given or kind < 0.15:
        node.attribute.append(
            _attribute(r, r.choice(("axis", "axes", "perm", "value", "to", "body")))
        )
    elif kind < 0.25:
        del node.attribute[r.randrange(len(given))]
    elif kind < 0.3:
        node.attribute.append(r.choice(given))
    elif kind < 0.35:
        r.choice(given).ref_attr_name = r.choice(("alpha", "axis", "nothing"))
    elif kind < 0.45:
        r.choice(given).type = r.randrange(15)  # type: ignore[assignment]  # there may be none
    elif kind < 0.6:
        changed = r.choice(given)
        changed.CopyFrom(_attribute(r, changed.name))
    else:
        _change_numbers(r, r.choice(given))


def _change_numbers(r: Random, attribute: AttributeProto) -> None:
    if attribute.type == AttributeProto.INT:
        attribute.i = r.choice(SIZES)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = r.choice(FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = r.choice((b"", b"\xff\xfe", b"SAME_UPPER", b"linear", b"x" * 9999))
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        kind = r.randrange(3)
        if kind == 0:
            attribute.ints.append(r.choice(SIZES))
        elif kind == 1:
            del attribute.ints[r.randrange(len(attribute.ints))]
        else:
            attribute.ints[r.randrange(len(attribute.ints))] = r.choice(SIZES)
    elif attribute.type == AttributeProto.FLOATS and attribute.floats:
        attribute.floats[r.randrange(len(attribute.floats))] = r.choice(FLOATS)


def _attribute(r: Random, name: str, kind: int = 0) -> AttributeProto:
    """An attribute of any type, or of that one."""
    made = AttributeProto(name=name)
    kind = kind or r.randrange(1, 15)
    made.type = kind  # type: ignore[assignment]  # the number of a type
    if kind == AttributeProto.FLOAT:
        made.f = r.choice(FLOATS)
    elif kind == AttributeProto.INT:
        made.i = r.choice(SIZES)
    elif kind == AttributeProto.STRING:
        made.s = r.choice((b"", b"SAME_UPPER", b"linear", b"nearest", b"ij,jk->ik", b"\xff"))
    elif kind == AttributeProto.TENSOR:
        made.t.CopyFrom(numpy_helper.from_array(np.float32([1] * r.choice((0, 1, 3))), "t"))
    elif kind == AttributeProto.GRAPH:
        made.g.name = "empty"
    elif kind == AttributeProto.INTS:
        made.ints.extend(r.choice(SIZES[:8]) for _ in range(r.choice((0, 1, 2, 3, 4))))
    elif kind == AttributeProto.FLOATS:
        made.floats.extend(r.choice(FLOATS) for _ in range(r.choice((0, 1, 2, 3, 4))))
    elif kind == AttributeProto.STRINGS:
        made.strings.extend([b"a", b"\xff"])
    elif kind == AttributeProto.GRAPHS:
        made.graphs.add(name="empty")
    return made


def new_node(r: Random, model: onnx.ModelProto) -> None:
    """Any operator there is, on tensors that are there, with attributes of the right types."""
    graph = some_graph(r, model)
    schema = r.choice(_schemas()) if r.random() < 0.3 else r.choice(_latest())
    most = min(schema.max_input, schema.min_input + 3)
    names = names_of(graph)
    count = r.randint(schema.min_input, max(most, schema.min_input))
    taken = [r.choice(names) if r.random() < 0.97 else "" for _ in range(count)]
    at = r.randrange(len(graph.node) + 1)
    made = [f"new_{len(names)}_{i}" for i in range(max(schema.min_output, 1))]
    node = helper.make_node(schema.name, taken, made, domain=schema.domain)
    for name, expected in schema.attributes.items():
        if expected.required or r.random() < 0.4:
            kind = int(getattr(expected.type, "value", expected.type))
            node.attribute.append(_attribute(r, name, kind))
    graph.node.insert(at, node)
    if r.random() < 0.7:  # where a node after it, or the graph, takes it
        after = list(graph.node)[at + 1 :]
        users = [n for n in after if n.input]
        if users and r.random() < 0.5:
            user = r.choice(users)
            user.input[r.randrange(len(user.input))] = made[0]
        else:
            graph.output.add(name=made[0])


@cache
def _latest() -> list[Any]:
    everything = onnx.defs.get_all_schemas()
    return sorted((s for s in everything if s.domain == ""), key=lambda s: s.name)


def order(r: Random, model: onnx.ModelProto) -> None:
    """Nodes in another order, one less, or one twice."""
    graph = some_graph(r, model)
    nodes = list(graph.node)
    if not nodes:
        return
    kind = r.randrange(3)
    if kind == 0:
        nodes = r.sample(nodes, len(nodes))
    elif kind == 1:
        del nodes[r.randrange(len(nodes))]
    else:
        nodes.insert(r.randrange(len(nodes) + 1), r.choice(nodes))
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def interfaces(r: Random, model: onnx.ModelProto) -> None:
    """Inputs and outputs of a graph that are missing, doubled or called otherwise: bodies of
    another signature."""
    graph = some_graph(r, model)
    formals = r.choice((graph.input, graph.output))
    kind = r.randrange(4)
    if kind == 0 and formals:
        del formals[r.randrange(len(formals))]
    elif kind == 1 and formals:
        formals.append(r.choice(list(formals)))
    elif kind == 2 and formals:
        r.choice(formals).name = some_name(r, model)
    else:
        formals.add(name=some_name(r, model))


def functions(r: Random, model: onnx.ModelProto) -> None:
    """A function that calls itself, is there twice, or has other inputs, outputs or opsets."""
    if not model.functions:
        return new_node(r, model)
    function = r.choice(model.functions)
    kind = r.randrange(5)
    if kind == 0:
        node = r.choice(function.node)
        called = r.choice(model.functions)
        node.op_type, node.domain = called.name, called.domain
    elif kind == 1:
        model.functions.append(function)
    elif kind == 2:
        formals = r.choice((function.input, function.output))
        if formals and r.random() < 0.5:
            del formals[r.randrange(len(formals))]
        else:
            formals.append(r.choice(NAMES))
    elif kind == 3:
        del function.opset_import[:]
    else:
        function.name = r.choice(NAMES)
    return None


CHANGES: dict[str, tuple[Change, ...]] = {
    "nodes": (inputs_of_a_node, outputs_of_a_node, order),
    "operators": (operator, opsets),
    "new nodes": (new_node,),
    "types": (element_types, converted, declared),
    "sizes": (sizes, numbers),
    "contents": (content, initializers, external),
    "attributes": (attributes,),
    "graphs": (interfaces, functions),
}
