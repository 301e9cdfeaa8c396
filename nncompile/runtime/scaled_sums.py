"""Sums of a tensor and a multiple of another in one pass over memory.

`x + s·y` with a number s is two standard operators, and the second reads what the first has
written. onnxruntime has one operator for it, which models may not hold that run elsewhere. Where a
session is made for a step or an update, those sums are therefore rewritten to it: an update by Adam
has three of them. In what comes before an update they stay, for onnxruntime knows activations by
how they are written.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nncompile.backends.onnx.protos import all_nodes, needs, opset_of, replace_nodes
from nncompile.diagnostics.errors import BackendError
from nncompile.ir.names import unused_name
from nncompile.runtime.session import Session
from nncompile.runtime.tiling import ELEMENTWISE, TILE_SIZE

DOMAIN = "com.microsoft"
OPERATOR = "GatedAdd"  # x + y·gate, of one number for each row
OLDEST = 13  # opset whose operators are those that numbers are brought to rows with
NARROW = 32  # elements of a row: of fewer, a row takes longer than the pass over memory
_MOVING = frozenset({"Concat", "Identity", "Reshape", "Slice", "Split"})


def with_scaled_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with onnxruntime's operator for all sums that it is for, in its main graph; the
    model itself where it has none, or this version no operator that gives the same bits."""
    operators = {node.op_type for node in model.graph.node}
    if model.functions or "Mul" not in operators or operators.isdisjoint({"Add", "Sub"}):
        return model  # in functions for native kernels there are few in the main graph
    if opset_of(model) < OLDEST or not has_operator():
        return model
    return rewritten(model)


@cache
def has_operator() -> bool:
    """Whether this onnxruntime has the operator, and gives the bits of `Mul` and `Add` on this
    processor: another one might not round the product."""
    rng = np.random.default_rng(0)
    x, y = (np.ldexp(rng.normal(size=(9, 37)), rng.integers(-30, 30, (9, 37))) for _ in range(2))
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38, 1.0])
    x[:8, :8], y[:8, :8] = special, special[:, None]
    feeds = {"x": x.astype(np.float32), "y": y.astype(np.float32), "s": np.float32(0.9)}
    model = _example(x.shape)
    try:
        expected, found = (
            Session(m, threads=1, optimization="none").run(feeds)["sum"]
            for m in (model, rewritten(model))
        )
    except BackendError:  # of a version that does not have it
        return False
    same = expected.view(np.uint32) == found.view(np.uint32)
    return bool(np.all(same | (np.isnan(expected) & np.isnan(found))))


