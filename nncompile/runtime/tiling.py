"""Which parts of an update may run tile by tile: those that are elementwise on large tensors.

The operators of an update pass over a whole parameter one after the other, and memory is slower
than they are. A tile of it stays in the processor's cache while all of them pass over it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nncompile.backends.onnx.protos import needs
from nncompile.runtime.in_place import overwritten
from nncompile.runtime.step_sources import METADATA_KEY

# Each gives for an element the same number wherever in a tensor it lies, and needs nothing else.
ELEMENTWISE = frozenset({
    *("Abs", "Add", "And", "Cast", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"),
    *("LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or", "Sign", "Sqrt"),
    *("Sub", "Where"),
})  # fmt: skip
TILE_SIZE = "elements of a tile"
"""The one axis of tensors of a part; it is never empty."""
_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE)


class Part(NamedTuple):
    """A part of an update as a model of vectors of any length. Its outputs and the inputs that are
    `tensors` are mapped to those of the update, its inputs that are `numbers` to outputs of the
    rest."""

    model: bytes
    tensors: Mapping[str, str]
    numbers: Mapping[str, str]
    results: Mapping[str, str]
    size: int


@dataclass(frozen=True)
class Tiling:
    """The parts of an update that run tile by tile, and the `rest`, which runs before them."""

    rest: onnx.ModelProto
    parts: Sequence[Part]
    states: frozenset[str]  # which the parts write over
    types: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]  # of what the parts take and give
    # Of the update.
    inputs: Sequence[str]
    outputs: Sequence[str]
    metadata: Mapping[str, str]


AsRun = Callable[[bytes], onnx.ModelProto]


def tiling_of(update: onnx.ModelProto, least: int, as_run: AsRun) -> Tiling | None:
    """The tiling of an update, of its tensors of more than `least` elements; None where no part of
    it may run so. What cannot write its states in place belongs to the rest; `as_run` gives a model
    as onnxruntime runs it, after its own rewrites."""
    if update.functions:  # native kernels pass over memory once
        return None
    found = _Update(update, least, as_run)
    return found.tiling if found.parts else None


class _Update:
    """An update, in which such parts are looked for."""

    def __init__(self, model: onnx.ModelProto, least: int, as_run: AsRun) -> None:
        self.model, self.least, self.as_run = model, least, as_run
        self.graph = onnx.shape_inference.infer_shapes(model).graph
        self.nodes = list(self.graph.node)
        entries = [p for p in model.metadata_props if p.key == METADATA_KEY]
        self.state_map: dict[str, str] = json.loads(entries[0].value) if entries else {}
        self.state_of = {result: name for name, result in self.state_map.items()}
        infos = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        self.types = {info.name: info.type.tensor_type for info in infos}
        self.shapes = {name: _shape(t) for name, t in self.types.items()}
        self.constants = {x.name: x for x in self.graph.initializer}
        self.shapes |= {name: tuple(x.dims) for name, x in self.constants.items()}
        self.inputs = [info.name for info in self.graph.input]
        self.outputs = [info.name for info in self.graph.output]
        # By the name of a number where the rest may write it, that of a copy which is taken before.
        self.copies: dict[str, str] = {}
        self.parts: list[Part] = []
        self.taken: set[int] = set()  # the nodes of parts
        for nodes in self._groups():
            if part := self._part(nodes):
                self.parts.append(part)
                self.taken |= nodes

    def _is_large(self, name: str) -> bool:
        shape = self.shapes.get(name)
        return shape is not None and math.prod(shape) > self.least

    @cached_property
    def _readers(self) -> Mapping[str, set[int]]:
        readers: dict[str, set[int]] = defaultdict(set)
        for i, node in enumerate(self.nodes):
            for name in needs(node):
                readers[name].add(i)
        return readers

    def _candidates(self) -> Iterator[int]:
        """The elementwise nodes whose results go into each other and into next states alone."""
        found: set[int] = set()
        for i, node in reversed([*enumerate(self.nodes)]):
            (result, *others) = node.output
            is_state = result in self.state_of
            is_inner = bool(self._readers[result]) and result not in self.outputs
            if (
                node.op_type in ELEMENTWISE
                and not (node.domain or others)
                and (is_state or is_inner)
                and self._readers[result] <= found
                and all(self.shapes.get(x) in ((), self.shapes[result]) for x in node.input)
            ):
                found.add(i)
                yield i

    def _groups(self) -> Iterable[set[int]]:
        """The candidates that share tensors, together."""
        group_of: dict[str, set[int]] = {}
        for i in self._candidates():
            node = self.nodes[i]
            large = [x for x in (*node.input, *node.output) if self._is_large(x)]
            before = {id(group_of[x]): group_of[x] for x in large if x in group_of}
            group = {i}.union(*before.values())
            names = {x for j in group for x in (*self.nodes[j].input, *self.nodes[j].output)}
            group_of |= dict.fromkeys(filter(self._is_large, names), group)
        return {id(group): group for group in group_of.values()}.values()

    def _part(self, group: set[int]) -> Part | None:
        """The part of these nodes, if it takes inputs alone, and may write its states in place."""
        nodes = [self.nodes[i] for i in sorted(group)]
        made = dict.fromkeys(node.output[0] for node in nodes)
        given = dict.fromkeys(x for node in nodes for x in node.input if x not in made)
        tensors = [x for x in given if self._is_large(x)]
        results = [x for x in made if x in self.state_of]
        if not self._may_be_apart(tensors, results):
            return None
        numbers = [x for x in given if x not in self.constants and not self._is_large(x)]
        known = {x: _constant(self.constants[x]) for x in given if x in self.constants}
        known |= {x: f"number {self.types[x].elem_type}" for x in numbers}
        known |= {x: f"tensor {self.types[x].elem_type}" for x in tensors}
        model, names = self._model(nodes, known, results)
        states = {names[name]: names[r] for r in results if (name := self.state_of[r]) in names}
        content = model.SerializeToString()
        free = overwritten(self.as_run(content), states)
        if len(states) < len(results) or len(free) < len(states):
            return None
        return Part(
            content,
            {names[x]: x for x in tensors},
            {names[x]: self._from_rest(x) for x in numbers},
            {names[x]: x for x in results},
            math.prod(self.shapes[results[0]] or ()),
        )

    def _may_be_apart(self, tensors: Sequence[str], results: Sequence[str]) -> bool:
        """Whether all tensors of a part are inputs, of types that are taken, and none of them is a
        state that something else writes."""
        others = self.state_map.keys() - {self.state_of[x] for x in results}
        are_free = all(x in self.inputs and x not in others for x in tensors)
        return are_free and all(self.types[x].elem_type in _TYPES for x in (*tensors, *results))

    def _from_rest(self, number: str) -> str:
        """The name by which the rest gives a number: another one where it is an input or output,
        which a state may be."""
        if number in self.inputs or number in self.outputs:
            taken = self.types.keys() | self.constants.keys() | {*self.copies.values()}
            name = f"{number}:kept"
            while number not in self.copies and name in taken:
                name += "'"
            return self.copies.setdefault(number, name)
        return number

    def _model(
        self, nodes: Iterable[onnx.NodeProto], given: Mapping[str, str], results: Sequence[str]
    ) -> tuple[onnx.ModelProto, dict[str, str]]:
        """The model of these nodes, with names and an order that equal parts share, and these
        names. `given` says of each input what it has in common with that of an equal part."""
        digests = dict(given)
        args: dict[str, list[str]] = {}
        makers = {node.output[0]: node for node in nodes}
        for result, node in makers.items():
            args[result] = _ordered(node, digests)
            about = node.op_type, [a.SerializeToString() for a in node.attribute]
            digests[result] = _digest(about, [digests[x] for x in args[result]])
        ordered = sorted(results, key=digests.__getitem__)
        order = _arguments_first(ordered, args)
        names = {name: f"t{i}" for i, name in enumerate(order)}
        made = []
        for name in filter(makers.__contains__, order):
            copy = helper.make_node(
                makers[name].op_type, [names[x] for x in args[name]], [names[name]]
            )
            copy.attribute.extend(makers[name].attribute)
            made.append(copy)

        def info(name: str, shape: Sequence[str]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(names[name], self.types[name].elem_type, shape)

        leaves = [x for x in order if x not in makers and x not in self.constants]
        inputs = [info(x, [TILE_SIZE] if self._is_large(x) else []) for x in leaves]
        outputs = [info(x, [TILE_SIZE]) for x in ordered]
        constants = [_renamed(self.constants[x], names[x]) for x in order if x in self.constants]
        graph = helper.make_graph(made, "tile", inputs, outputs, constants)
        opsets, version = self.model.opset_import, self.model.ir_version
        return helper.make_model(graph, opset_imports=opsets, ir_version=version), names

    @property
    def tiling(self) -> Tiling | None:
        """The parts and the rest, which gives them their numbers."""
        taken = dict.fromkeys(x for part in self.parts for x in part.tensors.values())
        results = dict.fromkeys(x for part in self.parts for x in part.results.values())
        rest = self._rest([*taken], [*results])
        if not rest.graph.output:
            return None
        types = {
            x: (helper.tensor_dtype_to_np_dtype(self.types[x].elem_type), self.shapes[x] or ())
            for x in (*taken, *results)
        }
        states = frozenset(self.state_of[x] for x in results)
        metadata = {p.key: p.value for p in self.model.metadata_props}
        return Tiling(rest, self.parts, states, types, self.inputs, self.outputs, metadata)

    def _rest(self, tensors: Collection[str], results: Collection[str]) -> onnx.ModelProto:
        """The update without its parts, which take and give these; it gives their numbers, too."""
        nodes = [node for i, node in enumerate(self.nodes) if i not in self.taken]
        nodes += [helper.make_node("Identity", [x], [name]) for x, name in self.copies.items()]
        sources = {name: x for x, name in self.copies.items()}
        numbers = dict.fromkeys(x for part in self.parts for x in part.numbers.values())
        outputs = [info for info in self.graph.output if info.name not in results]
        for name in numbers:
            type_ = self.types[sources.get(name, name)].elem_type
            outputs.append(helper.make_tensor_value_info(name, type_, []))
        needed = {x for node in nodes for x in needs(node)} | {info.name for info in outputs}
        inputs = [x for x in self.graph.input if x.name in needed or x.name not in tensors]
        constants = [x for x in self.graph.initializer if x.name in needed]
        graph = helper.make_graph(nodes, self.graph.name, inputs, outputs, constants)
        rest = onnx.ModelProto()
        rest.CopyFrom(self.model)
        rest.graph.CopyFrom(graph)
        pairs = {name: r for name, r in self.state_map.items() if r not in results}
        for entry in rest.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = json.dumps(pairs)
        return rest


def _arguments_first(results: Sequence[str], args: Mapping[str, Sequence[str]]) -> list[str]:
    """The tensors that the results need, each after its arguments."""
    order: dict[str, None] = {}
    pending = [*results][::-1]
    while pending:
        name = pending[-1]
        missing = [x for x in args.get(name, ()) if x not in order]
        if missing:
            pending += missing[::-1]
        else:
            order[pending.pop()] = None
    return [*order]


def _renamed(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    result = onnx.TensorProto()
    result.CopyFrom(tensor)
    result.name = name
    return result


def _ordered(node: onnx.NodeProto, digests: Mapping[str, str]) -> list[str]:
    """The arguments of a node, in an order that equal ones share where theirs is none."""
    is_free = node.op_type in ("Add", "Mul")
    return sorted(node.input, key=digests.__getitem__) if is_free else list(node.input)


def _digest(*about: object) -> str:
    return hashlib.blake2b(repr(about).encode(), digest_size=16).hexdigest()


def _constant(tensor: onnx.TensorProto) -> str:
    return _digest(tensor.data_type, numpy_helper.to_array(tensor).tobytes())


def _shape(tensor: onnx.TypeProto.Tensor) -> tuple[int, ...] | None:
    """The shape, if all sizes are known."""
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in dims):
        return None
    return tuple(d.dim_value for d in dims)
