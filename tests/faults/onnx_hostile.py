"""ONNX files that somebody made so that who reads them crashes, hangs or runs out of memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import onnx
from onnx import helper

from tests.faults.onnx_graphs import (
    endless_loops,
    huge_results,
    other_kinds,
    simple,
    strange_numbers,
    wrong_bodies,
)
from tests.faults.onnx_parts import Random
from tests.onnx_files import ints

Hostile = Callable[[Random], "onnx.ModelProto | bytes"]

node = helper.make_node


def _chain(r: Random, count: int) -> list[str]:
    return ["x", *(f"t{i}" for i in range(count)), "y"]


def long_chain(r: Random) -> onnx.ModelProto:
    """Many nodes, one after the other."""
    op = r.choice(("Relu", "Identity", "Sqrt", "Tanh"))
    names = _chain(r, r.choice((500, 3000)))
    model = simple("y = Relu(x)")
    del model.graph.node[:]
    nodes = [node(op, [a], [b]) for a, b in pairwise(names)]
    model.graph.node.extend(nodes)
    return model


def doubling(r: Random) -> onnx.ModelProto:
    """Tensors, sizes or numbers that double with every node."""
    model = simple("y = Relu(x)", {"c": ints(2), "f": np.float32([2, 2])})
    del model.graph.node[:]
    kind = r.choice(("concat", "shape", "square", "sizes", "tile", "add", "numbers", "kron"))
    count = r.choice((20, 40, 70))
    nodes = []
    first = {"concat": "c", "numbers": "f", "kron": "f"}.get(kind, "x")
    if kind in ("shape", "square", "sizes"):
        nodes.append(node("Shape", ["x"], ["s"]))
        first = "s"
    names = [first, *(f"t{i}" for i in range(count))]
    for a, b in pairwise(names):
        if kind in ("concat", "numbers", "shape"):
            nodes.append(node("Concat", [a, a], [b], axis=0))
        elif kind == "square":
            nodes.append(node("Mul", [a, a], [b]))
        elif kind == "sizes":
            nodes += [node("Add", [a, "c"], [b + "_"]), node("Mul", [a, b + "_"], [b])]
        elif kind == "tile":
            nodes.append(node("Concat", [a, a], [b], axis=r.choice((0, 1))))
        elif kind == "kron":
            nodes.append(node("Einsum", [a, a], [b + "_"], equation="i,j->ij"))
            nodes.append(node("Flatten", [b + "_"], [b], axis=0))
        else:
            nodes.append(node("Add", [a, a], [b]))
    last = names[-1]
    if first == "s":
        nodes += [node("Cast", [last], ["l"], to=1), node("ReduceSum", ["l"], ["y"])]
    else:
        nodes.append(node("ReduceMax", [last], ["y"]))
    model.graph.node.extend(nodes)
    return model


def wrong_functions(r: Random) -> onnx.ModelProto:
    """Functions that call themselves, each other, or others twice."""
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    model = simple("y = own.f0(x)", more=', "own" : 1')
    kind = r.choice(("self", "mutual", "double", "deep", "missing", "shadow", "attributes", "none"))
    count = {"self": 1, "mutual": 3, "double": 45, "deep": 300}.get(kind, 1)
    for i in range(count):
        following = f"f{(i + 1) % count}" if kind in ("self", "mutual") else f"f{i + 1}"
        if kind == "double":
            calls = [node(following, ["x"], [name], domain="own") for name in ("a", "b")]
            body = [*calls, node("Add", ["a", "b"], ["y"])]
        elif kind == "shadow":  # an operator of ONNX by itself
            body = [node("Relu", ["x"], ["y"])]
        elif kind == "attributes":
            call = node("LeakyRelu", ["x"], ["y"])
            call.attribute.add(name="alpha", type=1, ref_attr_name="nothing")
            call.attribute.add(name="alpha", type=7, ref_attr_name="f0")
            body = [call]
        elif kind == "none":
            body = []
        else:
            body = [node(following, ["x"], ["y"], domain="own")]
        model.functions.append(helper.make_function("own", f"f{i}", ["x"], ["y"], body, opsets))
    if kind == "shadow":
        model.functions.append(
            helper.make_function("", "Relu", ["x"], ["y"], [node("Relu", ["x"], ["y"])], opsets[1:])
        )
    if kind in ("double", "deep"):
        last = [node("Relu", ["x"], ["y"])]
        model.functions.append(helper.make_function("own", f"f{count}", ["x"], ["y"], last, opsets))
    return model


def deep_graphs(r: Random) -> bytes:
    """Conditions within conditions, more than protobuf writes itself."""
    depth = r.choice((5, 20, 32, 40, 64, 65, 200, 900))
    loops = r.random() < 0.3
    attribute = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH)
    other = onnx.AttributeProto(name="else_branch", type=onnx.AttributeProto.GRAPH)
    other.g.CopyFrom(helper.make_graph([node("Exp", ["x"], ["e"])], "e", [],
                                       [onnx.ValueInfoProto(name="e")]))  # fmt: skip
    content = helper.make_graph(
        [node("Relu", ["x"], ["y0"])], "g", [], [onnx.ValueInfoProto(name="y0")]
    ).SerializeToString()
    for i in range(depth):
        begin = attribute.SerializeToString() + _field(6, content)
        plain = node("Loop" if loops else "If", ["t"], [f"y{i + 1}"]).SerializeToString()
        within = plain + _field(5, begin) + _field(5, other.SerializeToString())
        out = onnx.GraphProto(name="g", output=[onnx.ValueInfoProto(name=f"y{i + 1}")])
        content = out.SerializeToString() + _field(1, within)
    model = simple("y = Relu(x)", {"t": np.asarray(True)})
    head = onnx.GraphProto(input=model.graph.input, initializer=model.graph.initializer)
    whole = onnx.ModelProto(ir_version=8, opset_import=model.opset_import)
    return whole.SerializeToString() + _field(7, content + head.SerializeToString())


def _field(number: int, content: bytes) -> bytes:
    """A message within a message, as protobuf writes it."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(x: int) -> bytes:
    found = bytearray()
    while x > 127:
        found.append(x & 127 | 128)
        x >>= 7
    return bytes((*found, x))