def _example(shape: Sequence[int]) -> onnx.ModelProto:
    x, y, s, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
        for name, dims in (("x", shape), ("y", shape), ("s", ()), ("sum", shape))
    )
    nodes = [
        helper.make_node("Mul", ["y", "s"], ["product"]),
        helper.make_node("Add", ["x", "product"], ["sum"]),
    ]
    graph = helper.make_graph(nodes, "example", [x, y, s], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the operator for all sums that it is for; itself where there are none."""
    found = _Sums(onnx.shape_inference.infer_shapes(model).graph).found
    if not found:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    rewriter = _Rewriter(model.graph)
    products = {scaled.product for scaled in found.values()}
    for i, node in enumerate(model.graph.node):
        if i in found:
            rewriter.add(node, found[i])
        elif i not in products:
            rewriter.nodes.append(node)
    replace_nodes(result.graph, rewriter.nodes)
    result.graph.initializer.extend(rewriter.constants)
    if all(opset.domain != DOMAIN for opset in result.opset_import):
        result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return result


class _Sum(NamedTuple):
    """A node that is x + s·y, or x − s·y: `product` is the place of the node that is s·y."""

    product: int
    x: str
    y: str
    number: str
    is_difference: bool
    rows: tuple[int, ...]  # the leading axes


class _Sums:
    """The sums in a graph whose shapes are known."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        infos = (*graph.input, *graph.value_info, *graph.output)
        self.types = {info.name: info.type.tensor_type for info in infos}
        self.types |= {x.name: _type_of(x) for x in graph.initializer}
        self.places = {name: i for i, node in enumerate(self.nodes) for name in node.output}
        self.readers = Counter(name for node in self.nodes for name in needs(node))
        self.readers.update(info.name for info in graph.output)

    @property
    def found(self) -> dict[int, _Sum]:
        """By the places of the nodes."""
        found: dict[int, _Sum] = {}
        for i in self._last():
            if self.nodes[i].op_type in ("Add", "Sub"):
                scaled = next(self._forms(self.nodes[i]), None)
                if scaled is not None:
                    found[i] = scaled
        return found

    def _last(self) -> set[int]:
        """The elementwise nodes whose results go into such nodes and outputs alone."""
        others: set[str] = set()  # tensors that other nodes take
        last: set[int] = set()
        for i, node in reversed([*enumerate(self.nodes)]):
            known = not node.domain and node.op_type in ELEMENTWISE | _MOVING
            if known and others.isdisjoint(node.output):
                last.add(i)
            else:
                others.update(needs(node))
        return last

    def _forms(self, node: onnx.NodeProto) -> Iterator[_Sum]:
        """The ways to read the node as one."""
        first, second = node.input
        is_difference = node.op_type == "Sub"
        for x, product in ((first, second), (second, first)):
            if is_difference and x is not first:
                return
            place = self.places.get(product)
            if place is None or self.readers[product] != 1 or x == product:
                continue
            maker = self.nodes[place]
            if maker.op_type != "Mul" or maker.domain:
                continue
            for y, number in (maker.input, reversed(maker.input)):
                rows = self._rows(node.output[0], x, y, number)
                if rows is not None:
                    yield _Sum(place, x, y, number, is_difference, rows)

    def _rows(self, result: str, x: str, y: str, number: str) -> tuple[int, ...] | None:
        """The leading axes of the tensors, where the operator is for them: not for empty ones, as
        those of sizes that are not known may be, but for tiles."""
        if any(self._dtype(name) != TensorProto.FLOAT for name in (result, x, y, number)):
            return None
        shape = self._shape(result)
        if not shape or self._shape(number) != () or not shape == self._shape(x) == self._shape(y):
            return None
        if shape == (TILE_SIZE,):
            return ()
        sizes = tuple(size for size in shape if isinstance(size, int) and size > 0)
        is_narrow = len(sizes) > 1 and sizes[-1] < NARROW
        return None if sizes != shape or is_narrow else sizes[:-1]

    def _dtype(self, name: str) -> int | None:
        type_ = self.types.get(name)
        return None if type_ is None else type_.elem_type

    def _shape(self, name: str) -> tuple[int | str, ...] | None:
        """The shape, if all sizes are known or have a name."""
        type_ = self.types.get(name)
        if type_ is None or not type_.HasField("shape"):
            return None
        sizes = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param for d in type_.shape.dim
        )
        return None if "" in sizes else sizes


def _type_of(tensor: onnx.TensorProto) -> onnx.TypeProto.Tensor:
    return helper.make_tensor_type_proto(tensor.data_type, tensor.dims).tensor_type


class _Rewriter:
    """The nodes of the new graph; what two sums need is made once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        given = {info.name for info in graph.input}
        self._numbers = {x.name: x for x in graph.initializer if x.name not in given}
        self._taken = {name for node in all_nodes(graph.node) for name in node.output}
        self._taken |= {name for node in graph.node for name in needs(node)}
        self._taken |= given | {x.name for x in (*graph.output, *graph.initializer)}
        self._known: dict[tuple[object, ...], str] = {}

    def add(self, node: onnx.NodeProto, scaled: _Sum) -> None:
        """The operator in place of a node."""
        inputs = [scaled.x, scaled.y, self._gate(node, scaled)]
        made = helper.make_node(OPERATOR, inputs, node.output, node.name, domain=DOMAIN)
        self._append(made, node)

    def _gate(self, node: onnx.NodeProto, scaled: _Sum) -> str:
        """The number of the sum once for each row."""
        name, rows = scaled.number, (*scaled.rows, 1)
        if name in self._numbers:
            number = numpy_helper.to_array(self._numbers[name])
            sign = -1 if scaled.is_difference else 1
            return self._constant(np.full(rows, sign * number, np.float32), name, rows, sign)
        if scaled.is_difference:
            name = self._made(node, "Neg", name)
        return self._made(node, "Expand", name, self._constant(np.asarray(rows, np.int64), rows))

    def _constant(self, array: np.ndarray, *about: object) -> str:
        if about not in self._known:
            self._known[about] = self._unused("rows/" + " ".join(map(str, about)))
            self.constants.append(numpy_helper.from_array(array, self._known[about]))
        return self._known[about]

    def _made(self, node: onnx.NodeProto, operator: str, *inputs: str) -> str:
        """The result of an operator, which a node needs first."""
        about = operator, *inputs
        if about not in self._known:
            name = self._known[about] = self._unused(f"{inputs[0]}/{operator}")
            self._append(helper.make_node(operator, inputs, [name], name), node)
        return self._known[about]

    def _append(self, made: onnx.NodeProto, node: onnx.NodeProto) -> None:
        made.metadata_props.extend(copy.copy(p) for p in node.metadata_props)
        self.nodes.append(made)

    def _unused(self, name: str) -> str:
        found = unused_name(name, self._taken)
        self._taken.add(found)
        return found