def stored_elsewhere(r: Random) -> onnx.ModelProto:
    """Weights in files that are missing, too short, no files, outside, or terabytes of nothing."""
    model = simple("a = MatMul(x, v)  b = MatMul(x, w)  y = Add(a, b)")
    sizes = ([4, 3], [4, 2**20], [4, 2**36], [4, 2**38], [4, -1], [2**62, 2**62], [])
    places = ("w.bin", "w.bin", "large.bin", "large.bin", "../w.bin", "/dev/zero", "missing.bin",
              "folder", "link.bin", "pipe", "", "w.bin/x")  # fmt: skip
    for name in "vw":
        dims = r.choice(sizes) if r.random() < 0.7 else [4, 3]
        tensor = model.graph.initializer.add(name=name, data_type=1, dims=dims)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=r.choice(places))
        count = 4 * int(np.prod(dims, dtype=object))
        for key, right in (("offset", 0), ("length", count)):
            value = r.choice((right, right, 0, 1, -4, 2**41, 2**63, "x", "", "9" * 5000))
            if r.random() < 0.7:
                tensor.external_data.add(key=key, value=str(value))
    return model


def much(r: Random) -> onnx.ModelProto:
    """Many inputs, outputs, attributes, opsets, refusals, or axes."""
    model = simple("y = Relu(x)", {"w": np.ones((1,) * r.choice((8, 32)), np.float32)})
    kind = r.randrange(7)
    if kind == 0:
        model.graph.node[0].CopyFrom(node("Sum", ["x"] * 2000, ["y"]))
    elif kind == 1:
        model.graph.output.extend([onnx.ValueInfoProto(name="y")] * 20000)
    elif kind == 2:
        model.opset_import.extend([helper.make_opsetid(f"d{i}", 1) for i in range(20000)])
    elif kind == 3:
        model.graph.node.extend([node(f"Op{i}", ["x"], [f"o{i}"]) for i in range(5000)])
    elif kind == 4:
        model.graph.node[0].CopyFrom(node("Concat", ["w"] * 3000, ["y"], axis=0))
    elif kind == 5:
        model.graph.node[0].CopyFrom(
            node("Einsum", ["w", "w"], ["y"], equation=f"{'a' * 8},{'b' * 8}->")
        )
    else:
        values = ints(*[1] * r.choice((65, 3000)))
        model = simple("y = Reshape(x, s)", {"s": values})
    return model


HOSTILE: dict[str, Hostile] = {
    "long chains": long_chain,
    "doubling": doubling,
    "huge results": huge_results,
    "strange numbers": strange_numbers,
    "endless loops": endless_loops,
    "wrong bodies": wrong_bodies,
    "other kinds": other_kinds,
    "wrong functions": wrong_functions,
    "deep graphs": deep_graphs,
    "stored elsewhere": stored_elsewhere,
    "much": much,
}
